"""Examples from sequences: what comes next at each place.

Letters: m pieces of sequences, n places in all, C places of a piece at most.
"""

from __future__ import annotations

import numpy as np
import torch

from widehead.targets import SparseTargets


class SequenceExamples:
    """Pieces of sequences of ids; at each place of one that is asked for, the id that follows is the target.

    Inputs are SparseTargets with the ids of a piece but its last one, in their order, and values of 1 where a target is
    asked for, 0 elsewhere; none if all are. There is a target for each of these places.

    Args:
        ids: (n,) of all sequences, one after the other.
        starts, ends: (m,) where pieces begin and end in them; a piece has two ids at least.
        asked: how many last places of a piece are asked for, one number or (m,); None: all.
    """

    def __init__(
        self, ids: np.ndarray, starts: np.ndarray, ends: np.ndarray, asked: int | np.ndarray | None = None
    ) -> None:
        self.ids, self.starts, self.ends = ids, starts, ends
        self.asked = None if asked is None else np.broadcast_to(asked, starts.shape)

    def __len__(self) -> int:
        return len(self.starts)

    def batch(self, rows: np.ndarray) -> tuple[SparseTargets, SparseTargets]:
        """Inputs of the pieces ``rows`` (m,), and the target of each place that is asked for."""
        places, offsets = _places(self.starts[rows], self.ends[rows] - 1)
        values, after = None, places + 1
        if self.asked is not None:
            wanted = places >= np.repeat(self.ends[rows] - 1 - self.asked[rows], np.diff(offsets))
            values, after = wanted.astype(np.float32), after[wanted]
        inputs = SparseTargets(self.ids[places].astype(np.int64), offsets, values)
        return inputs, SparseTargets.from_ids(torch.from_numpy(self.ids[after].astype(np.int64)))


class Histories:
    """Inputs alone: the last ids of sequences, of which the last place of each is asked for.

    Args:
        ids: (n,) of all sequences, one after the other.
        offsets: (m + 1,) where they begin.
        context: C, of which no more ids count.

    A sequence without ids has the input 0, so that there is something to encode.
    """

    def __init__(self, ids: np.ndarray, offsets: np.ndarray, context: int) -> None:
        self.starts, self.ends = np.maximum(offsets[:-1], offsets[1:] - context), offsets[1:]
        self._ids = np.append(ids, 0)
        self._empty = self.starts == self.ends

    def __len__(self) -> int:
        return len(self.starts)

    def batch(self, rows: np.ndarray) -> SparseTargets:
        """Of the sequences ``rows`` (m,)."""
        last, empty = len(self._ids) - 1, self._empty[rows]
        starts, ends = np.where(empty, last, self.starts[rows]), np.where(empty, last + 1, self.ends[rows])
        places, offsets = _places(starts, ends)
        values = np.zeros(len(places), dtype=np.float32)
        values[offsets[1:] - 1] = 1.0
        return SparseTargets(self._ids[places].astype(np.int64), offsets, values)


def pieces(starts: np.ndarray, ends: np.ndarray, context: int) -> tuple[np.ndarray, np.ndarray]:
    """(m',) starts and ends of pieces of sequences (m,) in which each id but a sequence's first follows another, once.

    A long sequence is cut into pieces of ``context`` + 1 ids, of which the first is the last one before.

    >>> starts, ends = pieces(np.array([0, 1, 3]), np.array([1, 3, 8]), 2)
    >>> starts.tolist(), ends.tolist()
    ([1, 3, 5], [3, 6, 8])
    """
    counts = num_pieces(ends - starts, context)
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    begin = np.repeat(starts, counts) + number * context
    return begin, np.minimum(begin + context + 1, np.repeat(ends, counts))


def num_pieces(lengths: np.ndarray, context: int) -> np.ndarray:
    """(m,) how many of these `pieces` cuts sequences of so many ids into."""
    found: np.ndarray = -(-np.maximum(lengths - 1, 0) // context)
    return found


def _places(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) places of all pieces, one after the other, and (m + 1,) where they begin."""
    offsets = np.concatenate([[0], np.cumsum(ends - starts)])
    return np.repeat(starts - offsets[:-1], ends - starts) + np.arange(offsets[-1]), offsets
