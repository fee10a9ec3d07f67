"""The kernels for rows of V: brought forward, written, found (factored/generations.py has their twins).

Letters: D classes, c columns, n rows.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from widehead.kernels.library import available, library

__all__ = ["SLOTS", "Places", "bring", "find", "moves", "write"]


def write(table: Tensor, stamps: Tensor, class_ids: Tensor, rows: Tensor, stamp: int | Tensor) -> bool:
    """V[class_ids] ← rows (n, c), which stand at ``stamp``; False where there is no kernel for it, and nothing done.

    Where each has a stamp of its own (n,), the rows' numbers below 1e-30 become 0.
    """
    if not moves(table):
        return False
    rows, ids = rows.contiguous(), class_ids.contiguous()
    given = (0, stamp.data_ptr()) if isinstance(stamp, Tensor) else (stamp, None)
    pointers = (ids.data_ptr(), rows.data_ptr(), *given, table.data_ptr(), stamps.data_ptr())
    library().widehead_write(torch.get_num_threads(), table.shape[1], ids.numel(), *pointers)
    return True


def moves(table: Tensor) -> bool:
    """Whether `bring` and `write` are for V (D, c) as it is stored."""
    return table.dtype == torch.float32 and table.device.type == "cpu" and available()


class _Places(ctypes.Structure):
    """`Places` of rows.c."""

    _fields_ = [
        ("c", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("table", "stamps", "transforms", "pending", "heirs", "last", "bends")),
        *((name, ctypes.c_int64) for name in ("base", "waypoint", "last_count", "bend_count")),
    ]


@dataclass(frozen=True)
class Places:
    """Where rows of V stand and go on from there: see `Generations`, whose slots are below `SLOTS`."""

    table: Tensor  # (D, c)
    stamps: Tensor  # (D,)
    transforms: Tensor  # (slots, c, c)
    pending: Sequence[int]
    heirs: Mapping[int, int]
    last: Tensor  # (2, k, c)
    bends: Tensor  # (2, k, c)
    base: int
    waypoint: int


SLOTS, _NOWHERE = 192, -1


def bring(places: Places, class_ids: Tensor, *, to_base: bool = True) -> tuple[Tensor, Tensor]:
    """(n, c) rows of V at the newest boundary; or, not ``to_base``, at the first slot that has no heir, and (n,) which.

    For tables that `moves` is true of.
    """
    lib, threads, n, c = library(), torch.get_num_threads(), class_ids.numel(), places.table.shape[1]
    pending, heirs = np.zeros(SLOTS, dtype=np.uint8), np.full(SLOTS, _NOWHERE, dtype=np.int16)
    pending[list(places.pending)] = 1
    heirs[list(places.heirs.keys())] = list(places.heirs.values())
    ids, last, bends = class_ids.contiguous(), places.last.contiguous(), places.bends.contiguous()
    out, reached = places.table.new_empty(n, c), places.stamps.new_empty(n)
    work = torch.empty(lib.widehead_bring_work(threads, n, c), dtype=torch.uint8)
    tensors = (places.table, places.stamps, places.transforms)
    pointers = [*(part.data_ptr() for part in tensors), pending.ctypes.data, heirs.ctypes.data]
    numbers = (places.base, places.waypoint, last.shape[1], bends.shape[1])
    given = _Places(c, *pointers, last.data_ptr(), bends.data_ptr(), *numbers)
    made = (out.data_ptr(), reached.data_ptr(), work.data_ptr())
    lib.widehead_bring(threads, n, ids.data_ptr(), ctypes.byref(given), to_base, *made)
    return out, reached


def find(stamps: Tensor, start: int, stop: int, wanted: Sequence[int], most: int) -> tuple[Tensor, int]:
    """Rows from ``start`` to ``stop`` with one of the ``wanted`` stamps, ``most`` of them, and how far it saw.

    For tables that `moves` is true of.
    """
    flags = np.zeros(256, dtype=np.uint8)
    flags[list(wanted)] = 1
    found, seen = torch.empty(min(most, stop - start), dtype=torch.int64), ctypes.c_int64()
    pointers = (found.data_ptr(), ctypes.addressof(seen))
    count = library().widehead_find(stamps.data_ptr(), start, stop, flags.ctypes.data, len(found), *pointers)
    return found[:count], seen.value
