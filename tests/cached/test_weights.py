"""The cached record against dense layers: every loss and optimiser in float64, hostile hidden layers in float32."""

from __future__ import annotations

import copy
import math
import pickle
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import test_optimizer_table as table
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.properties import TABLE, Batch, Row, batch, dense_loss, dense_mean, head_loss, relative
from torch import Tensor

import widehead as wh
from widehead.cached import CachedWeights, cached_everywhere
from widehead.errors import WideheadWarning
from widehead.factored import FactoredWeights

SQUARED = TABLE[0]
TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-5}


@pytest.fixture(autouse=True)
def _cached() -> Iterator[None]:
    with cached_everywhere(), warnings.catch_warnings():
        warnings.simplefilter("ignore", WideheadWarning)
        yield


def made(
    row: Row, d: int, classes: int, dtype: torch.dtype = torch.float64, *, bias: bool = False, **options: Any
) -> tuple[wh.ExactHead, Tensor]:
    """A head with a cached record, and its W with the bias (D, d + bias) in float64."""
    generator = torch.Generator().manual_seed(0)
    dense = torch.randn(classes, d + bias, generator=generator, dtype=torch.float64) / d**0.5
    head = wh.ExactHead(d, classes, row.make(), dtype=dtype, bias=bias, **options)
    head.load_weight(dense[:, :d], dense[:, d] if bias else None)
    assert isinstance(head.weights, CachedWeights)
    return head, dense.to(dtype).double()


def record(head: wh.ExactHead) -> CachedWeights:
    assert isinstance(head.weights, CachedWeights)
    return head.weights


def widened(b: Batch, bias: bool) -> Batch:
    return Batch(torch.nn.functional.pad(b.hidden, (0, int(bias)), value=1.0), b.ids, b.values)


PLAIN = table.Kind("sgd", wh.optim.SGD, table.reference.DenseSGD, {"lr": 0.03})
KINDS = pytest.mark.parametrize("kind", [PLAIN, *table.KINDS], ids=lambda kind: kind.name)


@KINDS
@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_steps_equal_those_of_the_dense_twin(kind: table.Kind, row: Row) -> None:
    """m below and above d, with and without bias, ragged targets; segments end and passes over V come between."""
    for bias in (False, True):
        head, dense = made(row, 7, 40, bias=bias)
        optimizer, twin = kind.make(head), kind.twin(dense)
        generator = torch.Generator().manual_seed(7)
        for step in range(8):
            b = batch(row, generator, 19 if step % 3 == 2 else 4, 7, 40, dominant=2.0)
            head_loss(head, b)[0].backward()
            wide = widened(b, bias)
            twin.step(wide.hidden, *table.partials(row, twin.weight, wide))
            optimizer.step()
            if step % 3 == 1:
                record(head).close_segment()
        assert record(head).moved_rows == 40, "one pass over V"
        present = record(head).dense().clone()
        assert relative(present, twin.weight) < 1e-11
        drift = head.audit()
        assert max(drift.gram, drift.column_sum) < 1e-11
        assert relative(torch.column_stack([head.weight(), *([head.bias()] if bias else [])]), present) < 1e-14
        if "momentum" in kind.options:
            momentum = twin.optimizer.state[twin.parameter]["momentum_buffer"]
            assert relative(head.weights.momentum(), momentum) < 1e-11


# -- float32, hostile hidden layers -------------------------------------------------------------------------------


def ordinary(step: int, m: int, d: int, generator: torch.Generator) -> Tensor:
    return 0.5 * torch.randn(m, d, generator=generator, dtype=torch.float64)


def _direction(step: int, d: int) -> Tensor:
    """A direction that turns slowly."""
    found = torch.cos(torch.arange(d, dtype=torch.float64) * (1 + 1e-4 * step))
    return found * math.sqrt(d) / found.norm()


def dominated(step: int, m: int, d: int, generator: torch.Generator) -> Tensor:
    noise = torch.randn(m, d + 1, generator=generator, dtype=torch.float64)
    return 0.3 * noise[:, :d] + 0.3 * (1 + 0.2 * noise[:, d:]) * _direction(step, d)


def rank_one(step: int, m: int, d: int, generator: torch.Generator) -> Tensor:
    return 0.02 * torch.randn(m, d, generator=generator, dtype=torch.float64) + 0.5 * _direction(step, d)


def popular(m: int, k: int, classes: int, generator: torch.Generator) -> Tensor:
    """(m, k) classes, few of them often."""
    ids = torch.expm1(torch.rand(m, k, generator=generator) * math.log1p(classes)).long().clamp(max=classes - 1)
    return (ids + torch.arange(k) * 7919) % classes


