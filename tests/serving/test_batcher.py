"""Batches of waiting requests: order, sizes, refusals, errors, an orderly end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from typing import Any

import pytest

from widehead.serving import Batcher, Busy, Closed


class Held:
    """Answers twice each number, and batches of which the first waits until it may go on."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered, self.go = threading.Event(), threading.Event()

    def __call__(self, requests: Sequence[int]) -> list[Any]:
        self.batches.append(list(requests))
        self.entered.set()
        assert self.go.wait(10)
        return [ValueError(f"no {n}") if n < 0 else 2 * n for n in requests]


@pytest.fixture
def held() -> Iterator[Held]:
    made = Held()
    yield made
    made.go.set()


def test_what_waits_is_answered_together_in_order(held: Held) -> None:
    batcher = Batcher(held, largest=4)
    first = batcher.submit(0)
    assert held.entered.wait(10)
    others = [batcher.submit(n) for n in range(1, 11)]
    assert batcher.count == 10
    held.go.set()
    assert [future.result(10) for future in [first, *others]] == list(range(0, 22, 2))
    assert held.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]


def test_a_batch_holds_so_many_inputs_and_one_request_at_least(held: Held) -> None:
    batcher = Batcher(held, largest=4, size=lambda n: n)
    batcher.submit(1)
    assert held.entered.wait(10)
    futures = [batcher.submit(n) for n in (2, 2, 1, 9, 3, 1)]
    held.go.set()
    assert [future.result(10) for future in futures] == [4, 4, 2, 18, 6, 2]
    assert held.batches == [[1], [2, 2], [1], [9], [3, 1]]


def test_too_many_are_refused_until_there_is_room(held: Held) -> None:
    batcher = Batcher(held, largest=2, waiting=3)
    batcher.submit(0)
    assert held.entered.wait(10)
    futures = [batcher.submit(n) for n in (1, 2, 3)]
    with pytest.raises(Busy, match="fewer than 3 requests to wait") as refused:
        batcher.submit(4)
    assert refused.value.retry_after >= 1
    held.go.set()
    assert [future.result(10) for future in futures] == [2, 4, 6]
    assert batcher.submit(5).result(10) == 10


def test_an_error_is_of_its_request_alone(held: Held) -> None:
    batcher = Batcher(held)
    held.go.set()
    futures = [batcher.submit(n) for n in (1, -2, 3)]
    assert (futures[0].result(10), futures[2].result(10)) == (2, 6)
    with pytest.raises(ValueError, match="no -2"):
        futures[1].result(10)


def test_a_failure_is_told_to_all_and_does_not_end_the_thread() -> None:
    def answer(requests: Sequence[int]) -> list[int]:
        if 13 in requests:
            raise RuntimeError("broken")
        return list(requests)

    batcher = Batcher(answer)
    with pytest.raises(RuntimeError, match="broken"):
        batcher.submit(13).result(10)
    assert batcher.submit(1).result(10) == 1


def test_what_nobody_wants_any_more_is_not_computed(held: Held) -> None:
    batcher = Batcher(held)
    batcher.submit(0)
    assert held.entered.wait(10)
    dropped, kept = batcher.submit(1), batcher.submit(2)
    assert dropped.cancel()
    held.go.set()
    assert kept.result(10) == 4
    assert held.batches == [[0], [2]]
    with pytest.raises(CancelledError):
        dropped.result(1)


def test_the_end_comes_when_all_that_was_taken_is_answered(held: Held) -> None:
    batcher = Batcher(held, largest=1)
    futures = [batcher.submit(n) for n in range(4)]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    assert held.entered.wait(10)
    while not batcher._closed:
        time.sleep(0.001)
    with pytest.raises(Closed, match="takes no more requests"):
        batcher.submit(9)
    assert closing.is_alive()
    held.go.set()
    closing.join(10)
    assert [future.result(0) for future in futures] == [0, 2, 4, 6]
    batcher.close()


def test_a_patient_batch_waits_until_it_is_full_and_not_longer() -> None:
    batches = []

    def answer(requests: Sequence[int]) -> list[int]:
        batches.append(list(requests))
        return list(requests)

    batcher = Batcher(answer, largest=3, patience=5.0)
    begin = time.perf_counter()
    futures = [batcher.submit(n) for n in range(3)]
    assert [future.result(10) for future in futures] == [0, 1, 2]
    assert time.perf_counter() - begin < 4.0
    assert batches == [[0, 1, 2]]
    hurried = Batcher(answer, largest=3, patience=0.05)
    begin = time.perf_counter()
    assert hurried.submit(7).result(10) == 7
    assert time.perf_counter() - begin >= 0.05


def test_many_threads_get_their_own_answers() -> None:
    batcher = Batcher(lambda requests: [n * n for n in requests], largest=8, waiting=10_000)
    wrong: list[int] = []

    def ask(start: int) -> None:
        futures = [(n, batcher.submit(n)) for n in range(start, start + 200)]
        wrong.extend(n for n, future in futures if future.result(10) != n * n)

    threads = [threading.Thread(target=ask, args=(1000 * i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
