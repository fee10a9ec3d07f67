"""The full softmax: every class at every step. The honest baseline of all estimators.

Letters: m examples, D classes, d width, nnz targets in all; H (m, d) hidden, O = HWᵀ outputs, Z = Σ_j exp(o_j).
"""

from typing import Any

import torch
from torch import Tensor

from widehead.blocks import at_once
from widehead.heads.base import LinearHead
from widehead.heads.graph import differentiable_once
from widehead.losses import mean_over_targets
from widehead.precision import in_full_precision
from widehead.targets import SparseTargets


class FullSoftmaxHead(LinearHead):
    """Softmax cross-entropy over all classes, ℓ = log Z − Σ_k share_k o_k, with exact dense gradients; O(mDd) a step.

    The same loss as ``cross_entropy(linear(hidden, W), targets)``, worked out a block of classes at a time. The
    exponentials (m, D) are kept for the backward pass if m ≤ d, so that they take no more memory than W's gradient;
    larger batches keep log Z alone and compute their outputs a second time: four products with W instead of three.
    Gradients are right for any weighting of the examples' losses. They cannot be differentiated again.

    torch.nn.functional.linear_cross_entropy, chunked, does the same by blocks of examples, and reads all of W for each
    block. Losses of single examples, which weights need, made it slower on CPU than torch without blocks; the sum of
    losses alone, for which it works out gradients in the forward pass, is about as fast as this (measured at m = d: no
    faster; at m = 4d: a sixth faster).

    Args:
        in_features: d. num_classes: D. bias: an additional output weight for a hidden unit that is always 1.
        device, dtype: as in torch.

    Raises:
        ValueError: a size that is not a whole number of at least 1.

    >>> _ = torch.manual_seed(0)
    >>> FullSoftmaxHead(8, 1000)(torch.ones(2, 8), [[3], [14, 15]]).shape
    torch.Size([])
    """

    #: outputs that are worked on at a time on a CPU: 16 MiB in float32
    outputs_at_once = 1 << 22

    def _losses(self, hidden: Tensor, targets: SparseTargets) -> Tensor:
        log_z, outputs = self._outputs(hidden, targets)
        return mean_over_targets(log_z[targets.example_ids] - outputs, targets)

    def _log_normalizer(self, hidden: Tensor) -> Tensor:
        offsets = torch.zeros(hidden.shape[0] + 1, dtype=torch.int64, device=hidden.device)
        return self._outputs(hidden, SparseTargets._trusted(offsets[:0], offsets, None))[0]

    def _outputs(self, hidden: Tensor, targets: SparseTargets) -> tuple[Tensor, Tensor]:
        return full_outputs(self._widened(hidden), self.table, targets, self.outputs_at_once)


def full_outputs(hidden: Tensor, table: Tensor, targets: SparseTargets, on_cpu: int = 1 << 22) -> tuple[Tensor, Tensor]:
    """log Z (m,) and the targets' outputs (nnz,) of ``hidden`` (m, d) and ``table`` (D, d), by blocks of classes.

    A block has 256 classes, or more with ``on_cpu`` outputs, 16 MiB in float32; on a GPU more (`blocks.at_once`).
    """
    keeps = torch.is_grad_enabled() and hidden.shape[0] <= hidden.shape[1]
    rows = max(at_once(hidden.device, on_cpu) // max(hidden.shape[0], 1), 256)
    log_z, outputs = _Outputs.apply(hidden, table, targets, keeps, rows)
    return log_z, outputs


class _Outputs(torch.autograd.Function):
    """(hidden, W, targets, whether to keep O, classes of a block) → log Z (m,) and the targets' outputs (nnz,).

    One function for both, because autograd would add up two gradients of the size of W.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, table: Tensor, targets: SparseTargets, keeps: bool, rows_at_once: int
    ) -> tuple[Tensor, Tensor]:
        log_z = hidden.new_full((hidden.shape[0],), -torch.inf)
        kept = []
        for rows in table.split(rows_at_once):
            outputs = hidden @ rows.T
            largest = outputs.amax(dim=1)
            exponentials = outputs.sub_(largest[:, None]).exp_()
            log_z = torch.logaddexp(log_z, largest + exponentials.sum(dim=1).log())
            if keeps:
                kept += [exponentials, largest]
        ctx.save_for_backward(hidden, table, log_z, *kept)
        ctx.targets, ctx.rows_at_once = targets, rows_at_once
        return log_z, torch.linalg.vecdot(hidden[targets.example_ids], table[targets.class_ids])

    @staticmethod
    @differentiable_once
    @in_full_precision
    def backward(ctx: Any, by_log_z: Tensor, by_outputs: Tensor) -> Any:
        hidden, table, log_z, *kept = ctx.saved_tensors
        examples, classes = ctx.targets.example_ids, ctx.targets.class_ids
        by_hidden = torch.zeros_like(hidden).index_add_(0, examples, by_outputs[:, None] * table[classes])
        by_table = torch.empty_like(table) if ctx.needs_input_grad[1] else None
        start = 0
        for i, rows in enumerate(table.split(ctx.rows_at_once)):
            # ∂/∂o_j = p_j ∂/∂log Z. What was kept stays as it is: a second backward pass may read it.
            if kept:
                by_block = kept[2 * i] * ((kept[2 * i + 1] - log_z).exp() * by_log_z)[:, None]
            else:
                by_block = (hidden @ rows.T).sub_(log_z[:, None]).exp_().mul_(by_log_z[:, None])
            by_hidden.addmm_(by_block, rows)
            if by_table is not None:
                torch.mm(by_block.T, hidden, out=by_table[start : start + rows.shape[0]])
            start += rows.shape[0]
        if by_table is not None:
            by_table.index_add_(0, classes, by_outputs[:, None] * hidden[examples])
        return by_hidden, by_table, None, None, None