def squared_step(weight: Tensor, hidden: Tensor, ids: Tensor, lr: float) -> Tensor:
    """A dense step of the mean squared error, in the type of W."""
    m = hidden.shape[0]
    by_outputs = hidden @ weight.T
    by_outputs.scatter_add_(1, ids, by_outputs.new_full((1, 1), -1.0).expand(ids.shape))
    return weight - (2.0 * lr / m) * by_outputs.T @ hidden


@pytest.mark.parametrize(
    ("make", "share"),
    [
        *((ordinary, share) for share in (0.1, 0.5)),
        *((dominated, share) for share in (0.1, 0.5, 0.9)),
        *((rank_one, share) for share in (0.5, 0.95)),
    ],
)
@pytest.mark.parametrize("steps", [300, pytest.param(5_000, marks=pytest.mark.slow)])
def test_float32_is_as_exact_as_a_dense_layer_of_float32(make: Callable[..., Tensor], share: float, steps: int) -> None:
    """``share`` of the largest stable step; W may be off by twice what a dense float32 layer is off by."""
    classes, d, m = 1500, 32, 16
    head, dense = made(SQUARED, d, classes, torch.float32)
    single = dense.float()
    samples = [make(t, m, d, torch.Generator().manual_seed(99)) for t in (0, 7)]
    lr = share * min(m / float(torch.linalg.matrix_norm(h, ord=2)) ** 2 for h in samples)
    optimizer, generator = wh.optim.SGD(head, lr=lr), torch.Generator().manual_seed(1)
    for step in range(steps):
        hidden, ids = make(step, m, d, generator).float(), popular(m, 2, classes, generator)
        dense = squared_step(dense, hidden.double(), ids, lr)
        single = squared_step(single, hidden, ids, lr)
        head(hidden, ids).backward()
        optimizer.step()
    wrong, allowed = relative(record(head).dense(), dense), relative(single, dense)
    print(f"{make.__name__}, {share} of stable, {steps} steps: W off by {wrong:.1e}, dense float32 {allowed:.1e}")
    assert wrong < 2.0 * allowed
    drift = head.audit()
    assert max(drift.gram, drift.column_sum) < 1e-7 * steps**0.5, "rounding of one step after another"
    assert record(head).closes >= steps // 32


# -- any order of what may happen ---------------------------------------------------------------------------------

D, WIDTH = 50, 5


class Beside:
    """A head and what its W should be, after SGD's steps."""

    def __init__(self, row: Row, dtype: torch.dtype) -> None:
        self.row, self.seed = row, 0
        self.head, self.dense = made(row, WIDTH, D, dtype)
        self.optimizer = wh.optim.SGD(self.head, lr=0.05, weight_decay=0.01)
        self.summed = torch.zeros_like(self.dense)

    def passed(self, most: int, m: int = 6) -> None:
        """A backward pass, with up to ``most`` targets an example."""
        self.seed += 1
        b = batch(self.row, torch.Generator().manual_seed(self.seed), m, WIDTH, D, most)
        if self.row.make().needs_targets and not any(b.ids):
            return
        loss, _ = head_loss(self.head, b)
        loss.backward()
        expected, _, leaf = dense_loss(self.row, self.dense, b)
        mean = dense_mean(expected, self.row, b)
        mean.backward()
        assert leaf.grad is not None
        assert abs(float(loss.detach()) - float(mean.detach())) <= 1e-4 * (1 + abs(float(mean.detach())))
        self.summed += leaf.grad

    def step(self) -> None:
        pends = self.head.pending_gradient() is not None
        self.optimizer.step()
        if pends:
            self.dense = (1 - 0.05 * 0.01) * self.dense - 0.05 * self.summed
        self.summed = torch.zeros_like(self.dense)

    def drop(self) -> None:
        self.optimizer.zero_grad()
        self.summed = torch.zeros_like(self.dense)

    def renewed(self, head: wh.ExactHead) -> None:
        """A copy; what is pending goes with it."""
        self.head = head
        self.optimizer = wh.optim.SGD(head, lr=0.05, weight_decay=0.01)

    def through_factored(self) -> None:
        """By the state_dict into a head whose record is the CPU's, a step of nothing there, and back."""
        self.drop()
        other, _ = made(self.row, WIDTH, D, self.head.dtype)
        other._weights = other.weights.factored()
        assert isinstance(other.weights, FactoredWeights)
        other.load_state_dict(copy.deepcopy(self.head.state_dict()))
        self.head.load_state_dict(copy.deepcopy(other.state_dict()))

    def momentum(self) -> None:
        self.drop()
        self.head.keep_momentum(True)
        self.head.keep_momentum(False)

    def retyped(self) -> None:
        self.drop()
        dtype = self.head.dtype
        self.head.to(torch.float64).to(dtype)

    def load(self) -> None:
        self.drop()
        self.dense = (0.5 * self.dense).to(self.head.dtype).double()
        self.head.load_weight(self.dense)

    def read(self) -> None:
        """What is read of W leaves it and the cache as they are, and is that of the dense layer."""
        head, used = self.head, record(self.head).kept.used
        hidden = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(self.seed), dtype=torch.float64)
        h, near = hidden.to(head.dtype), TOLERANCE[head.dtype]
        scores = head.loss.score(hidden @ self.dense.T)
        assert relative(head.scores(h), scores) < near
        assert relative(head.top_k(h, 7)[0], scores.topk(7).values) < near
        ids = [[1, 2, 2], [], [D - 1]]
        with torch.no_grad():
            losses = head(h, ids, reduction="none")
        values = [[1.0] * len(row) for row in ids] if self.row.valued else None
        assert relative(losses, self.row.dense(hidden @ self.dense.T, ids, values)) < 10 * near
        if head.loss.has_probabilities:
            with torch.no_grad():  # otherwise it may be a loss
                found = head.log_prob(h, torch.tensor([[0], [3], [9]]))
            assert relative(found, scores.log_softmax(1)[[0, 1, 2], [0, 3, 9], None]) < near
        head.eval()
        evaluated = head(h.requires_grad_(), ids, reduction="none")
        evaluated.sum().backward()
        head.train()
        assert record(head).kept.used == used, "nothing of that is to be learnt from"
        learning = head(h, ids, reduction="none")
        assert relative(learning, evaluated) < near


