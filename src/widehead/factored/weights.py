"""The record of a factored weight matrix W = V·U + 1ωᵀ with its Gram matrix, and how it is read.

Letters (docs/method.md): D classes, d width, V (D, d) values, U (d, d) factor of the open segment,
ω (d,) shift, Q = WᵀW (d, d), w̄ = Wᵀ1 (d,). Row i of V stands for V_i · transforms[stamp_i] · U + ω.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from widehead.factored.generations import Generations

__all__ = ["FactoredWeights", "Squares", "gram_and_sum"]

_BLOCK = 1 << 14


@dataclass
class Squares:
    """A d × d matrix (or d vector) that many small updates are added to.

    ``master`` is float64: an update below the rounding of a float32 entry would be lost every time, and U, U⁻¹ and Q
    would part ways (the loss of 10^5 such updates is a systematic drift, not noise). ``value`` is the copy in the
    working type that products use. Where the working type is float64 both are one tensor.
    """

    master: Tensor
    value: Tensor

    @classmethod
    def of(cls, master: Tensor, dtype: torch.dtype) -> Squares:
        """From a float64 tensor."""
        master = master.to(torch.float64)
        return cls(master, master.to(dtype))

    def to(self, device: torch.device) -> Squares:
        """The same on another device."""
        return Squares.of(self.master.to(device), self.value.dtype)


@dataclass
class FactoredWeights:
    """All that stands for W. Changed only by ``apply_step`` in update.py and by the methods here.

    Attributes:
        values: (D, d) V.
        generations: stamps and transforms of V's rows.
        factor, inverse: U and U⁻¹ of the open segment.
        gram: Q. shift: ω. column_sum: w̄.
        version: rises whenever W changes. layout: rises whenever V's rows change their meaning while W does not.
        segment_steps: steps since the open segment began. steps: since the beginning.
    """

    values: Tensor
    generations: Generations
    factor: Squares
    inverse: Squares
    gram: Squares
    shift: Squares
    column_sum: Squares
    version: int = 0
    layout: int = 0
    segment_steps: int = 0
    steps: int = 0

    @classmethod
    def from_dense(cls, weight: Tensor) -> FactoredWeights:
        """Take over ``weight`` (D, d), float32 or float64, as V (not copied)."""
        dtype, (num_classes, width) = weight.dtype, weight.shape
        zero = torch.zeros(width, dtype=torch.float64, device=weight.device)
        eye = torch.eye(width, dtype=torch.float64, device=weight.device)
        gram, column_sum = gram_and_sum(weight.split(_BLOCK), zero)
        return cls(
            values=weight,
            generations=Generations.fresh(num_classes, width, weight),
            factor=Squares.of(eye, dtype),
            inverse=Squares.of(eye.clone(), dtype),
            gram=Squares.of(gram, dtype),
            shift=Squares.of(zero, dtype),
            column_sum=Squares.of(column_sum, dtype),
        )

    @property
    def num_classes(self) -> int:
        return self.values.shape[0]

    @property
    def width(self) -> int:
        return self.values.shape[1]

    def dense_rows(self, rows: Tensor) -> Tensor:
        """(n, d) present rows of W."""
        at_newest = self.generations.rows_at_newest(self.values, rows)
        return (at_newest @ self.factor.value).add_(self.shift.value)

    def blocks(self) -> Iterator[tuple[int, Tensor]]:
        """Present W in blocks: pairs (first row, (n, d) rows). Never more than one block in memory."""
        settled = self.generations.live == [self.generations.newest] and self.segment_steps == 0
        for start in range(0, self.num_classes, _BLOCK):
            stop = min(start + _BLOCK, self.num_classes)
            if settled:
                yield start, self.values[start:stop] + self.shift.value
            else:
                yield start, self.dense_rows(torch.arange(start, stop, device=self.values.device))

    def dense(self) -> Tensor:
        """(D, d) present W."""
        out = torch.empty_like(self.values)
        for start, rows in self.blocks():
            out[start : start + rows.shape[0]] = rows
        return out

    def to(self, device: torch.device, dtype: torch.dtype) -> FactoredWeights:
        """The same W on another device or in another type; itself where nothing changes.

        A change of type starts from the dense W, as Q and the limits on conditioning differ between types.
        """
        if self.values.dtype != dtype:
            fresh = FactoredWeights.from_dense(self.dense().to(device=device, dtype=dtype))
            return replace(fresh, version=self.version + 1, layout=self.layout + 1)
        if self.values.device == device:
            return self
        gens = self.generations
        return replace(
            self,
            values=self.values.to(device),
            generations=replace(gens, stamps=gens.stamps.to(device), transforms=gens.transforms.to(device)),
            factor=self.factor.to(device),
            inverse=self.inverse.to(device),
            gram=self.gram.to(device),
            shift=self.shift.to(device),
            column_sum=self.column_sum.to(device),
            version=self.version + 1,
            layout=self.layout + 1,
        )

    def close_segment(self) -> None:
        """Append the open factor to the generations and begin a new segment at U = I. W stays as it is."""
        if self.segment_steps == 0:
            return
        gens = self.generations
        gens.steps_per_close += 0.1 * (self.segment_steps - gens.steps_per_close)
        gens.close(self.factor.value, self.values)
        eye = torch.eye(self.width, dtype=torch.float64, device=self.values.device)
        self.factor = Squares.of(eye, self.values.dtype)
        self.inverse = Squares.of(eye.clone(), self.values.dtype)
        self.segment_steps = 0
        self.layout += 1

    def consolidate(self) -> None:
        """Bring every row forward, O(D d²): afterwards W = V + 1ωᵀ, and reading W costs nothing extra."""
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
