"""The sparse part S of the output gradient: which classes a batch names, and products with S and Sᵀ.

Letters: m examples, d width, nnz targets in all, n distinct target classes. S is m × n, stored by target; a class
that one example names twice has two entries, which add up in every product.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

from widehead.targets import SparseTargets

__all__ = ["TargetPlan"]

# Dot products of targets gather this many numbers at a time: memory does not grow with the number of targets, and
# small buffers are used again while large ones are mapped anew, page by page, each time.
_DOT_BLOCK = 1 << 18


@dataclass(frozen=True)
class TargetPlan:
    """Where the targets of a batch lie; made from ids alone, without looking at any weight.

    Attributes:
        class_ids: (n,) the distinct target classes, rising.
        examples: (nnz,) example of each target, in the order given by the user.
        positions: (nnz,) place of each target's class in ``class_ids``.
        offsets: (m + 1,) where each example's targets begin.
        by_class: (nnz,) the targets sorted by class; ``class_offsets`` (n + 1,) says where each class begins there.
        examples_by_class: (nnz,) ``examples[by_class]``.
    """

    class_ids: Tensor
    examples: Tensor
    positions: Tensor
    offsets: Tensor
    by_class: Tensor
    class_offsets: Tensor
    examples_by_class: Tensor

    @classmethod
    def of(cls, targets: SparseTargets) -> TargetPlan:
        """Sort the targets by class once; everything else follows from that order."""
        ids, by_class = torch.sort(targets.class_ids, stable=True)
        begins = torch.ones_like(ids, dtype=torch.bool)
        begins[1:] = ids[1:] != ids[:-1]
        starts = begins.nonzero().squeeze(1)
        positions = torch.empty_like(ids)
        positions[by_class] = begins.cumsum(0) - 1
        class_offsets = pad(starts, (0, 1), value=ids.numel())
        examples = targets.example_ids
        return cls(ids[starts], examples, positions, targets.offsets, by_class, class_offsets, examples[by_class])

    def times(self, values: Tensor, right: Tensor) -> Tensor:
        """S·X: (nnz,) values, (n, c) → (m, c)."""
        return _bag_sum(self.positions, right, self.offsets, values)

    def transposed_times(self, values: Tensor, right: Tensor) -> Tensor:
        """Sᵀ·Y: (nnz,) values, (m, c) → (n, c)."""
        return _bag_sum(self.examples_by_class, right, self.class_offsets, values[self.by_class])

    def dots(self, left: Tensor, right: Tensor) -> Tensor:
        """Inner product of each target's example row and class row: (m, d), (n, d) → (nnz,)."""
        out = left.new_empty(self.positions.numel())
        step = max(1, _DOT_BLOCK // left.shape[1])
        for a in range(0, out.numel(), step):
            b = a + step
            at_example = left.index_select(0, self.examples[a:b])
            torch.linalg.vecdot(at_example, right.index_select(0, self.positions[a:b]), out=out[a:b])
        return out

    def class_sums(self, values: Tensor) -> Tensor:
        """Sᵀ·1: (nnz,) → (n,)."""
        lengths = self.class_offsets.diff()
        return torch.segment_reduce(values[self.by_class], "sum", lengths=lengths, initial=0.0, unsafe=True)

    def row_sums(self, values: Tensor) -> Tensor:
        """S·1: (nnz,) → (m,)."""
        return torch.segment_reduce(values, "sum", lengths=self.offsets.diff(), initial=0.0, unsafe=True)


def _bag_sum(rows: Tensor, matrix: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """Row b of the result is Σ weights[t] · matrix[rows[t]] over t in [offsets[b], offsets[b + 1])."""
    if rows.numel() == 0:
        return matrix.new_zeros(offsets.numel() - 1, matrix.shape[1])
    return embedding_bag(rows, matrix, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True)