ACTIONS: dict[str, Callable[[Beside], object]] = {
    "step": lambda b: (b.passed(3), b.step()),
    "without targets": lambda b: (b.passed(0), b.step()),
    "thousands of targets": lambda b: (b.passed(400, 9), b.step()),
    "pass": lambda b: b.passed(2),
    "no examples": lambda b: (b.passed(2, 0), b.step()),
    "drop": lambda b: b.drop(),
    "close": lambda b: record(b.head).close_segment(),
    "consolidate": lambda b: b.head.consolidate(),
    "state": lambda b: b.through_factored(),
    "copy": lambda b: b.renewed(copy.deepcopy(b.head)),
    "pickle": lambda b: b.renewed(pickle.loads(pickle.dumps(b.head))),  # noqa: S301
    "momentum": lambda b: b.momentum(),
    "load": lambda b: b.load(),
    "read": lambda b: b.read(),
    "another type and back": lambda b: b.retyped(),
    "weight": lambda b: b.head.weight(),
}


@settings(max_examples=15)
@given(
    st.lists(st.sampled_from(list(ACTIONS)), min_size=4, max_size=14),
    st.sampled_from([torch.float64, torch.float32]),
    st.sampled_from([TABLE[0], TABLE[3], TABLE[4], TABLE[8]]),
)
def test_whatever_comes_between_w_is_the_same(actions: list[str], dtype: torch.dtype, row: Row) -> None:
    beside = Beside(row, dtype)
    for action in actions:
        ACTIONS[action](beside)
    beside.step()
    assert relative(record(beside.head).dense(), beside.dense) < TOLERANCE[dtype]
    drift = beside.head.audit()
    assert max(drift.gram, drift.column_sum) < TOLERANCE[dtype]


NARROW: dict[str, Callable[[wh.ExactHead], object]] = {
    "nothing": lambda head: None,
    "close": lambda head: record(head).close_segment(),
    "consolidate": lambda head: head.consolidate(),
    "state": lambda head: head.load_state_dict(copy.deepcopy(head.state_dict())),
}


@settings(max_examples=12)
@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 2, 90]), st.sampled_from(list(NARROW))), min_size=3, max_size=12),
    st.sampled_from([0.0, 0.9]),
)
def test_of_rows_in_bfloat16_q_is_that_of_what_is_stored(steps: list[tuple[int, str]], momentum: float) -> None:
    """Classes come several times, among so many targets an example; they are rounded alike, and Q takes note."""
    head, _ = made(SQUARED, WIDTH, D, torch.float32, storage_dtype=torch.bfloat16)
    optimizer = wh.optim.SGD(head, lr=0.05, momentum=momentum)
    for step, (targets, action) in enumerate(steps):
        generator = torch.Generator().manual_seed(step)
        hidden, ids = torch.randn(6, WIDTH, generator=generator), torch.randint(0, D, (6, targets), generator=generator)
        head(hidden, ids.repeat(1, 2)).backward()
        optimizer.step()
        NARROW[action](head)
        drift = head.audit()
        assert max(drift.gram, drift.column_sum) < 1e-5
    head.consolidate()
    stored = head.weights.values
    assert stored.dtype == torch.bfloat16
    assert torch.equal(head.weights.dense(slice(None)), stored.float() + head.weights.small.shift)
    again = copy.deepcopy(head)
    again.consolidate()
    assert torch.equal(again.weights.values, stored), "what is in bfloat16 already stays"


