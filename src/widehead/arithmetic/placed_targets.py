"""The sparse part S of the output gradient if its class rows stand in a cache: nothing is sorted, no size is asked for.

Letters: m examples, nnz targets in all, n rows of the cache. S is m × n, stored by target.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from widehead.arithmetic.target_plan import bag_sum
from widehead.targets import SparseTargets

_MOST_BATCHED = (1 << 16) - 1  # what CUDA's grids have in their second dimension


@dataclass(frozen=True)
class PlacedTargets:
    """What `TargetPlan` is, with rows that nobody put in order: sums over classes are scattered, not segmented.

    All shapes follow from what the host knows, so that a GPU never has to be waited for. On a GPU the order in which
    scattered terms are added varies, and with it the last bits of sums.

    Attributes:
        examples: (nnz,) example of each target.
        positions: (nnz,) the row of each target's class.
        offsets: (m + 1,) the place at which each example's targets begin.
        num_rows: n.
    """

    examples: Tensor
    positions: Tensor
    offsets: Tensor
    num_rows: int

    @classmethod
    def of(cls, targets: SparseTargets, positions: Tensor, num_rows: int) -> PlacedTargets:
        """Of targets whose classes stand at ``positions`` (nnz,)."""
        return cls(targets.example_ids, positions, targets.offsets, num_rows)

    def times(self, values: Tensor, right: Tensor) -> Tensor:
        """S·X: (nnz,) values, (n, c) → (m, c)."""
        return bag_sum(self.positions, right, self.offsets, values)

    def transposed_times(self, values: Tensor, right: Tensor) -> Tensor:
        """Sᵀ·Y: (nnz,) values, (m, c) → (n, c)."""
        terms = values[:, None] * right.index_select(0, self.examples)
        return right.new_zeros(self.num_rows, right.shape[1]).index_add_(0, self.positions, terms)

    def gram_times(self, values: Tensor, right: Tensor) -> Tensor:
        """SSᵀ·Y: (nnz,) values, (m, c) → (m, c)."""
        return self.times(values, self.transposed_times(values, right))

    def dots(self, left: Tensor, right: Tensor) -> Tensor:
        """Inner product of each target's example row and class row: (m, d), (n, d) → (nnz,)."""
        return row_dots(left.index_select(0, self.examples), right.index_select(0, self.positions))

    def class_sums(self, values: Tensor) -> Tensor:
        """Sᵀ·1: (nnz,) → (n,)."""
        return values.new_zeros(self.num_rows).index_add_(0, self.positions, values)

    def row_sums(self, values: Tensor) -> Tensor:
        """S·1: (nnz,) → (m,)."""
        return values.new_zeros(self.offsets.shape[0] - 1).index_add_(0, self.examples, values)


def row_dots(left: Tensor, right: Tensor) -> Tensor:
    """(k,) inner products of the rows of two (k, d): by one kernel, if they are not too many for a batched product."""
    if left.shape[0] > _MOST_BATCHED:
        return torch.linalg.vecdot(left, right)
    return torch.bmm(left[:, None], right[:, :, None]).view(-1)
