"""The record of a factored weight matrix W = V·U + 1ωᵀ with its Gram matrix, and how it is read.

Letters (docs/method.md): D classes, d width, V (D, d) values, U (d, d) factor of the open segment,
ω (d,) shift, Q = WᵀW (d, d), w̄ = Wᵀ1 (d,). Row i of V stands for V_i · transforms[stamp_i] · U + ω.

Where momentum M (D, d) is kept, all this holds for the rows x = (w, m) of X = [W, M]: V is D × 2d, U and Q are
2d × 2d, ω and w̄ have 2d entries, and W is the first half of X. ``order`` is the number of halves, 1 or 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from widehead.factored.generations import Generations
from widehead.factored.squares import Squares

__all__ = ["FactoredWeights", "gram_and_sum"]

_BLOCK = 1 << 14


@dataclass
class FactoredWeights:
    """All that stands for W. Changed only by ``apply_step`` in update.py and by the methods here.

    Attributes:
        values: (D, order·d) V.
        generations: stamps and transforms of V's rows.
        squares: U and U⁻¹ of the open segment, ω, Q = XᵀX and x̄ = Xᵀ1.
        order: 1, or 2 where momentum is kept.
        version: rises whenever W changes. layout: rises whenever V's rows change their meaning while W does not.
        segment_steps: steps since the open segment began. steps: since the beginning.
    """

    values: Tensor
    generations: Generations
    squares: Squares
    order: int = 1
    version: int = 0
    layout: int = 0
    segment_steps: int = 0
    steps: int = 0

    @classmethod
    def from_dense(cls, weight: Tensor, order: int = 1) -> FactoredWeights:
        """Take over ``weight`` (D, d), float32 or float64, as V (not copied); with ``order`` 2, X (D, 2d)."""
        dtype, (num_classes, size) = weight.dtype, weight.shape
        zero = torch.zeros(size, dtype=torch.float64, device=weight.device)
        eye = torch.eye(size, dtype=torch.float64, device=weight.device)
        gram, column_sum = gram_and_sum(weight.split(_BLOCK), zero)
        return cls(
            values=weight,
            generations=Generations.fresh(num_classes, size, weight),
            squares=Squares.joined(eye, zero, column_sum, gram, eye, dtype),
            order=order,
        )

    def with_order(self, order: int) -> FactoredWeights:
        """The same W with a momentum of zeros (2) or without one (1), O(Dd²); itself where nothing changes."""
        if order == self.order:
            return self
        rows = torch.zeros(self.num_classes, order * self.width, dtype=self.values.dtype, device=self.values.device)
        for start, block in self.blocks():
            rows[start : start + block.shape[0], : self.width] = block
        fresh = FactoredWeights.from_dense(rows, order)
        return replace(fresh, version=self.version, layout=self.layout + 1, steps=self.steps)

    @property
    def num_classes(self) -> int:
        return self.values.shape[0]

    @property
    def width(self) -> int:
        """d."""
        return self.values.shape[1] // self.order

    def blocks(self, columns: slice | None = None) -> Iterator[tuple[int, Tensor]]:
        """Present W in blocks: pairs (first row, (n, d) rows). Never more than one block in memory.

        ``columns`` reads other columns of X than those of W.
        """
        columns = slice(self.width) if columns is None else columns
        factor, shift = self.squares.factor[:, columns], self.squares.shift[columns]
        settled = self.generations.live == [self.generations.newest] and self.segment_steps == 0 and self.order == 1
        for start in range(0, self.num_classes, _BLOCK):
            stop = min(start + _BLOCK, self.num_classes)
            if settled:
                yield start, self.values[start:stop] + shift
            else:
                rows = torch.arange(start, stop, device=self.values.device)
                yield start, self.generations.rows_at_newest(self.values, rows).matmul(factor).add_(shift)

    def dense(self, columns: slice | None = None) -> Tensor:
        """(D, d) present W, or other ``columns`` of X."""
        columns = slice(self.width) if columns is None else columns
        out = self.values.new_empty(self.num_classes, len(range(*columns.indices(self.order * self.width))))
        for start, rows in self.blocks(columns):
            out[start : start + rows.shape[0]] = rows
        return out

    def momentum(self) -> Tensor:
        """(D, d) present M, where momentum is kept."""
        return self.dense(slice(self.width, None))

    def to(self, device: torch.device, dtype: torch.dtype) -> FactoredWeights:
        """The same W on another device or in another type; itself where nothing changes.

        A change of type starts from the dense W, as Q and the limits on conditioning differ between types.
        """
        if self.values.dtype != dtype:
            fresh = FactoredWeights.from_dense(self.dense(slice(None)).to(device=device, dtype=dtype), self.order)
            return replace(fresh, version=self.version + 1, layout=self.layout + 1)
        if self.values.device == device:
            return self
        return replace(
            self,
            values=self.values.to(device),
            generations=self.generations.to(device),
            squares=self.squares.to(device),
            version=self.version + 1,
            layout=self.layout + 1,
        )

    def close_segment(self, basis: float = 0.0) -> None:
        """Append the open factor to the generations and begin a new segment. X stays as it is.

        Args:
            basis: r of `StepRule.basis`: rows of the new segment are kept as (w + r·m, m), so U begins at the matrix
                that leads from there to (w, m) rather than at I.
        """
        gens, size, dtype = self.generations, self.order * self.width, self.values.dtype
        factor, inverse = self.opening(basis)
        master = self.squares.fold().master
        gens.close((master[:size] @ inverse).to(dtype), self.values)
        self.squares = Squares.of(torch.cat([factor, master[size : 2 * size + 2], inverse.T]), dtype)
        self.segment_steps = 0
        self.layout += 1

    def bend_segment(self, x: Tensor, b: Tensor) -> None:
        """V ← V(I + x·bᵀ) for all rows, x and b (c,); the caller has changed U so that X stays as it is."""
        self.generations.bend(x, b, self.values)
        self.layout += 1

    def opening(self, basis: float) -> tuple[Tensor, Tensor]:
        """U and U⁻¹, float64, at the beginning of a segment whose rows are kept as (w + basis·m, m)."""
        d = self.width
        factor = torch.eye(self.order * d, dtype=torch.float64, device=self.values.device)
        inverse = factor.clone()
        if self.order == 2:
            factor[d:, :d].fill_diagonal_(-basis)
            inverse[d:, :d].fill_diagonal_(basis)
        return factor, inverse

    def consolidate(self) -> None:
        """Bring every row forward, O(D d²): afterwards X = V + 1ωᵀ, and reading W costs nothing extra."""
        if self.segment_steps > 0 or self.order == 2:  # with momentum a segment may begin at another matrix than I
            self.close_segment()
        self.generations.gather_all(self.values)
        self.layout += 1


def gram_and_sum(blocks: Iterable[Tensor], zero: Tensor) -> tuple[Tensor, Tensor]:
    """WᵀW (d, d) and Wᵀ1 (d,) in float64, from W in blocks of rows; ``zero`` is a float64 zero vector (d,)."""
    gram, total = torch.outer(zero, zero), zero.clone()
    for rows in blocks:
        block = rows.to(torch.float64)
        gram.addmm_(block.T, block)
        total += block.sum(0)
    return gram, total
