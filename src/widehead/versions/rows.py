"""Where V lies: in memory or in a file, in the type that is computed in or in half of its bits.

Letters (docs/notation.md): D classes, V (D, c) with c = d, or 2d with momentum. Everything else reads and writes rows
through `Rows`, in the working type.

If V is stored in bfloat16, a row v that is written becomes ṽ = v + e. What is kept of W, Q = WᵀW and w̄ = Wᵀ1, would
then describe another matrix than the one that is stored, and drift away from it. So the rounding is summed up
here as Σ(ṽᵀṽ − vᵀv) and Σe, and `FactoredWeights.absorb_rounding` adds it to Q and w̄.

Rounding is stochastic: v becomes one of its two neighbours, the nearer the likelier, so that E[ṽ] = v. To the
nearest one, an update below half the distance of two neighbours (2⁻⁹ of v) would be lost, every time. Measured beside
float64 after 2,000 steps (D = 5,000, d = 64, m = 128; the loss as a mean over the last 200):

    weighted squared error, SGD, lr 0.0005   nearest: W off by 7.3e-2, loss by +15 %;   stochastic: 1.2e-2, +0.02 %
    weighted squared error, SGD, lr 0.02     nearest: 3.8e-2, +0.07 %;                  stochastic: 4.2e-2, +0.02 %
    spherical softmax, SGD, lr 1             nearest: 1.7e-1, +0.5 %;                   stochastic: 1.3e-1, +0.01 %
    weighted squared error, momentum 0.9     nearest: 2.5e-2, +0.02 %;                  stochastic: 3.4e-2, +0.02 %
    weighted squared error, Newton           nearest: 1.7e-2, +0.004 %;                 stochastic: 2.5e-2, +0.006 %

In all of them Q and w̄ were those of the stored rows to 5e-7, as in float32.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from widehead import mapped
from widehead.arithmetic import Arithmetic, RowSums, choose
from widehead.blocks import at_once

_BLOCK = 1 << 18  # numbers on the CPU: buffers that go through V are a few of these, whatever D
_GOLDEN = -0x61C8864680B583EB  # 2⁶⁴ / φ, as a signed number
_LOW_BITS = 16  # those of a float32 that a bfloat16 lacks


class Rows:
    """V (D, c), with the type it is computed in.

    Args:
        stored: (D, c) V itself, taken over.
        dtype: the working type; None for that of ``stored``, which may otherwise be bfloat16.
        path: the file that ``stored`` lies in, or None.
        owner: whose the file says that it is.
    """

    def __init__(
        self, stored: Tensor, dtype: torch.dtype | None = None, path: Path | None = None, owner: str = ""
    ) -> None:
        self.stored = stored
        self.dtype = stored.dtype if dtype is None else dtype
        self.path, self.owner = path, owner
        self._rounding: tuple[Tensor, Tensor] | None = None
        # Rows that memory may not hold are asked for before they are read. If it does hold them, that costs more
        # than it gains: 1 µs a row; a row from the disk took 90 µs alone and 12 µs beside others.
        self._is_large = path is not None and stored.numel() * stored.element_size() > _memory() // 2

    @classmethod
    def empty(
        cls,
        num_rows: int,
        width: int,
        *,
        device: torch.device | str | None,
        dtype: torch.dtype,
        storage_dtype: torch.dtype | None = None,
        path: Path | None = None,
        owner: str = "",
    ) -> Rows:
        """Rows that hold nothing in particular, in memory, or in a new file at ``path``, which says whose it is.

        Raises:
            FileExistsError, OSError: as `mapped.create`.
        """
        kind = dtype if storage_dtype is None else storage_dtype
        if path is None:
            return cls(torch.empty(num_rows, width, device=device, dtype=kind), dtype)
        return cls(mapped.create(path, kind, (num_rows, width), owner), dtype, path, owner)

    def empty_like(
        self, *, width: int | None = None, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Rows:
        """Rows for as many classes, stored alike, that hold nothing in particular; a file takes the place of this one.

        Raises:
            ValueError: rows in a file are asked for on another device or in another type.
            OSError: as `mapped.create`; these rows are as they were.
        """
        width = self.width if width is None else width
        device = self.device if device is None else device
        dtype = self.dtype if dtype is None else dtype
        narrow = self.stored.dtype if self.is_narrow else None
        if self.path is None:
            return Rows.empty(self.num_rows, width, device=device, dtype=dtype, storage_dtype=narrow)
        if dtype != self.dtype or device.type != "cpu":
            raise ValueError(
                f"Weights in a file ({self.path}) should stay on the CPU in {self.dtype}. Found {device}, {dtype}: "
                "make another head there, and load the state_dict of this one."
            )
        beside = self.path.with_name(f".{self.path.name}.new")
        mapped.remove(beside, self.owner)  # of a process that was killed here
        place: dict[str, Any] = {"path": beside, "owner": self.owner}
        made = Rows.empty(self.num_rows, width, device=device, dtype=dtype, storage_dtype=narrow, **place)
        beside.replace(self.path)  # the old file lives on, without a name, as long as its map
        made.path = self.path
        return made

    @property
    def num_rows(self) -> int:
        """D."""
        return self.stored.shape[0]

    @property
    def width(self) -> int:
        """c."""
        return self.stored.shape[1]

    @property
    def device(self) -> torch.device:
        return self.stored.device

    @property
    def arithmetic(self) -> Arithmetic:
        """What computes with these rows."""
        return choose(self.stored, resident=not self._is_large and not self.is_narrow)

    @property
    def is_narrow(self) -> bool:
        """Whether rows are rounded when they are written."""
        return self.stored.dtype != self.dtype

    def zeros(self, *shape: int) -> Tensor:
        """Zeros in the working type, on the device."""
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    def gather(self, ids: Tensor) -> Tensor:
        """(n, c) a copy of the rows ``ids`` (n,), as they are stored."""
        if self._is_large:
            mapped.expect_rows(self.stored, ids)
        return self.stored.index_select(0, ids).to(self.dtype)

    def write(self, versions: Tensor, ids: Tensor, rows: Tensor | RowSums, version: int | Tensor) -> None:
        """Put ``rows`` (n, c) at ``ids`` (n,), which are distinct, with this version or these (n,): `write_rows`.

        Rows that are rounded have to stand at the newest version, and `FactoredWeights.absorb_rounding` has to follow
        before U changes.
        """
        if self.is_narrow:
            rows = rows.made() if isinstance(rows, RowSums) else rows
            rounded = _rounded(rows)
            self._account(rows, rounded)
            rows = rounded.to(self.stored.dtype)
        self.arithmetic.write_rows(self.stored, versions, ids, rows, version)

    def _account(self, exact: Tensor, rounded: Tensor) -> None:
        """Σ(ṽᵀṽ − vᵀv) = RᵀE + EᵀR with R = (V + Ṽ)/2 and E = Ṽ − V, and Σe, added to what there is."""
        error = rounded - exact
        half = torch.add(exact, error, alpha=0.5).T @ error
        gram, total = (half + half.T).double(), error.sum(0, dtype=torch.float64)
        if self._rounding is not None:
            gram, total = gram + self._rounding[0], total + self._rounding[1]
        self._rounding = gram, total

    def take_rounding(self) -> tuple[Tensor, Tensor] | None:
        """(c, c) Σ(ṽᵀṽ − vᵀv) and (c,) Σe, float64, of all `write`s since the last call; None without any."""
        found, self._rounding = self._rounding, None
        return found

    def spans(self) -> Iterator[tuple[int, int]]:
        """(first row, last row + 1) of blocks whose size does not depend on D, for a pass over all rows."""
        step = self.block_rows
        for start in range(0, self.num_rows, step):
            self.expect(start, start + 2 * step)
            yield start, min(start + step, self.num_rows)

    def expect(self, start: int, stop: int) -> None:
        """Say that the rows from ``start`` to ``stop`` will be read next, if they are in a file."""
        if self.path is not None:
            mapped.expect(self.stored[start:stop])

    @property
    def block_rows(self) -> int:
        """Rows of such a block."""
        # 16: normal_ draws in groups of so many numbers.
        return max(1, at_once(self.device, _BLOCK) // (16 * self.width)) * 16

    def blocks(self) -> Iterator[Tensor]:
        """V as it is stored, in the working type, a block at a time."""
        return (self.stored[start:stop].to(self.dtype) for start, stop in self.spans())

    def put(self, start: int, rows: Tensor) -> None:
        """Put ``rows`` (n, c) at ``start`` and the places after it, each number rounded to the nearest.

        Nothing is accounted for: Q and w̄ are to be computed from what is stored afterwards.
        """
        self.stored[start : start + rows.shape[0]].copy_(rows)

    def fill(self, values: Tensor) -> None:
        """V = ``values`` (D, c), a block at a time, so that a file that ``values`` lies in never is in memory whole."""
        for start, stop in self.spans():
            self.put(start, values[start:stop])
            mapped.leave(values[start:stop])

    def draw(self, std: float) -> None:
        """Normal numbers; on the CPU the same ones however V is stored."""
        if self.path is None and not self.is_narrow:
            self.stored.normal_(std=std)
            return
        for start, stop in self.spans():
            self.put(start, self.zeros(stop - start, self.width).normal_(std=std))

    def to(self, device: torch.device) -> Rows:
        """The same on another device."""
        made = self.empty_like(device=device)
        made.fill(self.stored)
        return made

    def remove(self) -> None:
        """Remove the file, if there is one; the rows stay, until they are let go."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles would hold all of V in memory."""
        if self.path is not None:
            raise TypeError(
                f"A head whose weights are in a file ({self.path}) should not be copied or pickled: a copy would have "
                "them in memory. Make another head with another `storage`, and load the state_dict of this one."
            )
        return self.__dict__


