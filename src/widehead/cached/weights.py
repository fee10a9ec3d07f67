"""The record of a weight matrix whose recent target rows stand in a cache: exact steps without an inverse.

Letters (docs/notation.md): D classes, d width, c = order·d columns, X = W or [W, M] (D, c), U (c, c) factor of the
open segment, ω (c,) shift, Q = XᵀX, x̄ = Xᵀ1, nnz targets of a batch, S boundaries.

A row of X is x = y + ω, and y is kept in one of two ways (`CachedRows`). If its class was a target since the open
segment began, y itself stands in the cache, and every step updates it as a dense layer's row is updated. Otherwise
y = v·T_s·U, with v its stored row and T_s what leads from boundary s, at which v was written, to the beginning of the
open segment. At the end of a segment the rows of the cache are written home, all T take U along in one product, and U
is I again. Every so many segments all rows are brought to the newest boundary in one pass over V.

U and T are only ever multiplied. So there is no solve, no judgement of conditioning and no decision that depends on
the data, and the host never waits for the device: sizes follow from what it knows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from widehead.arithmetic import Forward, OutputGradient, PlacedTargets, SmallState, StepRule, row_dots
from widehead.cached import step as stepping
from widehead.cached.arithmetic import CACHED, SHIFTED
from widehead.cached.late import LateReport
from widehead.cached.rows import NUMBERS, CachedRows
from widehead.factored import FactoredWeights, WeightRecord
from widehead.targets import SparseTargets
from widehead.versions import Rows, RowVersions, rounded_by_name

_MOST_STEPS = 32  # in a segment; 1 to 50 are equally exact
_MOST_PLACES = 1 << 13  # of a cache, unless one batch has more targets: every step updates all of them
_FEWEST_BOUNDARIES, _MOST_BOUNDARIES = 4, 64


@dataclass(kw_only=True)
class CachedWeights(WeightRecord):
    """All that stands for W. ``small`` has no U⁻¹, and is changed in place: its ``master`` and its ``value``.

    Attributes:
        kept: the rows.
        report: of steps that were left out.
        entered: places of the cache in use after the last step.
        shifted: whether ω may be other than 0, as after a step of a loss that knows Σo.
        sound: () whether the last step of a graph was finite.
        closes: segments closed since the beginning. moved_rows: rows rewritten by passes over V.
    """

    kept: CachedRows
    report: LateReport
    entered: int = 0
    shifted: bool = False
    sound: Tensor = field(default_factory=lambda: torch.ones((), dtype=torch.bool))
    closes: int = 0
    moved_rows: int = 0

    forward_writes = True

    def __post_init__(self) -> None:
        self.sound = self.sound.to(self.rows.device)

    @classmethod
    def from_factored(cls, weights: FactoredWeights) -> CachedWeights:
        """The same W, by the same stored rows, which are taken over; O(Dc²)."""
        weights.consolidate()
        c, rows = weights.small.columns, weights.rows
        master = weights.small.flushed().master[: 2 * c + 2].clone()
        master[:c] = torch.eye(c, dtype=torch.float64, device=rows.device)
        value = master.to(rows.dtype, copy=True)
        return cls(
            rows=rows,
            small=SmallState(master, value, value, value),
            kept=CachedRows(rows, _FEWEST_BOUNDARIES),
            report=LateReport(weights.steps),
            order=weights.order,
            revision=weights.revision,
            layout=weights.layout + 1,
            steps=weights.steps,
            shifted=bool(master[c].any()),
        )

    @property
    def columns(self) -> int:
        """c."""
        return self.rows.width

    # -- a step -------------------------------------------------------------------------------------------------

    def forward(self, hidden: Tensor, targets: SparseTargets, *, learns: bool = True) -> Forward:
        d, c, ids = self.width, self.columns, targets.class_ids
        if learns:
            self._make_room(ids.shape[0])
            positions = self.kept.enter(ids, self.small.factor)
            values = self.kept.cache
        else:
            positions = torch.arange(ids.shape[0], device=ids.device)
            values = self.kept.read(ids, self.small.factor)
        plan = PlacedTargets.of(targets, positions, values.shape[0])
        products = hidden @ self.small.value[:, :d].T
        # Q ⪰ 0, so q ≥ 0; rounding may say otherwise.
        squared_norm = row_dots(products[:, c + 2 : c + 2 + d], hidden).clamp_min_(0.0)
        outputs = plan.dots(hidden, values[:, :d])
        if self.shifted:
            outputs += products[:, c].index_select(0, plan.examples)
        of_weights = (self.num_classes, self.revision, self.layout)
        return Forward(
            SHIFTED if self.shifted else CACHED,
            hidden,
            products,
            targets,
            plan,
            values,
            squared_norm,
            outputs,
            *of_weights,
        )

    def plan(
        self,
        gradient: OutputGradient,
        rule: StepRule,
        hr: Tensor | None = None,
        gram_hr: Tensor | None = None,
        skip: Tensor | None = None,
    ) -> stepping.CachedChange:
        if not self.kept.is_captured:
            self.report.check()
        return stepping.plan_step(self, gradient, rule, hr, gram_hr, skip)

    def apply(self, change: stepping.CachedChange, others: tuple[Tensor, ...] = ()) -> Tensor:
        written, sound = stepping.apply_step(self, change, others)
        self.shifted |= change.shifts
        if self.kept.is_captured:
            self.sound.copy_(sound)
        else:
            self._count_step(sound)
        return written

    def _count_step(self, sound: Tensor) -> None:
        """What the host does with a step that was made, () whether it was finite."""
        self.report.note(sound)
        self.segment_steps += 1
        self.steps += 1
        self.revision += 1
        more, self.entered = self.kept.used - self.entered, self.kept.used
        if self.segment_steps >= _MOST_STEPS or self.kept.used + more > self.kept.places:
            self.close_segment()

    # -- captured steps (widehead.cuda) -------------------------------------------------------------------------

    @contextmanager
    def captured(self) -> Iterator[None]:
        """What runs inside is captured for a graph, and not made: the host counts nothing of it."""
        used, self.kept.is_captured = self.kept.used, True
        try:
            yield
        finally:
            self.kept.used, self.kept.is_captured = used, False

    def reserve(self, targets: int) -> None:
        """Make sure, before a replay, that there are places for so many targets; raise what `LateReport` has."""
        self.report.check()
        if self.kept.used + targets > self.kept.places:
            self.close_segment()
        if targets > self.kept.places:
            self.allocate(targets)

    def replayed(self, targets: int) -> None:
        """A captured step with so many targets was made once more."""
        self.kept.used += targets
        self._count_step(self.sound)

    def tensors(self) -> list[Tensor]:
        """Those that a graph knows."""
        kept, small = self.kept, self.small
        rows = [self.values, kept.stamps, kept.transforms, kept.cache, kept.names, kept.next]
        return [*rows, small.master, small.value, self.sound]

    # -- places -------------------------------------------------------------------------------------------------

    def _make_room(self, targets: int) -> None:
        """Places for so many targets. Steps end segments, so that what is pending stays valid: here the cache grows,
        unless somebody runs forward passes and never makes a step.
        """
        used, places = self.kept.used, self.kept.places
        if used + targets <= places:
            return
        if places == 0:
            self.allocate(targets)
        elif used > max(4 * _MOST_PLACES, 8 * targets) and not self.rows.is_narrow:  # that would round rows
            self.close_segment()
        else:
            self.kept.grow(max(2 * places, used + targets))
            self.layout += 1

    def allocate(self, targets: int) -> None:
        """A cache for segments of steps with so many ``targets`` each, and as many boundaries as pay.

        A step brings nnz rows forward from all S boundaries, 2·nnz·S·c² flops, and a pass over V comes every S·steps
        steps, 2Dc²/(S·steps): together least at S = √(D / (nnz·steps)).
        """
        if not self._is_settled:
            self.consolidate()
        steps = max(1, min(_MOST_STEPS, _MOST_PLACES // targets))
        most = min(_MOST_BOUNDARIES, NUMBERS // self.columns**2)
        best = math.isqrt(self.num_classes // (targets * steps))
        self.kept.allocate(max(_FEWEST_BOUNDARIES, min(best, most)), targets * steps)
        self.layout += 1

    # -- segments -----------------------------------------------------------------------------------------------

    def close_segment(self) -> None:
        """Write the rows of the cache home and begin a new segment. X stays as it is, but for rounding of rows."""
        c = self.columns
        self.kept.close(self.small.factor, self._stored)
        self.small.master[:c].copy_(torch.eye(c, dtype=torch.float64, device=self.rows.device))
        self.small.value.copy_(self.small.master)
        self.segment_steps, self.entered = 0, 0
        self.closes += 1
        self.layout += 1
        if self.kept.boundary == self.kept.boundaries - 1:
            self._sweep()

    def _sweep(self) -> None:
        self.kept.sweep(self._rounded)
        self.moved_rows += self.num_classes
        if self.rows.is_narrow:
            self.recount()
            self.revision += 1

    def _stored(self, rows: Tensor, names: Tensor, first: Tensor) -> Tensor:
        """Rows of the cache as they will be stored. Q and x̄ take note of what rounding does to them, while U is I."""
        if not self.rows.is_narrow:
            return rows
        rounded, master, c = self._rounded(rows, names), self.small.master, self.columns
        error = (rounded.to(rows.dtype) - rows) * first
        half = torch.add(rows, error, alpha=0.5).T @ error
        total = error.sum(0, dtype=torch.float64)
        across = torch.outer(master[c], total)
        master[c + 2 :] += (half + half.T) + across + across.T
        master[c + 1] += total
        self.revision += 1
        return rounded

    def _rounded(self, rows: Tensor, names: Tensor) -> Tensor:
        """Rows (k, c) of the classes ``names`` as they are stored, alike if a class comes twice."""
        if not self.rows.is_narrow:
            return rows
        return rounded_by_name(rows, names, self.kept.salt).to(self.values.dtype)

    # -- W ------------------------------------------------------------------------------------------------------

    def blocks(self, columns: slice | None = None) -> Iterator[tuple[int, Tensor]]:
        columns = slice(self.width) if columns is None else columns
        factor, shift = self.small.factor, self.small.shift
        for start, stop in self.rows.spans():
            if self._is_settled:
                yield start, self.values[start:stop, columns].to(self.dtype) + shift[columns]
            else:
                ids = torch.arange(start, stop, device=self.rows.device)
                yield start, self.kept.read(ids, factor)[:, columns] + shift[columns]

    def outputs(self, hidden: Tensor) -> Iterator[tuple[int, Tensor]]:
        return self.kept.outputs(hidden, self.small.factor, self.small.shift)

    @property
    def _is_settled(self) -> bool:
        """Whether X = V + 1ωᵀ."""
        return self.kept.boundary == 0 and self.kept.used == 0 and self.segment_steps == 0

    def consolidate(self) -> None:
        self.report.check(wait=True)
        if self.segment_steps or self.kept.used:
            self.close_segment()
        if self.kept.boundary:
            self._sweep()
        self.layout += 1

    def recount(self) -> None:
        gram, column_sum = self.recomputed()
        self.small.master[self.columns + 1].copy_(column_sum)
        self.small.master[self.columns + 2 :].copy_(gram)
        self.small.value.copy_(self.small.master)

    @property
    def live_boundaries(self) -> int:
        return self.kept.boundary + 1

    # -- other records ------------------------------------------------------------------------------------------

    def factored(self) -> FactoredWeights:
        self.consolidate()
        c, master = self.columns, self.small.master
        eye = torch.eye(c, dtype=torch.float64, device=self.rows.device)
        return FactoredWeights(
            rows=self.rows,
            versions=RowVersions.fresh(self.num_classes, c, self.rows.zeros(0)),
            small=SmallState.joined(eye, master[c], master[c + 1], master[c + 2 :], eye, self.dtype),
            order=self.order,
            revision=self.revision,
            layout=self.layout,
            steps=self.steps,
        )

    def fresh(self, rows: Rows, order: int = 1) -> CachedWeights:
        return CachedWeights.from_factored(FactoredWeights.from_rows(rows, order))

    def with_order(self, order: int, basis: float = 0.0) -> CachedWeights:
        return self if order == self.order else CachedWeights.from_factored(self.factored().with_order(order))

    def to(self, device: torch.device, dtype: torch.dtype) -> WeightRecord:
        return self if (device, dtype) == (self.rows.device, self.dtype) else self.factored().to(device, dtype)
