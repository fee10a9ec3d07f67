"""Rows of training data that are dealt out to the processes of a run: row i is with process i mod P.

So who has a row is known as soon as its number is, before anybody knows how many rows there are.

Letters: P processes, n rows in all, n_r of them here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from widehead.split.peers import Peers
from widehead.split.processes import RowSplit

_CHUNK = 1 << 20  # numbers that are brought together at a time


class Share:
    """Which rows are here, and what the processes tell one another of all; see the module.

    Args:
        peers: two processes or more.

    Attributes:
        rank, size: of this process, and P.
        own: the rows here, of any number.
    """

    def __init__(self, peers: Peers) -> None:
        assert peers.mesh is not None
        self.peers = peers
        self.rank, self.size = peers.rank, peers.size
        self.split = RowSplit(peers.mesh, peers.size)
        self.own = slice(self.rank, None, self.size)

    @classmethod
    def of(cls, peers: Peers) -> Share | None:
        """None for one process, which has all rows."""
        return None if peers.size == 1 else cls(peers)

    def holds(self, rows: Any) -> Any:
        """Whether a row is here, or each of some."""
        return rows % self.size == self.rank

    def count(self, n: int) -> int:
        """n_r."""
        return len(range(n)[self.own])

    def total(self, values: np.ndarray) -> np.ndarray:
        """Numbers summed over the processes, in their own type."""
        kept = np.array(values, order="C")
        self.split.sum_(torch.from_numpy(kept), "sums of shares")
        return kept

    def largest(self, *values: float) -> list[float]:
        """The largest that any process has, of each; NaN if one of them has that."""
        return torch.tensor(self.peers.told(values), dtype=torch.float64).amax(dim=0).tolist()

    def dealt(self, n: int) -> Dealt:
        """All of n rows."""
        return self.dealt_of(np.arange(n))

    def dealt_of(self, rows: np.ndarray) -> Dealt:
        """Some of the rows, in the order given."""
        return Dealt(self, (rows % self.size).astype(np.int32))

    def run_of(self, n: int) -> tuple[int, int]:
        """First and end of the ⌈n/P⌉ of n things in a row that are here, if they are dealt out in runs."""
        block = -(-n // self.size)
        return min(self.rank * block, n), min((self.rank + 1) * block, n)


def alike(share: Share | None) -> AbstractContextManager[None]:
    """`Peers.alike` of those that have shares; nothing for None, one process that has all."""
    return nullcontext() if share is None else share.peers.alike()


def totals(share: Share | None, *counts: int) -> list[int]:
    """Each count summed over the processes that have shares; as it is for None."""
    return list(counts) if share is None else share.total(np.array(counts, dtype=np.int64)).tolist()


def dealt(share: Share | None, n: int) -> Dealt | None:
    """All of n rows among the processes that have shares; None for None, one process that has all."""
    return None if share is None else share.dealt(n)


class Dealt:
    """Things of which each process has some: rows, or those that were chosen among them.

    Args:
        share: of the rows.
        owners: (n,) int32 who has each of the things, in their order.

    Attributes:
        numbers: (k,) rising, of those here.
        total: n.
    """

    def __init__(self, share: Share, owners: np.ndarray) -> None:
        self.share, self.owners, self.total = share, owners, len(owners)
        self.numbers = np.flatnonzero(owners == share.rank)

    def owners_of(self, numbers: np.ndarray) -> np.ndarray:
        """(n,) who has each of ``numbers``."""
        found: np.ndarray = self.owners[numbers]
        return found

    def holds(self, numbers: np.ndarray) -> np.ndarray:
        """(n,) whether each of ``numbers`` is here."""
        found: np.ndarray = self.owners_of(numbers) == self.share.rank
        return found

    def places(self, numbers: np.ndarray) -> np.ndarray:
        """Where those of ``numbers`` that are here stand among the things here, in the order given."""
        here = numbers[self.holds(numbers)]
        found: np.ndarray = np.searchsorted(self.numbers, here)
        return found

    def repeated(self, counts: np.ndarray) -> Dealt:
        """So many things (n,) in the place of each, with who has that."""
        return Dealt(self.share, np.repeat(self.owners, counts))

    def all_of(self, part: np.ndarray) -> np.ndarray:
        """(n,) a number of each thing, from the (k,) of each process."""
        counts = np.bincount(self.owners, minlength=self.share.size).tolist()
        told = self.share.split.all_rows(torch.from_numpy(np.ascontiguousarray(part)), counts, "rows of shares").numpy()
        found = np.empty_like(told)
        found[np.argsort(self.owners, kind="stable")] = told
        return found

    def chosen(self, which: np.ndarray) -> Dealt:
        """Those of them for which ``which`` (n,) bool is true, everywhere the same."""
        return Dealt(self.share, self.owners[which])

    def chosen_here(self, which: np.ndarray) -> Dealt:
        """Likewise, of those here ``which`` (k,) says."""
        return self.chosen(self.all_of(which.astype(np.uint8)) > 0)


class Runs:
    """Things of which each process has a run of neighbours, ⌈n/P⌉ of them: those of a text, which overlap.

    Args:
        share: of the things.
        total: n.
        origin: number of the first thing that is kept here; it may be one before the run.
    """

    def __init__(self, share: Share, total: int, origin: int) -> None:
        self.share, self.total, self.origin = share, total, origin
        self._block = max(1, -(-total // share.size))

    def owners_of(self, numbers: np.ndarray) -> np.ndarray:
        """(n,) who has each of ``numbers``."""
        found: np.ndarray = numbers // numbers.dtype.type(self._block)
        return found

    def places(self, numbers: np.ndarray) -> np.ndarray:
        """Where those of ``numbers`` that are here stand among what is kept here, in the order given."""
        return numbers[self.owners_of(numbers) == self.share.rank] - self.origin


class InTurn:
    """Numbers of rows, as the tensor that one process would have of all, brought together in pieces.

    It is written to a file by `widehead.training.checkpoint.save_checkpoint`, which all processes call.

    Args:
        rows: who has which.
        part: numbers of the rows here, one row after the other.
        lengths: (n,) how many each of all rows has.
    """

    layout = torch.strided

    def __init__(self, rows: Dealt, part: Tensor, lengths: np.ndarray) -> None:
        self.rows, self.part, self.lengths = rows, part, lengths
        self.dtype, self.shape = part.dtype, torch.Size([int(lengths.sum())])

    @property
    def rank(self) -> int:
        """Of this process."""
        return self.rows.share.rank

    def numel(self) -> int:
        return self.shape[0]

    def element_size(self) -> int:
        return self.part.element_size()

    def pieces(self) -> Iterator[Tensor]:
        """The numbers in order, some rows at a time, on all processes."""
        share, begin = self.rows.share, 0
        for first, end in _cuts(self.lengths):
            lengths, owners = self.lengths[first:end], self.rows.owners[first:end]
            by_owner = np.argsort(owners, kind="stable")
            counts = np.bincount(owners, weights=lengths, minlength=share.size).astype(np.int64).tolist()
            mine = self.part[begin : begin + counts[share.rank]]
            begin += len(mine)
            told = share.split.all_rows(mine, counts, "rows of shares")
            starts = np.empty(len(owners), dtype=np.int64)
            starts[by_owner] = np.cumsum(lengths[by_owner]) - lengths[by_owner]
            places = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
            yield told[torch.from_numpy(places)]


def _cuts(lengths: Sequence[int] | np.ndarray) -> Iterator[tuple[int, int]]:
    """Rows in runs that have about ``_CHUNK`` numbers."""
    groups = (np.cumsum(lengths) - 1) // _CHUNK
    bounds = [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(lengths)]
    return ((a, b) for a, b in itertools.pairwise(bounds) if a < b)