def _memory() -> int:
    """Bytes of main memory; without end if the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return sys.maxsize


def _rounded(rows: Tensor, noise: Tensor | None = None) -> Tensor:
    """``rows``, each number replaced by one of the two bfloat16 numbers around it, with their mean its expectation.

    ``noise`` (rows' shape) int32 in [0, 2¹⁶) decides; None draws it.
    """
    bits = rows.float().contiguous().view(torch.int32)
    if noise is None:
        noise = torch.randint(0, 1 << _LOW_BITS, bits.shape, dtype=torch.int32, device=rows.device)
    return noise.add_(bits).bitwise_and_(-1 << _LOW_BITS).view(torch.float32).to(rows.dtype)


def rounded_by_name(rows: Tensor, names: Tensor, salt: Tensor) -> Tensor:
    """Rows (k, c) of the classes ``names`` (k,) rounded as `Rows.write` does, by noise of a class, column and ``salt``
    () int64 alone: a class that comes twice is rounded alike. The noise is splitmix64's (Steele et al., OOPSLA 2014).
    """
    columns = torch.arange(rows.shape[1], device=rows.device)
    z = (names[:, None] * rows.shape[1] + columns).add_(salt * _GOLDEN)
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        z = (z ^ ((z >> shift) & ((1 << (64 - shift)) - 1))).mul_(factor)
    return _rounded(rows, ((z >> 31) & ((1 << _LOW_BITS) - 1)).to(torch.int32))
