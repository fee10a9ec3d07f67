"""Batches of (inputs, targets): shuffled by seed and epoch, prepared by a thread, resumable at any batch."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeAlias

import numpy as np

from widehead.data.sparse import CSR
from widehead.split import Dealt, Runs
from widehead.targets import Inputs, SparseTargets

Batch: TypeAlias = tuple[Inputs, SparseTargets]


class Examples(Protocol):
    """A fixed number of examples. ``batch`` is a pure function of the rows, as another thread calls it."""

    def __len__(self) -> int:
        """Number of examples."""

    def batch(self, rows: np.ndarray) -> Batch:
        """Inputs and targets of the examples ``rows`` (m,), in that order."""


class RowExamples:
    """Rows of sparse matrices: the items of a user (input and target at once), or features and labels.

    Args:
        inputs: (n, N) scipy sparse matrix.
        targets: (n, D) scipy sparse matrix, or None if the inputs are the targets too.

    Stored values are passed on, unless all of them are ones; ``binary`` makes them so.

    Raises:
        ValueError: the matrices have different numbers of rows.
    """

    def __init__(self, inputs: CSR, targets: CSR | None = None) -> None:
        self._inputs = _Rows(inputs)
        self._targets = self._inputs if targets is None else _Rows(targets)
        if len(self._inputs) != len(self._targets):
            raise ValueError(
                f"Parameter `targets` should have as many rows as `inputs`. "
                f"Found {len(self._targets)} and {len(self._inputs)}."
            )

    def __len__(self) -> int:
        return len(self._inputs)

    @property
    def inputs(self) -> CSR:
        """(n, N) the inputs of all examples."""
        return self._inputs.matrix

    @property
    def targets(self) -> CSR:
        """(n, D) the targets of all examples."""
        return self._targets.matrix

    def batch(self, rows: np.ndarray) -> Batch:
        """Inputs and targets of the examples ``rows`` (m,), both SparseTargets; one object if they are the same."""
        inputs = self._inputs.select(rows)
        return inputs, inputs if self._targets is self._inputs else self._targets.select(rows)


class SharedExamples:
    """Examples of which several processes have some each: ``batch`` makes those of the rows that are here.

    Args:
        here: those of this process.
        among: all, and where these stand.
    """

    def __init__(self, here: Examples, among: Dealt | Runs) -> None:
        self.here, self.among = here, among

    def __len__(self) -> int:
        return self.among.total

    @property
    def inputs(self) -> CSR:
        """(k, N) the inputs of those here, of rows of matrices."""
        assert isinstance(self.here, RowExamples)
        return self.here.inputs

    def holds(self, rows: np.ndarray) -> np.ndarray:
        """(m,) bool whether each of the examples ``rows`` is here."""
        found: np.ndarray = self.among.owners_of(rows) == self.among.share.rank
        return found

    def in_turn(self, rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
        """Those of the examples ``rows`` that are here, ``size`` at a time, as often as any process has some."""
        owners = self.among.owners_of(rows)
        most, here = int(np.bincount(owners, minlength=1).max()), rows[owners == self.among.share.rank]
        return (here[start : start + size] for start in range(0, most, size))

    def batch(self, rows: np.ndarray) -> Batch:
        """Inputs and targets of those examples ``rows`` (m,) of all that are here, in that order."""
        return self.here.batch(self.among.places(rows))


class Batches:
    """Examples in batches, epoch by epoch.

    Args:
        examples: what to cut into batches.
        batch_size: examples of a batch; the last one of an epoch may be smaller.
        seed: of the shuffling. The order of epoch n depends on (seed, n) alone.
        prefetch: how many batches a thread prepares ahead; 0: no thread.
        share: which of so many examples of a batch are made here, if other processes make the others; None for all, or
            if `SharedExamples` say it themselves.

    Raises:
        ValueError: a parameter is out of range.
    """

    def __init__(
        self,
        examples: Examples,
        batch_size: int,
        seed: int = 0,
        *,
        prefetch: int = 4,
        share: Callable[[int], slice] | None = None,
    ) -> None:
        for name, value, least in (("batch_size", batch_size, 1), ("seed", seed, 0), ("prefetch", prefetch, 0)):
            if value < least:
                raise ValueError(f"Parameter `{name}` should be at least {least}. Found {value}.")
        self.examples, self.batch_size, self.seed = examples, batch_size, seed
        self.prefetch, self.share = prefetch, share

    def __len__(self) -> int:
        """Batches of one epoch."""
        return -(-len(self.examples) // self.batch_size)

    def rows(self, n: int, start: int = 0) -> Iterator[np.ndarray]:
        """The (m,) rows of each batch of epoch n, from batch ``start`` on; of `SharedExamples` those that are here."""
        if n < 0 or not 0 <= start <= len(self):
            raise ValueError(
                f"Epoch and start should be at least 0, and start at most {len(self)}. Found {n}, {start}."
            )
        count, size = len(self.examples), self.batch_size
        order = np.arange(count, dtype=np.int32 if count < 2**31 else np.int64)  # shuffled alike
        np.random.default_rng([self.seed, n]).shuffle(order)
        ends = np.minimum(np.arange(len(self) + 1) * size, count)
        if isinstance(self.examples, SharedExamples):
            held = self.examples.holds(order)
            ends = np.cumsum([0, *(np.count_nonzero(held[b * size : (b + 1) * size]) for b in range(len(self)))])
            order = order[held]
        return (order[ends[b] : ends[b + 1]].astype(np.int64) for b in range(start, len(self)))

    def epoch(self, n: int, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch n from batch ``start`` on: the same ones that come there in a run that started at 0.

        An error while a batch is prepared is raised here. Closing the iterator (or dropping it) stops the thread.
        """
        rows = self.rows(n, start)
        if (share := self.share) is not None:
            rows = (chosen[share(len(chosen))] for chosen in rows)
        return _ahead(self.examples, rows, self.prefetch) if self.prefetch else map(self.examples.batch, rows)


class _Rows:
    """A CSR matrix whose rows are picked quickly."""

    def __init__(self, matrix: CSR) -> None:
        self.matrix = matrix = matrix.tocsr()
        self.offsets, self.columns = matrix.indptr, matrix.indices
        self.values = None if bool((matrix.data == 1).all()) else matrix.data

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def select(self, rows: np.ndarray) -> SparseTargets:
        starts = self.offsets[rows].astype(np.int64)
        counts = self.offsets[rows + 1] - starts
        offsets = np.concatenate([[0], np.cumsum(counts)])
        picked = np.repeat(starts - offsets[:-1], counts) + np.arange(offsets[-1])
        values = None if self.values is None else self.values[picked]
        return SparseTargets(self.columns[picked].astype(np.int64), offsets, values)


def _ahead(examples: Examples, rows: Iterator[np.ndarray], limit: int) -> Iterator[Batch]:
    """The batches of ``rows``, prepared by a thread that is at most ``limit`` ahead."""
    pool = ThreadPoolExecutor(1, "widehead-batches")
    waiting: deque[Future[Batch]] = deque()
    try:
        for chosen in rows:
            waiting.append(pool.submit(examples.batch, chosen))
            if len(waiting) > limit:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
