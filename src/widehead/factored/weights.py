"""The record of a factored weight matrix W = V·U + 1ωᵀ with its Gram matrix, and how it is read.

Letters (docs/notation.md): D classes, d width, V (D, d) values, U (d, d) factor of the open segment,
ω (d,) shift, Q = WᵀW (d, d), w̄ = Wᵀ1 (d,). Row i of V stands for V_i · transforms[version_i] · U + ω.

If momentum M (D, d) is kept, all this holds for the rows x = (w, m) of X = [W, M]: V is D × 2d, U and Q are
2d × 2d, ω and w̄ have 2d entries, and W is the first half of X. ``order`` is the number of halves, 1 or 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from widehead.arithmetic import Forward, OutputGradient, SmallState, StepRule
from widehead.factored.reading import forward
from widehead.factored.record import WeightRecord
from widehead.factored.step import Change, apply_step, plan_step
from widehead.targets import SparseTargets
from widehead.versions import Rows, RowVersions


@dataclass(kw_only=True)
class FactoredWeights(WeightRecord):
    """All that stands for W. Changed only by ``apply_step`` in step.py and by the methods here.

    Attributes:
        versions: of V's rows, and their transforms.
    """

    versions: RowVersions

    @classmethod
    def from_dense(cls, weight: Tensor, order: int = 1) -> FactoredWeights:
        """Take over ``weight`` (D, d), float32 or float64, as V (not copied); with ``order`` 2, X (D, 2d)."""
        return cls.from_rows(Rows(weight), order)

    @classmethod
    def from_rows(cls, rows: Rows, order: int = 1, **more: Any) -> Self:
        """Take over rows that are W, or X (D, 2d) with ``order`` 2: U = I, ω = 0; Q and w̄ in O(Dd²)."""
        size = rows.width
        zero = torch.zeros(size, dtype=torch.float64, device=rows.device)
        eye = torch.eye(size, dtype=torch.float64, device=rows.device)
        made = cls(
            rows=rows,
            versions=RowVersions.fresh(rows.num_rows, size, rows.zeros(0)),
            small=SmallState.joined(eye, zero, zero, torch.zeros_like(eye), eye, rows.dtype),
            order=order,
            **more,
        )
        made.recount()
        return made

    def fresh(self, rows: Rows, order: int = 1) -> FactoredWeights:
        return FactoredWeights.from_rows(rows, order)

    def recount(self) -> None:
        self.small = self.small.with_sums(*self.recomputed())

    def with_order(self, order: int, basis: float = 0.0) -> FactoredWeights:
        """See `WeightRecord.with_order`. Rows (w, 0) are (w + basis·m, m) too.

        Rows in bfloat16 are rounded anew: W is another by that, and what was computed of the old one is stale.
        """
        if order == self.order:
            return self
        rows = self.rows.empty_like(width=order * self.width)
        for start, block in self.blocks():
            rows.put(start - self.first, pad(block, (0, (order - 1) * self.width)))
        fresh = self.fresh(rows, order)
        fresh._begin_segment(*fresh.opening(basis))
        revision = self.revision + self.rows.is_narrow
        return replace(fresh, revision=revision, layout=self.layout + 1, steps=self.steps)

    def forward(self, hidden: Tensor, targets: SparseTargets, *, learns: bool = True) -> Forward:
        return forward(self, hidden, targets)

    def plan(
        self,
        gradient: OutputGradient,
        rule: StepRule,
        hr: Tensor | None = None,
        gram_hr: Tensor | None = None,
        skip: Tensor | None = None,
    ) -> Change:
        assert skip is None, "who has a step skipped on the CPU knows that before it is planned"
        return plan_step(self, gradient, rule, hr, gram_hr)

    def apply(self, change: Change, others: tuple[Tensor, ...] = ()) -> None:
        apply_step(self, change)

    @property
    def closes(self) -> int:
        return self.versions.closes

    @property
    def moved_rows(self) -> int:
        return self.versions.moved_rows

    @property
    def live_boundaries(self) -> int:
        return len(self.versions.live)

    def factored(self) -> FactoredWeights:
        return self

    @property
    def _settled(self) -> bool:
        """Whether all rows are up to date but for the shift."""
        return self.versions.live == [self.versions.newest] and self.segment_steps == 0 and self.order == 1

    def outputs(self, hidden: Tensor) -> Iterator[tuple[int, Tensor]]:
        """If rows are up to date in the CPU's memory, blocks are large and nothing is copied."""
        values = self.values
        if not self._settled or self.rows.is_narrow or self.rows.path is not None or values.device.type != "cpu":
            return super().outputs(hidden)
        constant = (hidden @ self.small.shift[: self.width])[:, None]
        step = min(1 << 16, max(1 << 11, (1 << 22) // max(1, len(hidden))))
        starts = range(0, len(values), step)
        return ((self.first + start, (hidden @ values[start : start + step].T).add_(constant)) for start in starts)

    def blocks(self, columns: slice | None = None) -> Iterator[tuple[int, Tensor]]:
        columns = slice(self.width) if columns is None else columns
        factor, shift = self.small.factor[:, columns], self.small.shift[columns]
        settled = self._settled
        for start, stop in self.rows.spans():
            if settled:
                yield self.first + start, self.values[start:stop] + shift
            else:
                rows = torch.arange(start, stop, device=self.values.device)
                yield self.first + start, self.versions.rows_at_newest(self.rows, rows).matmul(factor).add_(shift)

    def to(self, device: torch.device, dtype: torch.dtype) -> FactoredWeights:
        """The same W on another device or in another type; itself if nothing changes.

        A change of type starts from the dense W, as Q and the limits on conditioning differ between types.
        """
        if self.dtype != dtype:
            rows = self.rows.empty_like(device=device, dtype=dtype)
            for start, block in self.blocks(slice(None)):
                rows.put(start - self.first, block)
            fresh = self.fresh(rows, self.order)
            return replace(fresh, revision=self.revision + 1, layout=self.layout + 1)
        if self.values.device == device:
            return self
        return replace(
            self,
            rows=self.rows.to(device),
            versions=self.versions.to(device),
            small=self.small.to(device),
            revision=self.revision + 1,
            layout=self.layout + 1,
        )

    def close_segment(self, basis: float = 0.0) -> None:
        """Append the open factor to the transforms of versions and begin a new segment. X stays as it is.

        Args:
            basis: r of `StepRule.basis`: rows of the new segment are kept as (w + r·m, m), so U begins at the matrix
                that leads from there to (w, m) rather than at I.
        """
        self.absorb_rounding()
        gens, size = self.versions, self.order * self.width
        factor, inverse = self.opening(basis)
        master = self.small.flushed().master
        ended = master[:size] if self.order == 1 else master[:size] @ inverse
        gens.close(ended.to(self.dtype), self.rows)
        self._begin_segment(factor, inverse)
        self.segment_steps = 0
        self.layout += 1

    def _begin_segment(self, factor: Tensor, inverse: Tensor) -> None:
        known = self.small.flushed().master[self.small.columns : 2 * self.small.columns + 2]
        self.small = SmallState.of(torch.cat([factor, known, inverse.T]), self.dtype)

    def correct_segment(self, x: Tensor, b: Tensor) -> None:
        """V ← V(I + x·bᵀ) for all rows, x and b (c,); the caller has changed U so that X stays as it is."""
        self.versions.correct(x, b, self.rows)
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
        self.versions.gather_all(self.rows)
        self.absorb_rounding()
        self.layout += 1

    def absorb_rounding(self) -> None:
        """If rows were rounded as they were written, let Q and w̄ be those of the rounded rows, O(d³).

        With rows v of V, ṽ after rounding, e = ṽ − v and x = vU + ω (U of the open segment, at whose beginning written
        rows stand): Σ(x̃ᵀx̃ − xᵀx) = Uᵀ Σ(ṽᵀṽ − vᵀv) U + ωᵀ(Σe U) + (Σe U)ᵀω.
        """
        found = self.take_rounding()
        if found is not None:
            gram, column_sum = found
            master, size = self.small.flushed().master, self.small.columns
            self.small = self.small.with_sums(master[size + 2 : 2 * size + 2] + gram, master[size + 1] + column_sum)
            self.revision += 1  # W changed, if only by this

    def take_rounding(self) -> tuple[Tensor, Tensor] | None:
        """What rounding since the last call added to Q and to x̄, in float64; None without any."""
        found = self.rows.take_rounding()
        if found is None:
            return None
        gram, total = (part.to(self.dtype) for part in found)
        factor, size = self.small.factor, self.small.columns
        master = self.small.flushed().master
        change = (total @ factor).double()
        shifted = torch.outer(master[size], change)
        return (factor.T @ (gram @ factor)).double() + shifted + shifted.T, change
