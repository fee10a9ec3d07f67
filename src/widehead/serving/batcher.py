"""Requests that wait are answered together: a product of a matrix costs little more than one of a vector.

One thread computes. It takes what waits as soon as it is free, so that a lone request does not wait and a crowd is
answered in batches.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class Busy(RuntimeError):
    """So many requests wait that another one is refused; it may come again after so many seconds."""

    def __init__(self, waiting: int, retry_after: int) -> None:
        super().__init__(f"Expected fewer than {waiting} requests to wait. Found {waiting}; come again later.")
        self.retry_after = retry_after


class Closed(RuntimeError):
    """No more requests are taken."""

    def __init__(self) -> None:
        super().__init__("The server stops, and takes no more requests.")


class Batcher(Generic[Q, A]):
    """Answers requests of several threads in one thread of its own, some at a time, in the order in which they came.

    Args:
        answer: answers or exceptions of several requests, one each. If it raises, all have that.
        largest: inputs of a batch, at least one request.
        waiting: requests that may wait; others are refused.
        patience: seconds that a batch which is not full waits for more requests.
        size: inputs of a request.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Q]], Sequence[A | Exception]],
        *,
        largest: int = 64,
        waiting: int = 256,
        patience: float = 0.0,
        size: Callable[[Q], int] = lambda request: 1,
    ) -> None:
        self._answer, self._size = answer, size
        self.largest, self.waiting, self.patience = largest, waiting, patience
        self._queue: deque[tuple[Q, Future[A]]] = deque()
        self._change = threading.Condition()
        self._closed = False
        self._seconds = 0.0  # of a batch, lately
        self._thread = threading.Thread(target=self._work, name="widehead-batches", daemon=True)
        self._thread.start()

    def submit(self, request: Q) -> Future[A]:
        """The answer to come. Whoever no longer wants it cancels it.

        Raises:
            Busy: too many wait already.
            Closed: after `close`.
        """
        with self._change:
            if self._closed:
                raise Closed
            if len(self._queue) >= self.waiting:
                raise Busy(self.waiting, self._retry_after())
            future: Future[A] = Future()
            self._queue.append((request, future))
            self._change.notify_all()
        return future

    @property
    def count(self) -> int:
        """How many requests wait."""
        return len(self._queue)

    def close(self) -> None:
        """Take no more requests, and return when those that were taken are answered."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        self._thread.join()

    def _retry_after(self) -> int:
        batches = 1 + sum(self._size(request) for request, _ in self._queue) / self.largest
        return max(1, math.ceil(batches * self._seconds))

    def _work(self) -> None:
        while self._something_waits():
            if batch := self._taken():
                begin = time.perf_counter()
                self._settle(batch)
                self._seconds = 0.8 * self._seconds + 0.2 * (time.perf_counter() - begin)

    def _something_waits(self) -> bool:
        """After a while whether there is a batch to answer; False if there will be none."""
        with self._change:
            self._change.wait_for(lambda: self._queue or self._closed)
            if self.patience > 0.0:
                self._change.wait_for(self._is_full, self.patience)
            return bool(self._queue)

    def _is_full(self) -> bool:
        return self._closed or sum(self._size(request) for request, _ in self._queue) >= self.largest

    def _taken(self) -> list[tuple[Q, Future[A]]]:
        """The requests that begin the queue and fit in a batch, without those that nobody wants any more."""
        batch: list[tuple[Q, Future[A]]] = []
        room = self.largest
        with self._change:
            while self._queue and (not batch or self._size(self._queue[0][0]) <= room):
                request, future = self._queue.popleft()
                if future.set_running_or_notify_cancel():
                    batch.append((request, future))
                    room -= self._size(request)
        return batch

    def _settle(self, batch: Sequence[tuple[Q, Future[A]]]) -> None:
        try:
            answers = self._answer([request for request, _ in batch])
        except Exception as error:  # noqa: BLE001  whoever waits is told; the thread goes on
            answers = [error] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
