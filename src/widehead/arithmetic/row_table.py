"""Rows of V with their versions, and how a row of any version is brought forward, by torch's operations.

Letters: D classes, c columns, n rows.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from widehead.arithmetic.corrections import Corrections
from widehead.arithmetic.interface import SLOTS

_GATHERED = 1 << 11  # rows read at a time: large copies would be mapped into memory anew, page by page


class RowTable(NamedTuple):
    """Where rows stand and go on from there; `RowVersions` says what slots, versions and successors are.

    Attributes:
        table: (D, c) V as it is stored.
        gather: (n,) ids → (n, c) a copy of these rows in the working type.
        versions: (D,) uint8.
        transforms: (slots, c, c).
        behind: slots whose transform leads to ``previous`` only.
        successors: slots to which the transforms of others lead.
        last, corrections: those of the interval before, and of the open one.
        base, previous: the newest slot, and the one before.
    """

    table: Tensor
    gather: Callable[[Tensor], Tensor]
    versions: Tensor
    transforms: Tensor
    behind: Sequence[int]
    successors: Mapping[int, int]
    last: Corrections
    corrections: Corrections
    base: int
    previous: int

    @property
    def newest(self) -> int:
        """Version of rows that are written now."""
        return SLOTS + len(self.corrections) if len(self.corrections) else self.base


def onwards(rows: Tensor, last: Corrections, transforms: Tensor, previous: int) -> Tensor:
    """(n, c) rows at the slot ``previous``, brought to the newest one."""
    return last.applied(rows) if len(last) else rows @ transforms[previous]


def bring(table: RowTable, ids: Tensor, *, to_base: bool) -> tuple[Tensor, Tensor]:
    """See `Arithmetic.bring_rows`."""
    versions = table.versions.index_select(0, ids)
    if bool((versions == table.newest).all()):
        return table.gather(ids), versions
    out, reached = _by_slots(table, ids, versions, to_base)
    if to_base and len(table.corrections):
        out = table.corrections.applied(out, (versions.short() - SLOTS).clamp_min_(0))
    return out, reached


def _by_slots(table: RowTable, ids: Tensor, versions: Tensor, to_base: bool) -> tuple[Tensor, Tensor]:
    """(n, c) rows brought to ``base`` or, unless ``to_base``, to the first slot without a successor; (n,) which."""
    counts = torch.bincount(versions, minlength=1).tolist()
    if not any(count for slot, count in enumerate(counts[:SLOTS]) if slot != table.base):
        return table.gather(ids), versions
    out = torch.empty(ids.numel(), table.table.shape[1], dtype=table.transforms.dtype, device=ids.device)
    reached, order = versions.clone(), torch.argsort(versions, stable=True)
    for slot, places in enumerate(order.split(counts)):
        for some in places.split(_GATHERED) if places.numel() else ():
            rows, at = table.gather(ids[some]), slot
            if slot != table.base and slot < SLOTS:
                rows, at = _through(table, slot, rows, to_base)
            out.index_copy_(0, some, rows)
            reached.index_fill_(0, some, at)
    return out, reached


def _through(table: RowTable, slot: int, rows: Tensor, to_base: bool) -> tuple[Tensor, int]:
    """(n, c) rows that stand at ``slot``, brought to ``base`` or to the first slot that is not to be emptied."""
    rows, reached = rows @ table.transforms[slot], table.base
    if slot in table.behind:
        rows = onwards(rows, table.last, table.transforms, table.previous)
    else:
        reached = table.successors.get(slot, table.base)
    if reached != table.base and (to_base or reached in table.successors):
        return _through(table, reached, rows, to_base)
    return rows, reached
