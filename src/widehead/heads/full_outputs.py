"""log Z over all classes and the outputs of targets, by blocks of classes; rows may be split over processes.

Letters: m examples, M those of all processes, D classes, d width, nnz targets in all; H (m, d) hidden, O = HWᵀ outputs,
Z = Σ_j exp(o_j), p = exp(o)/Z.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from widehead.blocks import at_once
from widehead.heads.graph import differentiable_once
from widehead.precision import in_full_precision
from widehead.split import Form, RowSplit, gather_batch, like, local, outputs_of_all, own_targets
from widehead.targets import SparseTargets


def full_outputs(
    hidden: Tensor, table: Tensor, targets: SparseTargets, on_cpu: int = 1 << 22, split: RowSplit | None = None
) -> tuple[Tensor, Tensor]:
    """log Z (m,) and the targets' outputs (nnz,) of ``hidden`` (m, d) and ``table`` (D, d), by blocks of classes.

    A block has 256 classes, or more with ``on_cpu`` outputs, 16 MiB in float32; on a GPU more (`blocks.at_once`). The
    exponentials are kept for the backward pass if there are at most d examples.
    """
    if split is None:
        log_z, outputs = _Outputs.apply(hidden, table, targets, torch.is_grad_enabled(), on_cpu)
    else:
        learns = torch.is_grad_enabled() and (hidden.requires_grad or table.requires_grad)
        log_z, outputs = _SplitOutputs.apply(hidden, table, targets, learns, on_cpu, split)
    return log_z, outputs


class _Outputs(torch.autograd.Function):
    """(hidden, W, targets, whether a backward pass may follow, outputs of a block) → log Z (m,) and outputs (nnz,).

    One function for both, because autograd would add up two gradients of the size of W.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, table: Tensor, targets: SparseTargets, learns: bool, on_cpu: int
    ) -> tuple[Tensor, Tensor]:
        ctx.rows_at_once = _rows_at_once(hidden, on_cpu)
        log_z, kept = _log_sums(hidden, table, ctx.rows_at_once, keeps=learns and hidden.shape[0] <= hidden.shape[1])
        ctx.save_for_backward(hidden, table, log_z, *kept)
        ctx.targets = targets
        return log_z, torch.linalg.vecdot(hidden[targets.example_ids], table[targets.class_ids])

    @staticmethod
    @differentiable_once
    @in_full_precision
    def backward(ctx: Any, by_log_z: Tensor, by_outputs: Tensor) -> Any:
        hidden, table, log_z, *kept = ctx.saved_tensors
        examples, classes = ctx.targets.example_ids, ctx.targets.class_ids
        by_hidden = torch.zeros_like(hidden).index_add_(0, examples, by_outputs[:, None] * table[classes])
        by_table = torch.empty_like(table) if ctx.needs_input_grad[1] else None
        _add_blocks(hidden, table, log_z, kept, by_log_z, ctx.rows_at_once, by_hidden, by_table)
        if by_table is not None:
            by_table.index_add_(0, classes, by_outputs[:, None] * hidden[examples])
        return by_hidden, by_table, None, None, None


