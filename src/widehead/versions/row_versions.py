"""Versions of rows: which transforms each row of V still has to go through (docs/mathematics.md).

A *boundary* is a moment at which all rows were multiplied by something without being rewritten. Each row of V has a
version, one byte, that says at which boundary it was last rewritten. There are two kinds of boundary:

* *Rank-one corrections*, I + x·bᵀ, are many and cheap (arithmetic/corrections.py). After some of them, or after some
  steps, an *interval* ends: the rows written between corrections, which are few and known by name, are brought to its
  end.
* Intervals, and segments that were closed, end at *slots*. ``transforms[slot]`` is the product of all that came between
  the slot's boundary and the open interval: one product brings a row there whatever its version. When a new slot
  opens, the others' transforms are advanced a few a step; one that is *behind* leads to the boundary before, from
  which rows go on.

Slots stand in tiers like the runs of a log-structured merge tree. When a tier is full, its slots are retired, except
the newest and those that very many rows stand at, which join the next tier. The transforms of the retired lead from
now on to that newest slot, their *successor*, and a sweep over the rows, a few a step, moves their rows there; then the
slots are free. A row that is never a target moves at most log(boundaries) times in a run. All is right at any moment,
whatever has been put off.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from widehead.arithmetic import Corrections, RowSums, RowTable, without_denormals
from widehead.arithmetic.interface import MOST_CORRECTIONS, SLOTS
from widehead.arithmetic.row_table import onwards
from widehead.versions.rows import Rows

_BIG = 0.125  # a slot that this part of all rows stands at is not emptied
_SAMPLE = 1 << 13  # rows looked at to estimate that
_BLOCK = 1 << 16  # versions looked at at a time
# What the upkeep of one step may cost, in flops; a step costs 14c² a touched row. Reading and writing a row costs as
# much time as some 100 flops an entry, a step's small operations as much as 200 more columns.
_ADVANCED = 7  # c² a touched row, for transforms
_SETTLED = 8  # c(c + 200) a touched row, for rows of an interval at its end
_MOVED = 6  # rows a touched row, for sweeps
_GATHER, _OVERHEAD = 100, 200
_SWEEP_EVERY = 8  # steps
_SWEPT_IN = 0.4  # part of the time until the lowest tier is full


@dataclass
class RowVersions:
    """Versions of rows and transforms of boundaries.

    Attributes:
        versions: (D,) uint8; below `SLOTS` a slot, `SLOTS` + j in the open interval, before correction number j ≥ 1.
        transforms: (slots, c, c), see above; the identity at ``base``.
        corrections: of the open interval.
        last: those of the interval before, k = 0 if it ended with a closed segment.
        base: slot of the newest boundary of slots.
        previous: the one before; slots ``behind`` lead there only.
        tiers: live slots, oldest first, tier by tier.
        successors: of the retired and swept slots, to which their transforms lead once they are not behind.
        retired: slots that wait for the next sweep; ``sweeping``: slots that the present sweep empties.
        cursor: first row that the present sweep has not seen.
        owed: rows that it should have seen by now.
        written: rows written since the first correction of the interval, which was ``written_steps`` steps ago.
        age: steps of the interval.
        steps_per_boundary: running average of its length.
        closes: segments closed and corrections.
        moved_rows: rows that sweeps moved.
        fanouts: bounds of the slots of a tier.
    """

    versions: Tensor
    transforms: Tensor
    corrections: Corrections
    last: Corrections
    base: int = 0
    previous: int = 0
    behind: list[int] = field(default_factory=list)
    tiers: list[list[int]] = field(default_factory=lambda: [[0]])
    successors: dict[int, int] = field(default_factory=dict)
    retired: list[int] = field(default_factory=list)
    sweeping: list[int] = field(default_factory=list)
    cursor: int = 0
    owed: float = 0.0
    written: list[Tensor] = field(default_factory=list)
    written_steps: int = 0
    age: int = 0
    steps_per_boundary: float = 32.0
    closes: int = 0
    moved_rows: int = 0
    fanouts: tuple[int, int] = (8, 24)

    @classmethod
    def fresh(cls, num_rows: int, width: int, like: Tensor) -> RowVersions:
        """Every row at one boundary, whose transform is the identity."""
        versions = torch.zeros(num_rows, dtype=torch.uint8, device=like.device)
        none = Corrections.none(width, like)
        return cls(versions, torch.eye(width, dtype=like.dtype, device=like.device).unsqueeze(0), none, none)

    def to(self, device: torch.device) -> RowVersions:
        """The same on another device."""
        return replace(
            self,
            versions=self.versions.to(device),
            transforms=self.transforms.to(device),
            corrections=Corrections(self.corrections.both.to(device)),
            last=Corrections(self.last.both.to(device)),
            written=[rows.to(device) for rows in self.written],
        )

    @property
    def live(self) -> list[int]:
        """Slots that some row may stand at."""
        return [slot for tier in self.tiers for slot in tier] + self.retired + self.sweeping

    @property
    def newest(self) -> int:
        """Version of rows that are written now."""
        return SLOTS + len(self.corrections) if len(self.corrections) else self.base

    @property
    def columns(self) -> int:
        """c."""
        return self.transforms.shape[1]

    @property
    def fanout(self) -> int:
        """Slots of a tier. A boundary costs 4c²k or 2c³ flops a live slot, a sweep 2c² a row."""
        balanced = int(0.4 * (self.versions.numel() / self.columns) ** 0.5)
        return min(max(balanced, self.fanouts[0]), self.fanouts[1])

    def table(self, values: Rows) -> RowTable:
        """``values`` with these versions, as operations on rows take them."""
        return RowTable(
            table=values.stored,
            gather=values.gather,
            versions=self.versions,
            transforms=self.transforms,
            behind=self.behind,
            successors=self.successors,
            last=self.last,
            corrections=self.corrections,
            base=self.base,
            previous=self.previous,
        )

    def rows_at_newest(self, values: Rows, ids: Tensor) -> Tensor:
        """(n, c) copy of ``values[ids]`` brought to the newest boundary. Changes nothing."""
        return values.arithmetic.bring_rows(self.table(values), ids)[0]

    def write(self, values: Rows, ids: Tensor, given: Tensor | RowSums) -> None:
        """``values[ids]`` ← ``given`` (n, c), which are at the newest boundary."""
        values.write(self.versions, ids, given, self.newest)
        if len(self.corrections):
            self.written.append(ids)

    def correct(self, x: Tensor, b: Tensor, values: Rows) -> None:
        """Multiply all rows by I + x·bᵀ, for x and b (c,)."""
        if len(self.corrections) == MOST_CORRECTIONS:
            self.end_interval(values)
        self.corrections = self.corrections.then(x, b)
        self.closes += 1

    def close(self, factor: Tensor, values: Rows) -> None:
        """Multiply all rows by ``factor`` (c, c), the product of a closed segment."""
        self._open_boundary(values, factor)
        self.closes += 1

    def end_interval(self, values: Rows) -> None:
        """Exchange the corrections for a slot."""
        if len(self.corrections):
            self._open_boundary(values, None)

    def _open_boundary(self, values: Rows, factor: Tensor | None) -> None:
        self.advance(len(self.behind))
        if len(self.live) >= SLOTS:  # sweeps fell behind: finish them now rather than fail
            self.finish(values)
        live = self.live
        slot = next(s for s in range(SLOTS) if s not in live)
        if slot >= self.transforms.shape[0]:
            self.transforms = torch.cat([self.transforms, torch.zeros_like(self.transforms[:1])])
        self._settle(values, factor, slot)
        product = self.corrections.applied(self.transforms[self.base])
        self.transforms[self.base] = without_denormals(product if factor is None else product @ factor)
        self.transforms[slot].zero_().fill_diagonal_(1.0)
        self.behind = [s for s in live if s != self.base and s not in self.successors]
        self.previous, self.base = self.base, slot
        none = Corrections.none(self.columns, self.transforms)
        self.last, self.corrections = (self.corrections if factor is None else none), none
        self.steps_per_boundary += 0.25 * (max(1, self.age) - self.steps_per_boundary)
        self.age = 0
        self._join(slot)

    def _settle(self, values: Rows, factor: Tensor | None, slot: int) -> None:
        """Bring the rows written since the interval's first correction to its end, which is to be at ``slot``.

        A block of them at a time, as there may be those of many steps.
        """
        for rows in torch.unique(torch.cat(self.written)).split(values.block_rows) if self.written else ():
            settled = self.rows_at_newest(values, rows)
            values.write(self.versions, rows, without_denormals(settled if factor is None else settled @ factor), slot)
        self.written, self.written_steps = [], 0

    def advance(self, count: int) -> None:
        """Bring the transforms of so many slots that are behind up to ``base``."""
        if count and self.behind:
            slots = torch.tensor(self.behind[:count], device=self.transforms.device)
            given = self.transforms.index_select(0, slots).flatten(0, 1)
            moved = without_denormals(onwards(given, self.last, self.transforms, self.previous)).view(
                -1, self.columns, self.columns
            )
            self.transforms.index_copy_(0, slots, moved)
            self.behind = self.behind[count:]

    def _join(self, slot: int) -> None:
        """Put the newest slot in the lowest tier and cascade full tiers."""
        carried, shares = [slot], None
        for tier in self.tiers:
            tier += carried
            if len(tier) < self.fanout:
                return
            shares = self._shares() if shares is None else shares
            carried = [s for s in tier if s == slot or shares[s] > _BIG]
            self._retire([s for s in tier if s not in carried])
            tier.clear()
        self.tiers.append(carried)

    def _retire(self, slots: list[int]) -> None:
        self.retired += slots
        self.successors |= dict.fromkeys(slots, self.base)

    def _shares(self) -> list[float]:
        """What part of all rows stands at each slot, about."""
        sample = self.versions[:: max(1, self.versions.numel() // _SAMPLE)]
        return (torch.bincount(sample, minlength=SLOTS) / max(1, sample.numel())).tolist()

    def upkeep(self, values: Rows, touched: int) -> None:
        """What is due after a step that wrote ``touched`` rows."""
        self.age += 1
        self.written_steps += len(self.corrections) > 0  # no matter whether one of them wrote a row, or one of ours
        if self._interval_is_long():
            self.end_interval(values)
        elif self.behind:
            self.advance(max(1, _ADVANCED * touched // (4 * len(self.last) or 2 * self.columns)))
        if self.sweeping or self.retired:
            pace = self.versions.numel() / (_SWEPT_IN * self.fanout * self.steps_per_boundary) + 1.0
            self.owed += pace
            if self.owed >= _SWEEP_EVERY * pace:
                self.owed -= self.sweep(values, int(self.owed), max(256, _MOVED * touched))

    def _interval_is_long(self) -> bool:
        """Whether it has as many corrections, or as many rows to settle, as one step should deal with."""
        k, c = len(self.corrections), self.columns
        most = min(MOST_CORRECTIONS, max(4, c // 4))
        return k >= most or (k > 0 and self.written_steps * (4 * k + _GATHER) >= _SETTLED * (c + _OVERHEAD))

    def sweep(self, values: Rows, rows: int, most: int) -> int:
        """Look at up to ``rows`` rows; move up to ``most`` from retired slots to successors; how many were seen."""
        seen = 0
        while rows > seen and most > 0 and (self.sweeping or self.retired):
            if not self.sweeping:
                self.sweeping, self.retired, self.cursor = self.retired, [], 0
            stop = min(self.cursor + min(rows - seen, _BLOCK), self.versions.numel())
            found, stop = values.arithmetic.find_rows(self.versions, self.cursor, stop, self.sweeping, most)
            self._move(values, found)
            seen, most = seen + stop - self.cursor, most - found.numel()
            self.moved_rows += found.numel()
            self.cursor = stop
            if stop == self.versions.numel():
                self._free()
        return seen

    def _move(self, values: Rows, ids: Tensor) -> None:
        for some in ids.split(values.block_rows):
            if values.is_narrow:  # what their rounding does to Q is known only at the newest boundary
                self.write(values, some, without_denormals(self.rows_at_newest(values, some)))
            else:
                moved = values.arithmetic.bring_rows(self.table(values), some, to_base=False)
                values.write(self.versions, some, *moved)

    def _free(self) -> None:
        """The present sweep has seen all rows: nothing stands at its slots any more."""
        self.behind = [slot for slot in self.behind if slot not in self.sweeping]
        self.successors = {slot: successor for slot, successor in self.successors.items() if slot not in self.sweeping}
        self.sweeping = []

    def finish(self, values: Rows) -> None:
        """Run the present sweep and the waiting one to their end."""
        rows = max(1, self.versions.numel())  # a process may have none, and slots are retired all the same
        while self.sweeping or self.retired:
            self.sweep(values, rows, rows)

    def gather_all(self, values: Rows) -> None:
        """Move every row to the newest boundary and forget all others."""
        self.end_interval(values)
        self._retire([slot for tier in self.tiers for slot in tier if slot != self.base])
        self.tiers = [[self.base]]
        self.finish(values)
