"""Rows in generations: which transforms each row of V still has to go through (docs/mathematics.md).

A *boundary* is a moment at which all rows were multiplied by something without being rewritten. Row i of V carries a
stamp, one byte, that says at which boundary it was last rewritten. There are two kinds:

* *Bends*, I + x·bᵀ, are many and cheap (bends.py). After some of them, or after some steps, an *epoch* ends: the rows
  written between bends, which are few and known by name, are brought to its end.
* Epochs, and segments that were closed, end at *slots*. ``transforms[slot]`` is the product of all that came between
  the slot's boundary and the open epoch: one product brings a row there whatever its age. When a new slot opens, the
  others' transforms are multiplied a few a step; a *pending* one leads to the boundary before, from where rows go on.

Slots stand in tiers like the runs of a log-structured merge tree. When a tier is full, its slots are retired, except
the newest and those that very many rows stand at, which join the next tier. The transforms of the retired lead from
now on to that newest slot, their *heir*, and a sweep over the rows, a few a step, moves their rows there; then the
slots are free. A row that is never a target moves at most log(boundaries) times in a run. All is right at any moment,
whatever has been put off.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from widehead import kernels
from widehead.factored.bends import Bends, without_denormals
from widehead.factored.rows import Rows

__all__ = ["Generations"]

SLOTS = kernels.SLOTS  # 192: a stamp below is a slot; SLOTS + j is: in the open epoch, before bend number j, j ≥ 1
_MOST_BENDS = 48
_FANOUTS = (8, 24)  # bounds of the slots of a tier
_BIG = 0.125  # a slot that this part of all rows stands at is not emptied
_SAMPLE = 1 << 13  # rows looked at to estimate that
_BLOCK = 1 << 16  # stamps looked at at a time
_GATHERED = 1 << 11  # rows read at a time: large copies would be mapped into memory anew, page by page
# What the upkeep of one step may cost, in flops; a step costs 14c² a touched row. Reading and writing a row costs as
# much time as some 100 flops an entry, a step's small operations as much as 200 more columns.
_FOLDED = 7  # c² a touched row, for transforms
_SETTLED = 8  # c(c + 200) a touched row, for rows of an epoch at its end
_MOVED = 6  # rows a touched row, for sweeps
_GATHER, _OVERHEAD = 100, 200
_SWEEP_EVERY = 8  # steps
_SWEPT_IN = 0.4  # part of the time until the lowest tier is full


@dataclass
class Generations:
    """Stamps of rows and transforms of boundaries.

    Attributes:
        stamps: (D,) uint8.
        transforms: (slots, c, c), see above; the identity at ``base``.
        bends: of the open epoch.
        last: those of the epoch before, k = 0 where it ended with a closed segment.
        base: slot of the newest boundary of slots.
        waypoint: the one before; ``pending`` slots lead there only.
        tiers: live slots, oldest first, tier by tier.
        heirs: of the retired and swept slots, to which their transforms lead once they are not pending.
        retired: slots that wait for the next sweep; ``sweeping``: slots that the present sweep empties.
        cursor: first row that the present sweep has not seen.
        owed: rows that it should have seen by now.
        young: rows written since the first bend of the epoch, in ``young_steps`` steps.
        age: steps of the epoch.
        steps_per_boundary: running average of its length.
        closes: segments closed and bends.
        moved_rows: rows that sweeps moved.
    """

    stamps: Tensor
    transforms: Tensor
    bends: Bends
    last: Bends
    base: int = 0
    waypoint: int = 0
    pending: list[int] = field(default_factory=list)
    tiers: list[list[int]] = field(default_factory=lambda: [[0]])
    heirs: dict[int, int] = field(default_factory=dict)
    retired: list[int] = field(default_factory=list)
    sweeping: list[int] = field(default_factory=list)
    cursor: int = 0
    owed: float = 0.0
    young: list[Tensor] = field(default_factory=list)
    young_steps: int = 0
    age: int = 0
    steps_per_boundary: float = 32.0
    closes: int = 0
    moved_rows: int = 0

    @classmethod
    def fresh(cls, num_rows: int, width: int, like: Tensor) -> Generations:
        """Every row at one boundary, whose transform is the identity."""
        stamps = torch.zeros(num_rows, dtype=torch.uint8, device=like.device)
        none = Bends.none(width, like)
        return cls(stamps, torch.eye(width, dtype=like.dtype, device=like.device).unsqueeze(0), none, none)

    def to(self, device: torch.device) -> Generations:
        """The same on another device."""
        return replace(
            self,
            stamps=self.stamps.to(device),
            transforms=self.transforms.to(device),
            bends=Bends(self.bends.both.to(device)),
            last=Bends(self.last.both.to(device)),
            young=[rows.to(device) for rows in self.young],
        )

    @property
    def live(self) -> list[int]:
        """Slots that some row may carry."""
        return [slot for tier in self.tiers for slot in tier] + self.retired + self.sweeping

    @property
    def newest(self) -> int:
        """Stamp of rows that are written now."""
        return SLOTS + len(self.bends) if len(self.bends) else self.base

    @property
    def columns(self) -> int:
        """c."""
        return self.transforms.shape[1]

    @property
    def fanout(self) -> int:
        """Slots of a tier. A boundary costs 4c²k or 2c³ flops a live slot, a sweep 2c² a row."""
        balanced = int(0.4 * (self.stamps.numel() / self.columns) ** 0.5)
        return min(max(balanced, _FANOUTS[0]), _FANOUTS[1])

    def rows_at_newest(self, values: Rows, rows: Tensor) -> Tensor:
        """(n, c) copy of ``values[rows]`` brought to the newest boundary. Changes nothing."""
        if values.is_resident and kernels.moves(values.stored):
            return kernels.bring(self._places(values), rows)[0]
        stamps = self.stamps.index_select(0, rows)
        if bool((stamps == self.newest).all()):
            return values.gather(rows)
        out = self._at_base(values, rows, stamps)
        return self.bends.applied(out, (stamps.short() - SLOTS).clamp_min_(0)) if len(self.bends) else out

    def _places(self, values: Rows) -> kernels.Places:
        return kernels.Places(
            values.stored,
            self.stamps,
            self.transforms,
            self.pending,
            self.heirs,
            self.last.both,
            self.bends.both,
            self.base,
            self.waypoint,
        )

    def _at_base(self, values: Rows, rows: Tensor, stamps: Tensor) -> Tensor:
        """(n, c) copy of ``values[rows]``; those that stand before ``base`` brought there."""
        counts = torch.bincount(stamps, minlength=1).tolist()
        if not any(count for slot, count in enumerate(counts[:SLOTS]) if slot != self.base):
            return values.gather(rows)
        out = torch.empty(rows.numel(), values.width, dtype=values.dtype, device=values.device)
        order = torch.argsort(stamps, stable=True)
        for slot, places in enumerate(order.split(counts)):
            for some in places.split(_GATHERED) if places.numel() else ():
                found = values.gather(rows[some])
                stays = slot == self.base or slot >= SLOTS
                out.index_copy_(0, some, found if stays else self._through(slot, found)[0])
        return out

    def _through(self, slot: int, rows: Tensor, to_base: bool = True) -> tuple[Tensor, int]:
        """(n, c) rows that stand at ``slot``, brought to ``base`` or to the first slot that is not to be emptied."""
        rows, reached = rows @ self.transforms[slot], self.base
        if slot in self.pending:
            rows = self._onwards(rows)
        else:
            reached = self.heirs.get(slot, self.base)
        if reached != self.base and (to_base or reached in self.heirs):
            return self._through(reached, rows, to_base)
        return rows, reached

    def _onwards(self, rows: Tensor) -> Tensor:
        """(n, c) rows at ``waypoint``, at ``base``."""
        return self.last.applied(rows) if len(self.last) else rows @ self.transforms[self.waypoint]

    def write(self, values: Rows, rows: Tensor, given: Tensor) -> None:
        """``values[rows]`` ← ``given`` (n, c), which are at the newest boundary."""
        self._put(values, rows, given, self.newest)
        if len(self.bends):
            self.young.append(rows)

    def _put(self, values: Rows, rows: Tensor, given: Tensor, stamp: int) -> None:
        if values.is_resident and kernels.write(values.stored, self.stamps, rows, given, stamp):
            return
        values.write(rows, given)
        self.stamps.index_fill_(0, rows, stamp)

    def bend(self, x: Tensor, b: Tensor, values: Rows) -> None:
        """Multiply all rows by I + x·bᵀ, for x and b (c,)."""
        if len(self.bends) == _MOST_BENDS:
            self.end_epoch(values)
        self.bends = self.bends.then(x, b)
        self.closes += 1

    def close(self, factor: Tensor, values: Rows) -> None:
        """Multiply all rows by ``factor`` (c, c), the product of a closed segment."""
        self._open_boundary(values, factor)
        self.closes += 1

    def end_epoch(self, values: Rows) -> None:
        """Exchange the bends for a slot."""
        if len(self.bends):
            self._open_boundary(values, None)

    def _open_boundary(self, values: Rows, factor: Tensor | None) -> None:
        self.fold(len(self.pending))
        if len(self.live) >= SLOTS:  # sweeps fell behind: finish them now rather than fail
            self.finish(values)
        live = self.live
        slot = next(s for s in range(SLOTS) if s not in live)
        if slot >= self.transforms.shape[0]:
            self.transforms = torch.cat([self.transforms, torch.zeros_like(self.transforms[:1])])
        self._settle(values, factor, slot)
        product = self.bends.applied(self.transforms[self.base])
        self.transforms[self.base] = without_denormals(product if factor is None else product @ factor)
        self.transforms[slot].zero_().fill_diagonal_(1.0)
        self.pending = [s for s in live if s != self.base and s not in self.heirs]
        self.waypoint, self.base = self.base, slot
        none = Bends.none(self.columns, self.transforms)
        self.last, self.bends = (self.bends if factor is None else none), none
        self.steps_per_boundary += 0.25 * (max(1, self.age) - self.steps_per_boundary)
        self.age = 0
        self._join(slot)

    def _settle(self, values: Rows, factor: Tensor | None, slot: int) -> None:
        """Bring the rows written since the epoch's first bend to its end, which is to be at ``slot``."""
        if self.young:
            rows = torch.unique(torch.cat(self.young))
            settled = self.rows_at_newest(values, rows)
            self._put(values, rows, without_denormals(settled if factor is None else settled @ factor), slot)
        self.young, self.young_steps = [], 0

    def fold(self, count: int) -> None:
        """Bring the transforms of so many pending slots up to ``base``."""
        if count and self.pending:
            slots = torch.tensor(self.pending[:count], device=self.transforms.device)
            given = self.transforms.index_select(0, slots).flatten(0, 1)
            moved = without_denormals(self._onwards(given)).view(-1, self.columns, self.columns)
            self.transforms.index_copy_(0, slots, moved)
            self.pending = self.pending[count:]

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
        self.heirs |= dict.fromkeys(slots, self.base)

    def _shares(self) -> list[float]:
        """What part of all rows stands at each slot, about."""
        sample = self.stamps[:: max(1, self.stamps.numel() // _SAMPLE)]
        shares: list[float] = (torch.bincount(sample, minlength=SLOTS) / max(1, sample.numel())).tolist()
        return shares

    def upkeep(self, values: Rows, touched: int) -> None:
        """What is due after a step that wrote ``touched`` rows."""
        self.age += 1
        self.young_steps += bool(self.young)
        if self._epoch_is_long():
            self.end_epoch(values)
        elif self.pending:
            self.fold(max(1, _FOLDED * touched // (4 * len(self.last) or 2 * self.columns)))
        if self.sweeping or self.retired:
            pace = self.stamps.numel() / (_SWEPT_IN * self.fanout * self.steps_per_boundary) + 1.0
            self.owed += pace
            if self.owed >= _SWEEP_EVERY * pace:
                self.owed -= self.sweep(values, int(self.owed), max(256, _MOVED * touched))

    def _epoch_is_long(self) -> bool:
        """Whether it has as many bends, or as many rows to settle, as one step should deal with."""
        k, c = len(self.bends), self.columns
        most = min(_MOST_BENDS, max(4, c // 4))
        return k >= most or (k > 0 and self.young_steps * (4 * k + _GATHER) >= _SETTLED * (c + _OVERHEAD))

    def sweep(self, values: Rows, rows: int, most: int) -> int:
        """Look at up to ``rows`` rows; move up to ``most``, from retired slots to their heirs; how many were seen."""
        seen = 0
        while rows > seen and most > 0 and (self.sweeping or self.retired):
            if not self.sweeping:
                self.sweeping, self.retired, self.cursor = self.retired, [], 0
            stop = min(self.cursor + min(rows - seen, _BLOCK), self.stamps.numel())
            found, stop = self._to_move(values, stop, most)
            self._move(values, found)
            seen, most = seen + stop - self.cursor, most - found.numel()
            self.moved_rows += found.numel()
            self.cursor = stop
            if stop == self.stamps.numel():
                self._free()
        return seen

    def _move(self, values: Rows, rows: Tensor) -> None:
        if values.is_narrow:  # what their rounding does to Q is known where they stand at the newest boundary
            for part in rows.split(values.block_rows):
                self.write(values, part, without_denormals(self.rows_at_newest(values, part)))
            return
        if values.is_resident and kernels.moves(values.stored):
            for part in rows.split(values.block_rows):
                kernels.write(
                    values.stored, self.stamps, part, *kernels.bring(self._places(values), part, to_base=False)
                )
            return
        stamps, order = torch.sort(self.stamps.index_select(0, rows), stable=True)
        rows, begin = rows[order], 0
        for slot, count in enumerate(torch.bincount(stamps, minlength=1).tolist()):
            for part in rows[begin : begin + count].split(values.block_rows) if count else ():
                moved, reached = self._through(slot, values.gather(part), to_base=False)
                self._put(values, part, without_denormals(moved), reached)
            begin += count

    def _to_move(self, values: Rows, stop: int, most: int) -> tuple[Tensor, int]:
        """Up to ``most`` rows from the cursor to ``stop`` that the sweep has to move, and where it should go on."""
        if values.is_resident and kernels.moves(values.stored):
            return kernels.find(self.stamps, self.cursor, stop, self.sweeping, most)
        emptied = torch.zeros(256, dtype=torch.bool, device=self.stamps.device)
        emptied[self.sweeping] = True
        found = emptied.index_select(0, self.stamps[self.cursor : stop].int()).nonzero().squeeze(1) + self.cursor
        return (found, stop) if found.numel() <= most else (found[:most], int(found[most]))

    def _free(self) -> None:
        """The present sweep has seen all rows: nothing stands at its slots any more."""
        self.pending = [slot for slot in self.pending if slot not in self.sweeping]
        self.heirs = {slot: heir for slot, heir in self.heirs.items() if slot not in self.sweeping}
        self.sweeping = []

    def finish(self, values: Rows) -> None:
        """Run the present sweep and the waiting one to their end."""
        while self.sweeping or self.retired:
            self.sweep(values, self.stamps.numel(), self.stamps.numel())

    def gather_all(self, values: Rows) -> None:
        """Move every row to the newest boundary and forget all others."""
        self.end_epoch(values)
        self._retire([slot for tier in self.tiers for slot in tier if slot != self.base])
        self.tiers = [[self.base]]
        self.finish(values)
