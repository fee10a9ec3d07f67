"""Rows of training data that are dealt out to the processes of a run: row i is with process i mod P.

So who has a row is known as soon as its number is, before anybody knows how many rows there are.

Letters: P processes, n rows in all, n_r of them here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
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

    def alike(self) -> AbstractContextManager[None]:
        """As `Peers.alike`."""
        return self.peers.alike()

    def holds(self, rows: Any) -> Any:
        """Whether a row is here, or each of some."""
        return rows % self.size == self.rank

    def count(self, n: int) -> int:
        """n_r."""
        return len(range(n)[self.own])

    def total(self, values: np.ndarray) -> np.ndarray:
        """Numbers summed over the processes, in their own type."""
        kept = np.ascontiguousarray(values).copy()
        self.split.sum_(torch.from_numpy(kept), "sums of shares")
        return kept

    def largest(self, *values: float) -> list[float]:
        """The largest that any process has, of each."""
        return self.split.largest_(torch.tensor(values, dtype=torch.float64)).tolist()

    def all_of(self, part: np.ndarray, n: int) -> np.ndarray:
        """(n,) numbers of all rows, from those (n_r,) of each process."""
        found = np.empty(n, dtype=part.dtype)
        counts = [len(range(rank, n, self.size)) for rank in range(self.size)]
        told = self.split.all_rows(torch.from_numpy(np.ascontiguousarray(part)), counts, "rows of shares").numpy()
        for rank, mine in enumerate(np.split(told, np.cumsum(counts)[:-1])):
            found[rank :: self.size] = mine
        return found

    def numbered(self, chosen: np.ndarray, n: int) -> Numbered:
        """The ``chosen`` (n_r,) bool of the rows here, by their numbers among those that all processes chose."""
        everywhere = self.all_of(chosen.astype(np.uint8), n)
        before = np.cumsum(everywhere, dtype=np.int64) - 1
        return Numbered(before[self.own][chosen], int(everywhere.sum()))


class Numbered:
    """Things of which some are here.

    Args:
        numbers: (k,) rising, of those here.
        total: how many there are in all.
    """

    def __init__(self, numbers: np.ndarray, total: int) -> None:
        self.numbers, self.total = numbers, total

    def places(self, numbers: np.ndarray) -> np.ndarray:
        """Where those of ``numbers`` that are here stand among the things here, in the order given."""
        if not len(self.numbers):
            return np.empty(0, dtype=np.int64)
        found = np.minimum(np.searchsorted(self.numbers, numbers), len(self.numbers) - 1)
        return found[self.numbers[found] == numbers]


class InTurn:
    """Numbers of rows that are dealt out, as the tensor that one process would have of all, brought together in pieces.

    It is written to a file by `widehead.training.checkpoint.save_checkpoint`, which all processes call.

    Args:
        part: numbers of the rows here, one row after the other.
        lengths: (n,) how many each of all rows has.
    """

    layout = torch.strided

    def __init__(self, share: Share, part: Tensor, lengths: np.ndarray) -> None:
        self.share, self.part, self.lengths = share, part, lengths
        self.dtype, self.shape = part.dtype, torch.Size([int(lengths.sum())])

    def numel(self) -> int:
        return self.shape[0]

    def element_size(self) -> int:
        return self.part.element_size()

    def pieces(self) -> Iterator[Tensor]:
        """The numbers in order, some rows at a time, on all processes."""
        size, begin = self.share.size, 0
        for first, end in _cuts(self.lengths):
            lengths, rows = self.lengths[first:end], np.arange(first, end)
            by_owner = np.argsort(rows % size, kind="stable")
            counts = np.bincount(rows % size, weights=lengths, minlength=size).astype(np.int64).tolist()
            mine = self.part[begin : begin + counts[self.share.rank]]
            begin += len(mine)
            told = self.share.split.all_rows(mine, counts, "rows of shares")
            starts = np.empty(len(rows), dtype=np.int64)
            starts[by_owner] = np.cumsum(lengths[by_owner]) - lengths[by_owner]
            places = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
            yield told[torch.from_numpy(places)]


def _cuts(lengths: Sequence[int] | np.ndarray) -> Iterator[tuple[int, int]]:
    """Rows in runs that have about ``_CHUNK`` numbers."""
    groups = (np.cumsum(lengths) - 1) // _CHUNK
    bounds = [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(lengths)]
    return ((a, b) for a, b in itertools.pairwise(bounds) if a < b)
