"""The sparse part S of the output gradient: which classes a batch names, and products with S and Sᵀ.

Letters: m examples, d width, nnz targets in all, n distinct target classes. S is m × n, stored by target; a class
that one example names twice has two entries, which add up in every product.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache, cached_property

import torch
from torch import Tensor
from torch.nn.functional import pad

from widehead.targets import SparseTargets

# Up to so many numbers, inner products are taken of copies of the rows; above, without copies, which would be mapped
# into memory anew, page by page, each time.
_SMALL = 1 << 16
BUFFER = 1 << 20  # numbers that stand between two sparse products
# Terms of a class that are added one by one: n equal ones are off by up to n/2 rounding errors, which U magnifies.
_PIECE = 64


@dataclass(frozen=True)
class TargetPlan:
    """Where the targets of a batch lie; made from ids alone, without looking at any weight.

    Attributes:
        class_ids: (n,) the distinct target classes, rising.
        examples: (nnz,) example of each target, in the order given by the user.
        positions: (nnz,) place of each target's class in ``class_ids``.
        offsets: (m + 1,) the place at which each example's targets begin.
        counts: (m,) how many it has.
        by_class: (nnz,) the targets sorted by class; ``class_offsets`` (n + 1,) says at which place each class begins.
        examples_by_class: (nnz,) ``examples[by_class]``.
    """

    class_ids: Tensor
    examples: Tensor
    positions: Tensor
    offsets: Tensor
    counts: Tensor
    by_class: Tensor
    class_offsets: Tensor
    examples_by_class: Tensor

    @classmethod
    def of(cls, targets: SparseTargets) -> TargetPlan:
        """Sort the targets by class once; everything else follows from that order."""
        ids, by_class = targets.sorted_by_class()
        examples = targets.example_ids
        class_ids, sorted_positions, counts = torch.unique_consecutive(ids, return_inverse=True, return_counts=True)
        positions = torch.empty_like(ids).scatter_(0, by_class, sorted_positions)
        class_offsets = pad(counts.cumsum(0), (1, 0))
        parts = (targets.offsets.contiguous(), targets.counts, by_class, class_offsets, examples[by_class])
        return cls(class_ids, examples, positions, *parts)

    def times(self, values: Tensor, right: Tensor) -> Tensor:
        """S·X: (nnz,) values, (n, c) → (m, c)."""
        return bag_sum(self.positions, right, self.offsets, values)

    def transposed_times(self, values: Tensor, right: Tensor, onto: Tensor | None = None) -> Tensor:
        """Sᵀ·Y: (nnz,) values, (m, c) → (n, c); + ``onto`` (n, c).

        The sum stands first: a thousand small terms, each added to a large row, would be rounded a thousand times.
        """
        places, offsets, owners = self._pieces
        sums = bag_sum(self.examples[places], right, offsets, values[places])
        n = self.class_ids.numel()
        out = sums[:n].index_add_(0, owners, sums[n:]) if owners.numel() else sums
        return out if onto is None else out.add_(onto)

    @cached_property
    def _pieces(self) -> tuple[Tensor, Tensor, Tensor]:
        """(nnz,) targets by pieces, which piece begins at which, and (p,) the classes of all but their first pieces.

        The first pieces of all classes stand first, so that what the others come to is added to few rows.
        """
        nnz, none = self.by_class.numel(), self.by_class[:0]
        if nnz <= _PIECE or int((counts := self.class_offsets.diff()).max()) <= _PIECE:
            return self.by_class, self.class_offsets, none
        begins = self.class_offsets[:-1]
        more = (counts - 1).div(_PIECE, rounding_mode="floor")
        owners = torch.repeat_interleave(more)
        numbers = torch.arange(len(owners), device=more.device) - (more.cumsum(0) - more)[owners] + 1
        starts = torch.cat([begins, begins[owners] + _PIECE * numbers])
        lengths = torch.cat([counts.clamp_max(_PIECE), (counts[owners] - _PIECE * numbers).clamp_max(_PIECE)])
        offsets = pad(lengths.cumsum(0), (1, 0))
        places = torch.repeat_interleave(starts - offsets[:-1], lengths, output_size=nnz)
        return self.by_class[places + torch.arange(nnz, device=places.device)], offsets, owners

    def gram_times(self, values: Tensor, right: Tensor, buffer: int = BUFFER) -> Tensor:
        """SSᵀ·Y: (nnz,) values, (m, c) → (m, c); `times` after `transposed_times`, some columns at a time.

        What stands between the two, (n, c) with more rows than any other matrix, then stays in the cache.
        """
        columns = max(32, buffer // max(1, self.class_ids.numel()))
        if columns >= right.shape[1]:
            return self.times(values, self.transposed_times(values, right))
        out = torch.empty_like(right)
        for source, target in zip(right.split(columns, dim=1), out.split(columns, dim=1), strict=True):
            target.copy_(self.times(values, self.transposed_times(values, source.contiguous())))
        return out

    def dots(self, left: Tensor, right: Tensor, small: int = _SMALL) -> Tensor:
        """Inner product of each target's example row and class row: (m, d), (n, d) → (nnz,)."""
        if self.positions.numel() * left.shape[1] <= small:
            return _gathered_dots(left, self.examples, right, self.positions)
        if self.positions.numel() >= left.shape[0] * right.shape[0]:  # pairs are named more than once: see to each once
            return (left @ right.T)[self.examples, self.positions]
        # By class: each class row, of which there may be more than a cache holds, is read once.
        pattern = _pattern(self.class_offsets, self.examples_by_class, (right.shape[0], left.shape[0]), left)
        found = torch.sparse.sampled_addmm(pattern, right, left.T, beta=0.0).values()
        return torch.empty_like(found).scatter_(0, self.by_class, found)

    def class_sums(self, values: Tensor) -> Tensor:
        """Sᵀ·1: (nnz,) → (n,)."""
        lengths = self.class_offsets.diff()
        return torch.segment_reduce(values[self.by_class], "sum", lengths=lengths, initial=0.0, unsafe=True)

    def row_sums(self, values: Tensor) -> Tensor:
        """S·1: (nnz,) → (m,)."""
        return torch.segment_reduce(values, "sum", lengths=self.counts, initial=0.0, unsafe=True)


def _gathered_dots(left: Tensor, left_rows: Tensor, right: Tensor, right_rows: Tensor) -> Tensor:
    """(k,) inner products of left[left_rows[t]] and right[right_rows[t]]: the obvious way, by copies of all rows."""
    return torch.linalg.vecdot(left.index_select(0, left_rows), right.index_select(0, right_rows))


def _pattern(offsets: Tensor, columns: Tensor, shape: tuple[int, int], like: Tensor) -> Tensor:
    """A sparse matrix of zeros in the type of ``like``. Nothing checks it, as a column may come twice in a row."""
    _hear_of_beta()
    values = like.new_zeros(columns.numel())
    return torch.sparse_csr_tensor(offsets, columns, values, shape, check_invariants=False)


@cache
def _hear_of_beta() -> None:
    """torch warns once in a process that this layout is in beta, which is no user's concern."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor([0], [], torch.empty(0), (0, 0), check_invariants=False)


def bag_sum(rows: Tensor, matrix: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """Row b of the result is Σ weights[t] · matrix[rows[t]] over t in [offsets[b], offsets[b + 1])."""
    if rows.numel() == 0:
        return matrix.new_zeros(offsets.numel() - 1, matrix.shape[1])
    # What torch.nn.functional.embedding_bag(mode="sum") comes to after checks that take as long as the work.
    return torch.embedding_bag(matrix, rows, offsets, False, 0, False, weights, True)[0]