def test_a_pass_without_targets_before_the_first_cache_is_not_lost() -> None:
    """The cache is made by a forward pass that comes between a backward pass and its step."""
    head, dense = made(SQUARED, WIDTH, D)
    optimizer, hidden = wh.optim.SGD(head, lr=0.1), torch.randn(4, WIDTH, dtype=torch.float64)
    head(hidden, [[]] * 4).backward()
    head(hidden, [[1]] * 4)
    optimizer.step()
    assert relative(head.weight(), dense - 0.1 * (2 / 4) * (hidden @ dense.T).T @ hidden) < 1e-12


@pytest.mark.parametrize("forwards", [1, 2])
def test_a_pass_before_the_cache_grows_is_not_lost(forwards: int) -> None:
    """Its rows have other places when its step, or its backward pass, comes."""
    head, dense = made(SQUARED, WIDTH, D)
    optimizer, hidden = wh.optim.SGD(head, lr=0.1), torch.randn(4, WIDTH, dtype=torch.float64)
    head(hidden, [[1]] * 4).backward()
    optimizer.zero_grad()
    places = record(head).kept.places
    loss = head(hidden, [[2], [2], [3], [1]])
    if forwards == 1:
        loss.backward()
    targets = torch.nn.functional.one_hot(torch.tensor([2, 2, 3, 1]), D)
    head(hidden, [list(range(40))] * 4)
    assert record(head).kept.places > places
    if forwards == 2:
        loss.backward()
    optimizer.step()
    assert relative(head.weight(), dense - 0.1 * (2 / 4) * (hidden @ dense.T - targets).T @ hidden) < 1e-12


def test_squared_norms_of_no_outputs_are_not_below_zero() -> None:
    """W·h = 0, and QH·h in float32 is as often below 0 as above."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(200, WIDTH, generator=generator)
    head, _ = made(SQUARED, WIDTH, D, torch.float32)
    direction = normal[0] / normal[0].norm()
    weight = head.weight()
    head.load_weight(weight - torch.outer(weight @ direction, direction))
    with torch.no_grad():
        q = head.statistics(torch.linspace(1.0, 50.0, 400)[:, None] * direction, [[]] * 400)[0]
    assert bool((q >= 0.0).all())
    assert float(q.max()) < 1e-2


@pytest.mark.parametrize("storage", [None, torch.bfloat16])
def test_forward_passes_without_steps_end(monkeypatch: pytest.MonkeyPatch, storage: torch.dtype | None) -> None:
    """The cache is not without end, but for rows that would be rounded; the pass that is stepped on stays valid."""
    monkeypatch.setattr("widehead.cached.weights._MOST_PLACES", 8)
    head, dense = made(SQUARED, WIDTH, D, torch.float32, storage_dtype=storage)
    optimizer, hidden = wh.optim.SGD(head, lr=0.1), torch.randn(4, WIDTH)
    dense = head.weight().double()
    loss = head(hidden, [[1], [2], [3], [4]])
    for _ in range(40):
        head(hidden, [[1], [2], [3], [4]])
    assert (record(head).kept.places <= 64, record(head).closes > 0) == ((storage is None,) * 2)
    loss.backward()
    optimizer.step()
    errors = hidden.double() @ dense.T - torch.nn.functional.one_hot(torch.arange(1, 5), D)
    found = record(head).dense(slice(None))
    near = 1e-6 if storage is None else 4e-3  # the step ends the segment, and rounds rows
    assert relative(found, dense - 0.1 * (2 / 4) * errors.T @ hidden.double()) < near


def test_a_segment_ends_before_the_cache_is_too_small_for_a_step_like_the_last() -> None:
    """So that it never grows in a training with batches of about one size."""
    head, _ = made(SQUARED, WIDTH, D)
    optimizer, hidden = wh.optim.SGD(head, lr=0.01), torch.randn(2, WIDTH, dtype=torch.float64)
    seen, made_in_segment = [], []
    for step in range(60):
        head(hidden, [[1, 2, 3], [4] if step == 0 else [4, 5]]).backward()
        optimizer.step()
        seen.append(record(head).kept.places)
        made_in_segment.append(record(head).segment_steps)
    assert set(seen) == {4 * 32}
    assert made_in_segment[:3] == [1, 2, 3]
    assert max(made_in_segment) == 24, "of 5 targets each, but the first; then a place is short for one more"
