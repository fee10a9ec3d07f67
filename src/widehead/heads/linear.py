"""Heads with one row of weights a class, which is a parameter of torch's.

Letters: m examples, … their dimensions if they have several, D classes, d width, nnz targets in all; H (m, d) hidden,
O = HWᵀ outputs.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from widehead.heads.base import ParameterHead, first_rows
from widehead.heads.contract import check_shapes, checked_hidden, checked_weight, linear_of, opaque, told
from widehead.heads.full_outputs import full_outputs, scores_of_all
from widehead.heads.joint_rows import JointRows, joint_rows
from widehead.heads.scorer import Scorer
from widehead.precision import in_full_precision
from widehead.search.exhaustive import products, streaming_top_k
from widehead.split import (
    Form,
    RowSplit,
    as_split,
    best_of_all,
    draw_as_one,
    draw_table,
    first_table,
    local,
    no_targets,
    split_by,
)
from widehead.targets import SparseTargets

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class LinearHead(ParameterHead):
    """A head with one row of weights a class: o = HWᵀ + b, p = softmax(o) if it has probabilities.

    The parameter ``table`` (D, d), or (D, d + 1) with the bias as last column, holds W. Scores are the outputs.

    Args:
        in_features: d.
        num_classes: D.
        bias: an additional output weight for a hidden unit that is always 1.
        mesh: a DeviceMesh of one dimension, whose processes have ⌈D/P⌉ rows each, as in `ExactHead`: ``table`` is a
            DTensor then. The loss of a process is that of its own examples; what is trained is the mean over the
            processes.
        device, dtype: as in torch.
    """

    #: rows of W that are read at a time on the CPU
    rows_at_once = 1 << 14
    #: outputs that are worked on at a time on a CPU, of all classes: 16 MiB in float32
    outputs_at_once = 1 << 22

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        bias: bool = False,
        mesh: DeviceMesh | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, num_classes)
        self.has_bias = bias
        self.split: RowSplit | None = None
        if mesh is None:
            self.table = first_rows(num_classes, in_features, bias, device, dtype)
            return
        probe = torch.empty(0, device=device, dtype=dtype)
        self.split = split_by(mesh, num_classes, probe.device)
        self._check_alike(bias, str(probe.dtype))
        form = Form(in_features + bias, probe.dtype, probe.device)
        self.table = first_table(self.split, form, self._first_std, in_features)
        self.table.requires_grad_()

    @property
    def _first_std(self) -> float:
        return (3.0 * self.in_features) ** -0.5

    def _check_alike(self, *options: Any) -> None:
        """ProcessesError if processes make heads with other options than one another."""
        if self.split is not None:
            told = [_in_short(option) for option in options]
            self.split.check_same(", ".join([f"{type(self).__name__}({self.in_features}, {self.num_classes})", *told]))

    # -- rows ---------------------------------------------------------------------------------------------------

    def rows(self, class_ids: Tensor) -> Tensor:
        """(…, in_features) rows of W of ``class_ids`` (…), whose gradient is a part of the table's.

        An encoder that takes them as the embeddings of its inputs is tied to this head.
        """
        return self._rows(class_ids)[..., : self.in_features]

    def _rows(self, class_ids: Tensor) -> Tensor:
        """Rows of the table in the shape of ``class_ids`` + (width,); their gradient is sparse if ``sparse``."""
        if self.split is None:
            return nn.functional.embedding(class_ids, self.table, sparse=self.sparse and torch.is_grad_enabled())
        return self._joint_rows(class_ids.reshape(-1)).rows.view(*class_ids.shape, self.table.shape[1])

    def _joint_rows(self, own: Tensor, drawn: Tensor | None = None, *, of_all: bool = False) -> JointRows:
        """Rows of classes that this process asks for, or all processes, and of those that rank 0 ``drawn`` (n,)."""
        drawn = own[:0] if drawn is None else drawn
        if self.split is None:
            return JointRows(own, 0, drawn, self._rows(torch.cat([own, drawn])))
        return joint_rows(self.split, self.table, own, drawn, of_all=of_all, sparse=self.sparse)

    def _target_outputs(self, widened: Tensor, targets: SparseTargets) -> Tensor:
        """(nnz,) outputs of the targets."""
        return torch.linalg.vecdot(widened[targets.example_ids], self._rows(targets.class_ids))

    # -- outputs ------------------------------------------------------------------------------------------------

    def _output_blocks(self, hidden: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Outputs of all classes, a block of classes at a time."""
        return products(self._widened(hidden), self.table, self.rows_at_once)

    def _all_scores(self, hidden: Tensor) -> Tensor:
        if self.split is not None:
            return scores_of_all(self._widened(hidden), self.table, self.split)
        return self._widened(hidden) @ self.table.T

    def _scores_at(self, hidden: Tensor, targets: SparseTargets) -> Tensor:
        return self._target_outputs(self._widened(hidden), targets)

    @opaque
    @told
    @in_full_precision
    def log_normalizer(self, hidden: Tensor) -> Tensor:
        """(…) log Σ_j exp(o_j), over all classes, of ``hidden`` (…, d)."""
        rows, lead = checked_hidden(hidden, self.in_features, self.device)
        return self._log_normalizer(rows).view(lead)

    def _log_normalizer(self, hidden: Tensor) -> Tensor:
        """(m,), a block of classes at a time."""
        if self.split is not None:
            return self._full_outputs(hidden, no_targets(hidden))[0]
        total = torch.full((hidden.shape[0],), -torch.inf, dtype=self.dtype, device=hidden.device)
        for _, outputs in self._output_blocks(hidden):
            total = torch.logaddexp(total, torch.logsumexp(outputs, dim=1))
        return total

    def _full_outputs(self, hidden: Tensor, targets: SparseTargets) -> tuple[Tensor, Tensor]:
        """log Z (m,) over all classes, and the targets' outputs (nnz,)."""
        return full_outputs(self._widened(hidden), self.table, targets, self.outputs_at_once, self.split)

    def _log_probs(self, hidden: Tensor, targets: SparseTargets) -> Tensor:
        if not self.has_probabilities:
            raise TypeError(f"{type(self).__name__} defines no probabilities, so there is no log_prob.")
        if self.split is not None:
            log_z, outputs = self._full_outputs(hidden, targets)
            return outputs - log_z[targets.example_ids]
        return self._scores_at(hidden, targets) - self._log_normalizer(hidden)[targets.example_ids]

    def _best(self, hidden: Tensor, k: int, banned: SparseTargets | None) -> tuple[Tensor, Tensor]:
        if self.split is None:
            return streaming_top_k(self._output_blocks(hidden), k, banned)
        return best_of_all(self.split, Form.of(self.table), self._widened(hidden), k, banned, self._best_here)

    def _best_here(self, widened: Tensor, k: int, banned: SparseTargets) -> tuple[Tensor, Tensor]:
        first = 0 if self.split is None else self.split.first
        blocks = products(widened, local(self.table), self.rows_at_once)
        return streaming_top_k(((first + start, outputs) for start, outputs in blocks), k, banned)

    # -- the weights --------------------------------------------------------------------------------------------

    def weight(self) -> Tensor:
        """A dense copy of W, (num_classes, in_features)."""
        return self._whole(slice(self.in_features))

    def bias(self) -> Tensor | None:
        """A copy of the bias, (num_classes,), or None."""
        return self._whole(self.in_features) if self.has_bias else None

    def _whole(self, columns: Any) -> Tensor:
        here = local(self.table)[:, columns]
        if self.split is None:
            return here.clone()
        self.split.meet("weight", rows=Form.of(self.table))
        return self.split.all_rows(here, self.split.counts, "rows")

    def to_linear(self) -> nn.Linear:
        """An ordinary nn.Linear with the same weights."""
        return linear_of(self.weight(), self.bias())

    def to_scorer(self) -> Scorer:
        return Scorer(self.to_linear())

    @told
    @torch.no_grad()
    def load_weight(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """Set W to ``weight`` (num_classes, in_features), copied, and the bias to ``bias`` (zeros if None)."""
        here = local(self.table)
        if self.split is not None:
            check_shapes(weight, bias, (self.num_classes, self.in_features), self.has_bias)
            own = slice(self.split.first, self.split.end)
            weight, bias = weight[own], None if bias is None else bias[own]
        checked = checked_weight(weight, bias, here, self.has_bias)
        if self.split is not None:
            self.split.meet("what it was given", rows=Form.of(self.table))  # no process refuses its part
        here.copy_(checked)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw W anew, as for a new head."""
        here = local(self.table).zero_()
        if self.split is None:
            here[:, : self.in_features].normal_(std=self._first_std)
        else:
            self.split.meet("drawing", rows=Form.of(self.table))
            draw_table(self.split, here, self._first_std, self.in_features)

    @torch.no_grad()
    def draw_as_one(self, state: Tensor) -> None:
        """Draw W anew as one process with all rows does, from a state of torch's generator, which then goes on."""
        here = local(self.table)
        assert self.split is not None

        def put(start: int, rows: Tensor) -> None:
            here[start : start + len(rows)] = rows

        torch.set_rng_state(draw_as_one(self.split, Form.of(here), self._first_std, state, put))
        here[:, self.in_features :] = 0.0

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Of a state whose rows were split over other processes, or not at all, the rows here."""
        given, error_msgs = state_dict.get(prefix + "table"), rest[-1]
        if given is not None:
            state_dict = {**state_dict, prefix + "table": self._as_kept(given)}
        super()._load_from_state_dict(state_dict, prefix, *rest)
        if self.split is not None and error_msgs:
            self.refused(ValueError(error_msgs[-1]))

    def _as_kept(self, given: Tensor) -> Any:
        if self.split is None:
            return given.full_tensor() if hasattr(given, "full_tensor") else given
        return as_split(self.split, self.table, given)

    # -- processes ----------------------------------------------------------------------------------------------

    def refused(self, error: Exception) -> None:
        if self.split is not None:
            self.split.tell(error, Form.of(self.table))

    def extra_repr(self) -> str:
        split = "" if self.split is None else f", processes={self.split.size}"
        return f"{super().extra_repr()}, bias={self.has_bias}{split}"


def _in_short(option: Any) -> str:
    """Different for different tensors and lists, in a few letters."""
    if option is None or isinstance(option, int | float | str | nn.Module):
        return str(option)
    return f"{zlib.crc32(torch.as_tensor(option).detach().double().cpu().numpy().tobytes()):08x}"
