"""Gradients that are sparse in their rows, of parameters whose rows are split over processes.

torch.distributed.tensor takes long to import, and so this file is when it is needed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

_aten = torch.ops.aten
_MADE = {_aten.add.Tensor, _aten.mul.Tensor, _aten.div.Tensor, _aten.neg.default, _aten.clone.default}
_CHANGED = {_aten.add_.Tensor, _aten.mul_.Tensor, _aten.div_.Tensor, _aten.zero_.default}
_SHARED = {_aten.detach.default, _aten.alias.default, _aten._to_copy.default}


class SparseRows(DTensor):
    """What is here is a sparse tensor, of which torch's DTensor knows little; to autograd it is an ordinary tensor.

    It can be added up, scaled, given to torch.optim.SGD and to `widehead.optim.RowAdam` and `RowAdagrad`, and clipped.
    """

    is_sparse = True

    @staticmethod
    def of(part: Tensor, spec: Any) -> SparseRows:
        """With ``part`` of the rows here, and the rest as of a DTensor of ``spec``."""
        shape, stride = spec.tensor_meta.shape, spec.tensor_meta.stride
        made = Tensor._make_wrapper_subclass(SparseRows, shape, stride, dtype=part.dtype, device=part.device)
        made._local_tensor, made._spec = part, spec
        return made

    def dense_rows(self) -> Tensor:
        """The rows that have a gradient, each once, as a DTensor, which has the same norms."""
        return self._rows(self._local_tensor.coalesce())

    def _rows(self, part: Tensor) -> Tensor:
        return DTensor.from_local(part._values(), self.device_mesh, self.placements, run_check=False)

    def coalesce(self) -> Any:
        """Not for others, who would take what is here for the whole."""
        raise _refusal("coalesce")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        if func is _aten.linalg_vector_norm.default:
            return func(args[0].dense_rows(), *args[1:], **(kwargs or {}))
        if func is _aten._values.default:  # GradScaler changes them in place
            return args[0]._rows(args[0]._local_tensor)
        if func not in _MADE | _CHANGED | _SHARED:
            raise _refusal(func)
        found = func(*map(_here, args), **{name: _here(value) for name, value in (kwargs or {}).items()})
        return args[0] if func in _CHANGED else cls.of(found, args[0]._spec)


def _refusal(found: Any) -> TypeError:
    return TypeError(
        "A sparse gradient of rows that are split over processes should go to wh.optim.RowAdam, RowAdagrad or "
        f"torch.optim.SGD. Found {found}: use one of them, or make the head with sparse=False."
    )


def _here(value: Any) -> Any:
    """Of a number in the place of a tensor, as clipping multiplies by, all of it."""
    if not isinstance(value, DTensor):
        return value
    return value._local_tensor if value.ndim else value.full_tensor()