class _SplitOutputs(torch.autograd.Function):
    """The same, and who has which rows; each process has (m, d) hidden layers and targets of its own.

    Megatron's vocabulary-parallel loss for processes with unlike examples: the largest outputs and the sums of
    exponentials are of all processes. The gradient of W is that of the mean of their losses.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, table: Tensor, targets: SparseTargets, learns: bool, on_cpu: int, split: RowSplit
    ) -> tuple[Tensor, Tensor]:
        batch = gather_batch(split, Form.of(table), hidden, targets, learns=learns)
        joint, rows = batch.hidden, local(table)
        ctx.rows_at_once = _rows_at_once(joint, on_cpu)
        here, kept = _log_sums(joint, rows, ctx.rows_at_once, keeps=learns and joint.shape[0] <= joint.shape[1])
        largest = split.largest_(here.clone())
        own, chosen = own_targets(split, batch.targets)
        examples, classes = own.example_ids, own.class_ids
        outputs = joint.new_zeros(sum(batch.counts)).index_copy_(
            0, chosen, torch.linalg.vecdot(joint[examples], rows[classes])
        )
        told = split.sum_(torch.cat([(here - largest).exp(), outputs]), "sums and outputs")
        log_z, outputs = largest + told[: len(joint)].log(), told[len(joint) :]
        ctx.save_for_backward(joint, log_z, *kept)
        ctx.table, ctx.split, ctx.batch, ctx.places = table.detach(), split, batch, (chosen, examples, classes)
        return log_z[batch.own(split.rank)], outputs[batch.own_targets(split.rank)]

    @staticmethod
    @differentiable_once
    @in_full_precision
    def backward(ctx: Any, by_log_z: Tensor, by_outputs: Tensor) -> Any:
        joint, log_z, *kept = ctx.saved_tensors
        split, batch, rows, (chosen, examples, classes) = ctx.split, ctx.batch, local(ctx.table), ctx.places
        split.meet("backward", rows=Form.of(ctx.table))
        by_log_z, by_outputs = split.all_of([by_log_z, by_outputs], [batch.examples, batch.counts], "derivatives")
        by_outputs = by_outputs[chosen, None]
        by_hidden = torch.zeros_like(joint).index_add_(0, examples, by_outputs * rows[classes])
        by_table = torch.empty_like(rows) if ctx.needs_input_grad[1] else None
        _add_blocks(joint, rows, log_z, kept, by_log_z, ctx.rows_at_once, by_hidden, by_table)
        if by_table is not None:
            by_table = like(ctx.table, by_table.index_add_(0, classes, by_outputs * joint[examples]).div_(split.size))
        return split.sum_(by_hidden, "by hidden")[batch.own(split.rank)], by_table, None, None, None, None


def _rows_at_once(hidden: Tensor, on_cpu: int) -> int:
    return max(at_once(hidden.device, on_cpu) // max(hidden.shape[0], 1), 256)


def _log_sums(hidden: Tensor, table: Tensor, rows_at_once: int, *, keeps: bool) -> tuple[Tensor, list[Tensor]]:
    """log Σ exp(o) (m,) over rows of the table, −inf without rows, and the exponentials of each block if one keeps."""
    log_z = hidden.new_full((hidden.shape[0],), -torch.inf)
    kept: list[Tensor] = []
    for rows in table.split(rows_at_once) if len(table) else ():
        outputs = hidden @ rows.T
        largest = outputs.amax(dim=1)
        exponentials = outputs.sub_(largest[:, None]).exp_()
        log_z = torch.logaddexp(log_z, largest + exponentials.sum(dim=1).log())
        if keeps:
            kept += [exponentials, largest]
    return log_z, kept


def _add_blocks(
    hidden: Tensor,
    table: Tensor,
    log_z: Tensor,
    kept: list[Tensor],
    by_log_z: Tensor,
    rows_at_once: int,
    by_hidden: Tensor,
    by_table: Tensor | None,
) -> None:
    """Add what derivatives by log Z say to ``by_hidden``, and write it into ``by_table``: ∂/∂o_j = p_j ∂/∂log Z."""
    start = 0
    for i, rows in enumerate(table.split(rows_at_once) if len(table) else ()):
        # What was kept stays as it is: a second backward pass may read it.
        if kept:
            by_block = kept[2 * i] * ((kept[2 * i + 1] - log_z).exp() * by_log_z)[:, None]
        else:
            by_block = (hidden @ rows.T).sub_(log_z[:, None]).exp_().mul_(by_log_z[:, None])
        by_hidden.addmm_(by_block, rows)
        if by_table is not None:
            torch.mm(by_block.T, hidden, out=by_table[start : start + rows.shape[0]])
        start += rows.shape[0]


def scores_of_all(hidden: Tensor, table: Tensor, split: RowSplit) -> Tensor:
    """(m, D) HWᵀ of rows that are split over processes."""
    scores: Tensor = _Scores.apply(hidden, table, split)
    return scores


class _Scores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, table: Tensor, split: RowSplit) -> Tensor:
        rows = local(table)
        return outputs_of_all(split, Form.of(table), hidden, lambda joint: joint @ rows.T)

    @staticmethod
    def backward(ctx: Any, *by_scores: Tensor) -> Any:
        raise RuntimeError(
            "A head whose rows are split over processes should be given targets, or the classes whose scores are "
            "wanted: head.scores(hidden, class_ids). Found a backward pass from scores of all classes, which have no "
            "gradient there."
        )
