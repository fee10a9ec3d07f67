"""Every optimiser × loss × dtype against its dense float64 twin."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from support import reference
from support.optimizers import KINDS, Kind, partials
from support.properties import DEVICE, DTYPES, TABLE, Batch, Row, batch, head_loss, make_head, relative

import widehead as wh
from widehead.errors import NonFiniteError, UnstableStepWarning

D, WIDTH, M = 80, 12, 9
TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-5}
LENGTHS = [21, pytest.param(42, marks=pytest.mark.long), pytest.param(2_000, marks=pytest.mark.slow)]
ROWS = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
TYPES = pytest.mark.parametrize("dtype", DTYPES, ids=str)
EVERY = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
PRECONDITIONED = pytest.mark.parametrize(
    "kind",
    [kind for kind in KINDS if issubclass(kind.dense, reference.DensePreconditioned)],
    ids=lambda kind: kind.name,
)


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnstableStepWarning)
        yield


@EVERY
@ROWS
@TYPES
@pytest.mark.parametrize("steps", LENGTHS)
def test_steps_equal_those_of_the_dense_twin(kind: Kind, row: Row, dtype: torch.dtype, steps: int) -> None:
    """Batches of changing size (smaller and larger than d) with one dominant direction and ragged targets."""
    head, weight = make_head(row, WIDTH, D, dtype)
    optimizer, twin = kind.make(head), kind.twin(weight)
    generator = torch.Generator().manual_seed(7)
    for step in range(steps):
        b = batch(row, generator, 25 if step % 5 == 4 else M, WIDTH, D, dominant=3.0)
        head_loss(head, b)[0].backward()
        twin.step(b.hidden, *partials(row, twin.weight, b))
        optimizer.step()
    drift = head.audit()
    print(f"{kind.name}, {row.name}, {dtype}: W {relative(head.weight(), twin.weight):.1e}, {drift}")
    assert relative(head.weight(), twin.weight) < TOLERANCE[dtype]
    assert max(drift.gram, drift.column_sum, drift.inverse) < TOLERANCE[dtype]
    if isinstance(optimizer, wh.optim.Preconditioned):
        assert optimizer.trust()[0].steps == steps
        assert abs(optimizer.trust()[0].scaled_back - twin.scaled_back) <= 1 + steps // 100
    elif "momentum" in kind.options and dtype == torch.float64:
        momentum = twin.optimizer.state[twin.parameter]["momentum_buffer"]
        assert relative(head.weights.momentum(), momentum) < TOLERANCE[dtype]


@PRECONDITIONED
@pytest.mark.parametrize("row", [TABLE[2], TABLE[3], TABLE[5]], ids=lambda row: row.name)
def test_steps_that_are_scaled_back_equal_those_of_the_dense_twin(kind: Kind, row: Row) -> None:
    head, weight = make_head(row, WIDTH, D, torch.float64)
    optimizer, twin = kind.make(head, lr=20.0, weight_decay=0.0), kind.twin(weight)
    twin.lr, twin.weight_decay = 20.0, 0.0
    generator = torch.Generator().manual_seed(5)
    for step in range(12):
        b = batch(row, generator, 25 if step % 5 == 4 else M, WIDTH, D)
        head_loss(head, b)[0].backward()
        twin.step(b.hidden, *partials(row, twin.weight, b))
        optimizer.step()
        assert relative(head.weight(), twin.weight) < 1e-9
    assert isinstance(optimizer, wh.optim.Preconditioned)
    assert optimizer.trust()[0].scaled_back == twin.scaled_back > 0


@PRECONDITIONED
@pytest.mark.parametrize("first", [21, 22, 23])
def test_targets_that_come_between_two_renewals_of_r_count_by_their_bound(kind: Kind, first: int) -> None:
    row = TABLE[3]
    head, weight = make_head(row, WIDTH, D, torch.float64)
    optimizer, twin = kind.make(head), kind.twin(weight)
    generator = torch.Generator().manual_seed(6)
    for step in range(26):
        b = batch(row, generator, M, WIDTH, D, most=4 if step >= first else 0)
        head_loss(head, b)[0].backward()
        twin.step(b.hidden, *partials(row, twin.weight, b))
        optimizer.step()
    assert relative(head.weight(), twin.weight) < 1e-11


@PRECONDITIONED
def test_batches_that_name_no_class_are_not_held_to_the_targets_of_those_before(kind: Kind) -> None:
    row = TABLE[2]
    head, weight = make_head(row, WIDTH, D, torch.float64)
    optimizer, twin = kind.make(head, lr=20.0, weight_decay=0.0), kind.twin(weight)
    twin.lr, twin.weight_decay = 20.0, 0.0
    generator = torch.Generator().manual_seed(6)
    for step in range(12):
        b = batch(row, generator, M, WIDTH, D, most=0 if step in (5, 8) else 4)
        head_loss(head, b)[0].backward()
        twin.step(b.hidden, *partials(row, twin.weight, b))
        optimizer.step()
        assert relative(head.weight(), twin.weight) < 1e-9


def train(head: wh.ExactHead, optimizer: torch.optim.Optimizer, row: Row, first: int, steps: int) -> None:
    for t in range(first, first + steps):
        b = batch(row, torch.Generator().manual_seed(t), M, head.in_features, head.num_classes, dominant=3.0)
        optimizer.zero_grad()
        head_loss(head, b)[0].backward()
        optimizer.step()


@EVERY
@ROWS
@TYPES
def test_state_dicts_go_on_bit_equal_from_the_middle(kind: Kind, row: Row, dtype: torch.dtype) -> None:
    head, _ = make_head(row, WIDTH, D, dtype)
    optimizer = kind.make(head)
    train(head, optimizer, row, 0, 13)  # R is renewed at every second step by then, and not at the last one
    saved = copy.deepcopy((head.state_dict(), optimizer.state_dict()))
    other = wh.ExactHead(WIDTH, D, row.make(), dtype=dtype, device=DEVICE)
    other_optimizer = kind.make(other, lr=77.0)
    other.load_state_dict(saved[0])
    other_optimizer.load_state_dict(saved[1])
    assert other_optimizer.param_groups[0]["lr"] == kind.options["lr"]
    train(head, optimizer, row, 13, 4)
    train(other, other_optimizer, row, 13, 4)
    for name, tensor in head.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


@EVERY
@ROWS
@TYPES
def test_backward_passes_add_up_and_are_clipped_by_the_exact_norm(kind: Kind, row: Row, dtype: torch.dtype) -> None:
    head, weight = make_head(row, WIDTH, D, dtype)
    optimizer, twin = kind.make(head, max_grad_norm=0.3), kind.twin(weight)
    generator = torch.Generator().manual_seed(8)
    for _ in range(4):
        parts = [batch(row, generator, m, WIDTH, D) for m in (3, 8)]
        for part in parts:
            head_loss(head, part)[0].backward()
        both = [torch.cat(tensors) for tensors in zip(*(partials(row, twin.weight, p) for p in parts), strict=True)]
        hidden = torch.cat([part.hidden for part in parts])
        norm = (both[0].T @ hidden).norm()
        assert abs(float(head.grad_norm()) - float(norm)) < 1e-4 * float(norm)
        factor = min(1.0, 0.3 / (float(norm) + 1e-6))
        twin.step(hidden, *(factor * tensor for tensor in both))
        optimizer.step()
    assert relative(head.weight(), twin.weight) < TOLERANCE[dtype]


@EVERY
@TYPES
def test_several_heads_go_as_each_alone(kind: Kind, dtype: torch.dtype) -> None:
    rows = [TABLE[0], TABLE[4]]
    together = [make_head(row, WIDTH, D, dtype, seed)[0] for seed, row in enumerate(rows)]
    alone = [make_head(row, WIDTH, D, dtype, seed)[0] for seed, row in enumerate(rows)]
    optimizer, own = kind.make(together), [kind.make(head) for head in alone]
    for step in range(20):
        for k, row in enumerate(rows):
            b = batch(row, torch.Generator().manual_seed(step), M, WIDTH, D)
            for head in (together[k], alone[k]):
                head_loss(head, b)[0].backward()
            own[k].step()
        optimizer.step()
    for head, twin in zip(together, alone, strict=True):
        assert torch.equal(head.weight(), twin.weight())


@EVERY
@ROWS
@TYPES
def test_a_failed_step_changes_neither_head_nor_optimizer(kind: Kind, row: Row, dtype: torch.dtype) -> None:
    head, _ = make_head(row, WIDTH, D, dtype)
    twin = copy.deepcopy(head)
    optimizer, other = kind.make(head), kind.make(twin)
    train(head, optimizer, row, 0, 2)
    train(twin, other, row, 0, 2)
    b = batch(row, torch.Generator().manual_seed(99), M, WIDTH, D)
    b.hidden[3, 2] = float("nan")
    head_loss(head, b)[0].backward()
    with pytest.raises(NonFiniteError, match="hidden layer"):  # noqa: PT012  a GPU tells it late
        optimizer.step()
        head.consolidate()
    if DEVICE != "cpu":
        head.consolidate()
        twin.consolidate()
    optimizer.zero_grad()
    train(head, optimizer, row, 2, 2)
    train(twin, other, row, 2, 2)
    assert torch.equal(head.weight(), twin.weight())


@EVERY
@ROWS
def test_ordinary_though_special_batches(kind: Kind, row: Row) -> None:
    """No examples, no targets, zeros: a step that has nothing to say changes nothing it should not."""
    head, weight = make_head(row, WIDTH, D, torch.float64)
    optimizer, twin = kind.make(head), kind.twin(weight)
    hidden = 0.3 * torch.randn(M, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ids = [[c, c] if c % 3 else [] for c in range(M)]

    def ones(lists: list[list[int]]) -> list[list[float]] | None:
        return [[1.0] * len(i) for i in lists] if row.valued else None

    cases = [
        Batch(hidden, ids, ones(ids)),
        Batch(hidden[:0], [], ones([])),
        Batch(hidden, [[]] * M, ones([[]] * M)),
        Batch(hidden, [[7]] * M, ones([[7]] * M)),
    ]
    if row.name != "z-loss":  # outputs that are all alike have no z
        cases.insert(1, Batch(0 * hidden, ids, ones(ids)))
    for b in (*cases, *cases):
        head_loss(head, b)[0].backward()
        twin.step(b.hidden, *partials(row, twin.weight, b))
        optimizer.step()
    assert relative(head.weight(), twin.weight) < 1e-11
