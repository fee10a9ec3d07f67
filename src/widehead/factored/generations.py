"""Rows in generations: which transforms each row of V still has to go through (docs/method.md).

A *boundary* is a moment at which a segment of steps was closed. Row i of V carries the slot of the boundary it was
last rewritten at; ``transforms[slot]`` is the product of all segments closed since then, so the row's value at the
newest boundary is V_i · transforms[slot]: one product whatever the number of segments in between. Products of
contractions are stable; no inverse is kept across a boundary.

Boundaries stand in tiers like the runs of a log-structured merge tree. When a tier holds ``FANOUT`` boundaries, the
older ones are retired and the newest, which is always the newest of all, joins the next tier. A retired boundary's
slot is free again once a sweep over the rows has moved every row that still carries it to the newest boundary.
Sweeps advance a few rows a step. A row that is never a target moves only log_FANOUT(closes) times in a run.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from widehead.factored.rows import Rows

__all__ = ["Generations"]

FANOUT = 8
CAPACITY = 256  # slots, as a stamp is one byte
_FEWEST, _MOST = 40, 128  # bounds of the number of live slots that sweeps are paced to keep below
_GATHERED = 1 << 11  # rows read at a time: large copies would be mapped into memory anew, page by page
_TINY = 1e-30  # smaller factors are set to zero: products of denormal numbers are very slow


@dataclass
class Generations:
    """Stamps of rows and transforms of boundaries.

    Attributes:
        stamps: (D,) uint8, slot of each row's boundary.
        transforms: (slots, d, d), product of the segments closed since each boundary; identity at the newest.
        tiers: live slots, oldest first, tier by tier.
        newest: slot of the newest boundary.
        retired: slots that wait for the next sweep; ``sweeping``: slots that the present sweep empties.
        cursor: first row that the present sweep has not seen.
        steps_per_close: running average of the length of a segment, in steps.
    """

    stamps: Tensor
    transforms: Tensor
    tiers: list[list[int]] = field(default_factory=lambda: [[0]])
    newest: int = 0
    retired: list[int] = field(default_factory=list)
    sweeping: list[int] = field(default_factory=list)
    cursor: int = 0
    steps_per_close: float = 64.0
    closes: int = 0
    moved_rows: int = 0

    @classmethod
    def fresh(cls, num_rows: int, width: int, like: Tensor) -> Generations:
        """Every row at one boundary, whose transform is the identity."""
        stamps = torch.zeros(num_rows, dtype=torch.uint8, device=like.device)
        return cls(stamps, torch.eye(width, dtype=like.dtype, device=like.device).unsqueeze(0))

    @property
    def live(self) -> list[int]:
        """Slots that some row may carry."""
        return [slot for tier in self.tiers for slot in tier] + self.retired + self.sweeping

    def rows_at_newest(self, values: Rows, rows: Tensor) -> Tensor:
        """(n, d) copy of ``values[rows]`` brought to the newest boundary. Changes nothing."""
        stamps = self.stamps.index_select(0, rows)
        counts = torch.bincount(stamps, minlength=1).tolist()
        if len(counts) == self.newest + 1 and counts[self.newest] == rows.numel():
            return values.gather(rows)
        order = torch.argsort(stamps, stable=True)
        out = values.zeros(rows.numel(), values.width)
        for slot, places in enumerate(order.split(counts)):
            for some in places.split(_GATHERED):
                found = values.gather(rows[some])
                out.index_copy_(0, some, found if slot == self.newest else found @ self.transforms[slot])
        return out

    def close(self, factor: Tensor, values: Rows) -> None:
        """End a segment whose product is ``factor`` (d, d): all boundaries get it, a new one begins."""
        live = self.live
        slots = torch.tensor(live, device=factor.device)
        moved = (self.transforms[slots].flatten(0, 1) @ factor).view(len(live), *factor.shape)
        self.transforms[slots] = _without_denormals(moved)
        self.closes += 1
        self._open_boundary(values)

    def _open_boundary(self, values: Rows) -> None:
        used = set(self.live)
        if len(used) >= CAPACITY:  # sweeps fell behind: finish them now rather than fail
            self.finish(values)
            used = set(self.live)
        slot = next(s for s in range(CAPACITY) if s not in used)
        if slot >= self.transforms.shape[0]:
            self.transforms = torch.cat([self.transforms, torch.zeros_like(self.transforms[:1])])
        self.transforms[slot].zero_().fill_diagonal_(1.0)
        self.newest = slot
        self._join(slot)

    def _join(self, slot: int) -> None:
        """Put the newest boundary in the lowest tier and cascade full tiers."""
        for tier in self.tiers:
            tier.append(slot)
            if len(tier) < FANOUT:
                return
            self.retired += tier[:-1]
            tier.clear()
        self.tiers.append([slot])

    def rows_due(self, touched: int) -> int:
        """How many rows the sweep should look at in this step.

        Enough to keep up with rows that targets bring back to the newest boundary (they retire once a tier), and
        enough to end before the live slots reach a limit at the present rate of closing. A close costs 2d³ flops a
        live slot, a sweep at most 2d² a row; a limit near √(2D/d) balances the two.
        """
        if not self.sweeping and not self.retired:
            return 0
        balanced = int((2 * self.stamps.numel() / self.transforms.shape[1]) ** 0.5)
        slack = max(1, min(max(balanced, _FEWEST), _MOST) - len(self.live))
        rows_left = self.stamps.numel() - self.cursor
        return max(2 * touched, 64, int(rows_left / (0.5 * slack * self.steps_per_close)) + 1)

    def sweep(self, values: Rows, rows: int) -> None:
        """Look at the next ``rows`` rows and move those at a retired boundary to the newest one, in place."""
        while rows > 0 and (self.sweeping or self.retired):
            if not self.sweeping:
                self.sweeping, self.retired, self.cursor = self.retired, [], 0
            count = min(rows, values.block_rows, self.stamps.numel() - self.cursor)
            self._move(values, self.cursor, count)
            self.cursor += count
            rows -= count
            if self.cursor == self.stamps.numel():
                self.sweeping = []

    def _move(self, values: Rows, start: int, count: int) -> None:
        values.expect(start, start + count)
        emptied = torch.zeros(CAPACITY, dtype=torch.bool, device=values.device)
        emptied[self.sweeping] = True
        rows = emptied[self.stamps[start : start + count].int()].nonzero().squeeze(1) + start
        if rows.numel():
            values.write(rows, _without_denormals(self.rows_at_newest(values, rows)))
            self.stamps.index_fill_(0, rows, self.newest)
            self.moved_rows += rows.numel()

    def finish(self, values: Rows) -> None:
        """Run the present sweep and the waiting one to their end."""
        while self.sweeping or self.retired:
            self.sweep(values, self.stamps.numel())

    def gather_all(self, values: Rows) -> None:
        """Move every row to the newest boundary and forget all others."""
        self.retired = [slot for slot in self.live if slot != self.newest]
        self.tiers, self.sweeping, self.cursor = [[self.newest]], [], 0
        self.finish(values)


def _without_denormals(x: Tensor) -> Tensor:
    return torch.where(x.abs() < _TINY, 0.0, x)
