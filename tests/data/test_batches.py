"""Batches: order, resuming, the thread, rows of matrices."""

from __future__ import annotations

import threading
import time
from itertools import chain

import numpy as np
import pytest
import scipy.sparse
import torch

from widehead.data import Batches, RowExamples
from widehead.targets import SparseTargets


class Numbers:
    """Example i is the number i; notes how many batches were made, and fails when told."""

    def __init__(self, n: int, fails_at: int = -1) -> None:
        self.n, self.fails_at, self.made = n, fails_at, 0

    def __len__(self) -> int:
        return self.n

    def batch(self, rows: np.ndarray) -> tuple[torch.Tensor, SparseTargets]:
        if self.made == self.fails_at:
            raise ArithmeticError("made to fail")
        self.made += 1
        ids = torch.from_numpy(rows)
        return ids[:, None], SparseTargets.from_ids(ids)


def numbers(batches: Batches, n: int, start: int = 0) -> list[list[int]]:
    return [targets.class_ids.tolist() for _, targets in batches.epoch(n, start)]


def threads() -> int:
    return sum(t.name.startswith("widehead-batches") for t in threading.enumerate())


@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_an_epoch_has_every_example_once(prefetch: int) -> None:
    batches = Batches(Numbers(23), 5, seed=1, prefetch=prefetch)
    found = numbers(batches, 0)
    assert [len(b) for b in found] == [5, 5, 5, 5, 3]
    assert len(batches) == 5
    order = [i for batch in found for i in batch]
    assert sorted(order) == list(range(23))
    assert order != list(range(23))
    assert threads() == 0


def test_shares_of_batches_are_the_batches() -> None:
    """Of three processes that have a third of each batch, or nearly."""
    whole = numbers(Batches(Numbers(23), 5, seed=1), 0)
    parts = [
        numbers(Batches(Numbers(23), 5, seed=1, share=lambda m, r=r: slice(r * m // 3, (r + 1) * m // 3)), 0)
        for r in range(3)
    ]
    assert [list(chain(*of_batch)) for of_batch in zip(*parts, strict=True)] == whole
    assert max(len(part) for of_one in parts for part in of_one) == 2


def test_orders_depend_on_seed_and_epoch_alone() -> None:
    one, same, other = (Batches(Numbers(40), 8, seed=s) for s in (3, 3, 4))
    assert numbers(one, 2) == numbers(same, 2)
    assert numbers(one, 2) != numbers(one, 1)
    assert numbers(one, 2) != numbers(other, 2)
    assert [rows.tolist() for rows in one.rows(2)] == numbers(one, 2)


@pytest.mark.parametrize("start", [0, 1, 4, 5])
def test_resuming_gives_the_same_batches(start: int) -> None:
    batches = Batches(Numbers(23), 5, seed=7)
    assert numbers(batches, 3, start) == numbers(batches, 3)[start:]


def test_the_last_batch_may_be_smaller() -> None:
    assert [len(batch) for batch in numbers(Batches(Numbers(5), 2), 9)] == [2, 2, 1]
    assert len(Batches(Numbers(5), 2)) == 3
    assert numbers(Batches(Numbers(0), 2), 0) == []


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_errors_reach_the_consumer_after_the_batches_before_them(prefetch: int) -> None:
    epoch = Batches(Numbers(50, fails_at=4), 5, prefetch=prefetch).epoch(0)
    for _ in range(4):
        next(epoch)
    with pytest.raises(ArithmeticError, match="made to fail"):
        next(epoch)
    assert threads() == 0


@pytest.mark.parametrize("prefetch", [1, 3])
@pytest.mark.parametrize("taken", [0, 1, 7])
def test_a_consumer_that_stops_early_stops_the_thread(prefetch: int, taken: int) -> None:
    examples = Numbers(10_000)
    epoch = Batches(examples, 5, prefetch=prefetch).epoch(0)
    for _ in range(taken):
        next(epoch)
    epoch.close()  # type: ignore[attr-defined]
    assert threads() == 0
    assert examples.made <= taken + prefetch + 3


def test_leaving_a_loop_stops_the_thread() -> None:
    for _ in Batches(Numbers(10_000), 5).epoch(0):
        break
    for _ in range(100):  # the iterator is dropped at once here, but only CPython promises that
        if threads() == 0:
            break
        time.sleep(0.05)
    assert threads() == 0


def test_the_thread_works_ahead_but_not_too_far() -> None:
    examples = Numbers(10_000)
    epoch = Batches(examples, 5, prefetch=3).epoch(0)
    next(epoch)
    for _ in range(100):
        if examples.made >= 4:
            break
        time.sleep(0.05)
    assert 4 <= examples.made <= 5
    epoch.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"batch_size": 0}, "`batch_size`"), ({"seed": -1}, "`seed`"), ({"prefetch": -1}, "`prefetch`")],
)
def test_wrong_arguments(arguments: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=f"{words} should be at least"):
        Batches(Numbers(3), **{"batch_size": 2, **arguments})


@pytest.mark.parametrize(("n", "start"), [(-1, 0), (0, -1), (0, 3)])
def test_epochs_that_there_are_not(n: int, start: int) -> None:
    with pytest.raises(ValueError, match="should be at least 0, and start at most 2"):
        Batches(Numbers(3), 2).epoch(n, start)


def test_rows_of_matrices_equal_slicing() -> None:
    generator = np.random.default_rng(0)
    features = scipy.sparse.random(30, 12, 0.3, "csr", random_state=1, dtype=np.float32)
    labels = scipy.sparse.csr_matrix((generator.random((30, 7)) < 0.3).astype(np.float32))
    examples = RowExamples(features, labels)
    rows = generator.permutation(30)[:11]
    inputs, targets = examples.batch(rows)
    assert isinstance(inputs, SparseTargets)
    assert np.allclose(inputs.to_csr(12).toarray(), features[rows].toarray())
    assert np.array_equal(targets.to_csr(7).toarray(), labels[rows].toarray())
    assert inputs.values is not None
    assert inputs.values.dtype == torch.float32
    assert targets.values is None  # all ones
    assert len(examples) == 30


def test_inputs_are_the_targets_of_an_autoencoder() -> None:
    examples = RowExamples(scipy.sparse.csr_matrix(np.eye(3)))
    inputs, targets = examples.batch(np.array([2, 0]))
    assert inputs is targets
    assert targets.to_lists() == [[2], [0]]


def test_empty_rows_and_no_rows() -> None:
    examples = RowExamples(scipy.sparse.csr_matrix((4, 5)))
    assert examples.batch(np.array([1, 3]))[1].to_lists() == [[], []]
    assert examples.batch(np.array([], dtype=np.int64))[1].to_lists() == []


def test_matrices_of_different_heights_are_refused() -> None:
    with pytest.raises(ValueError, match=r"as many rows as `inputs`\. Found 2 and 3"):
        RowExamples(scipy.sparse.csr_matrix((3, 1)), scipy.sparse.csr_matrix((2, 1)))
