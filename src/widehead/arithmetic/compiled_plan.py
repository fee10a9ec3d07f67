"""The sparse part of the output gradient with its products in C, for float32 in the CPU's memory."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from widehead.arithmetic import buffers
from widehead.arithmetic.library import library
from widehead.arithmetic.target_plan import BUFFER, TargetPlan
from widehead.targets import SparseTargets


@dataclass(frozen=True)
class CompiledPlan(TargetPlan):
    """See `TargetPlan`, whose own products serve other types than float32."""

    @classmethod
    def of(cls, targets: SparseTargets) -> CompiledPlan:
        """From targets on the CPU."""
        ids, by_class = targets.sorted_by_class()
        nnz, examples = ids.numel(), targets.example_ids.contiguous()
        made = ids.new_empty(4 * nnz + 1)
        positions, by_examples, class_ids, starts = (
            made[:nnz],
            made[nnz : 2 * nnz],
            made[2 * nnz : 3 * nnz],
            made[3 * nnz :],
        )
        given, out = (ids, by_class, examples), (class_ids, starts, positions, by_examples)
        n = _library().widehead_plan(nnz, *(part.data_ptr() for part in (*given, *out)))
        offsets = targets.offsets.contiguous()
        return cls(class_ids[:n], examples, positions, offsets, targets.counts, by_class, starts[: n + 1], by_examples)

    def times(self, values: Tensor, right: Tensor) -> Tensor:
        if not _applies(values, right):
            return super().times(values, right)
        return _sums(self.offsets, self.positions, None, values, right)

    def transposed_times(self, values: Tensor, right: Tensor, onto: Tensor | None = None) -> Tensor:
        if not _applies(values, right):
            return super().transposed_times(values, right, onto)
        return _sums(self.class_offsets, self.examples_by_class, self.by_class, values, right, onto)

    def gram_times(self, values: Tensor, right: Tensor, buffer: int = BUFFER) -> Tensor:
        if not _applies(values, right):
            return super().gram_times(values, right, buffer)
        values, right = values.contiguous(), right.contiguous()
        (m, d), n, out = right.shape, self.class_ids.numel(), torch.empty_like(right)
        order = (self.class_offsets, self.examples_by_class, self.by_class)
        pointers = (part.data_ptr() for part in (*order, values, right, out))
        _library().widehead_gram(torch.get_num_threads(), m, n, d, *pointers)
        return out


def _sums(
    offsets: Tensor, which: Tensor, order: Tensor | None, weights: Tensor, rows: Tensor, onto: Tensor | None = None
) -> Tensor:
    """(n, d) sums number i of weights[order[k]] · rows[which[k]] over k in [offsets[i], offsets[i + 1]), + ``onto``."""
    weights, rows, onto = weights.contiguous(), rows.contiguous(), None if onto is None else onto.contiguous()
    n, d = offsets.numel() - 1, rows.shape[1]
    out = buffers.empty(n, d)
    given = (None if part is None else part.data_ptr() for part in (offsets, which, order, weights, rows, onto, out))
    _library().widehead_sums(torch.get_num_threads(), n, d, *given)
    return out


def _applies(values: Tensor, right: Tensor) -> bool:
    return all(part.dtype == torch.float32 and part.device.type == "cpu" for part in (values, right))


def _library() -> ctypes.CDLL:
    found = library()
    assert found is not None, "who made the plan had a library"
    return found
