"""Steps that are not finite, on a device that nobody waits for: reported late, surely, and nothing was changed."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.played import Device
from torch import Tensor

import widehead as wh
from widehead.cached import cached_everywhere
from widehead.cached.late import LateReport
from widehead.errors import NonFiniteError

D, WIDTH, M = 60, 6, 5
OPTIMIZERS: dict[str, Callable[..., Any]] = {
    "sgd": lambda heads: wh.optim.SGD(heads, lr=0.05, weight_decay=0.01),
    "momentum": lambda heads: wh.optim.SGD(heads, lr=0.05, momentum=0.9),
    "newton": lambda heads: wh.optim.Newton(heads, lr=0.5, refresh_every=3),
    "shampoo": lambda heads: wh.optim.Shampoo(heads, lr=0.01, refresh_every=3),
    "muon": lambda heads: wh.optim.Muon(heads, lr=0.01),
}
EVERY = pytest.mark.parametrize("kind", OPTIMIZERS)


pytestmark = [
    pytest.mark.usefixtures("played"),
    pytest.mark.filterwarnings("ignore::widehead.errors.UnstableStepWarning"),
]


def new_head(seed: int = 0) -> wh.ExactHead:
    torch.manual_seed(seed)
    return wh.ExactHead(WIDTH, D, wh.losses.SquaredError(), device="cuda")


def passed(head: wh.ExactHead, step: int, poison: float | None = None) -> None:
    generator = torch.Generator().manual_seed(step)
    hidden = torch.randn(M, WIDTH, generator=generator)
    if poison is not None:
        hidden[2, 3] = poison
    head(hidden.to("cuda"), torch.randint(0, D, (M, 2), generator=generator).to("cuda")).backward()


def trained(head: wh.ExactHead, optimizer: Any, steps: range, poison: dict[int, float] | None = None) -> None:
    for step in steps:
        passed(head, step, (poison or {}).get(step))
        optimizer.step()


def held(head: wh.ExactHead) -> list[Tensor]:
    """All that stands for W, as it is; no step is waited for."""
    weights = head.weights
    return [t.clone().cpu() for t in (weights.dense(slice(None)), weights.small.master, weights.small.value)]


@EVERY
@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e38])
def test_a_step_that_was_left_out_leaves_no_trace(kind: str, poison: float) -> None:
    """Weights and the optimiser's memory go on as if it had not been asked for, in the first step and later."""
    for bad in (0, 4):
        head, twin = new_head(), new_head()
        optimizer, other = OPTIMIZERS[kind](head), OPTIMIZERS[kind](twin)
        for step in range(7):
            if step == bad:
                before = held(head)
                with pytest.raises(NonFiniteError, match=rf"in step {bad + 1} \(now {bad + 1}\)"):  # noqa: PT012
                    trained(head, optimizer, range(step, step + 1), {step: poison})
                    head.consolidate()
                assert all(map(torch.equal, held(head), before))
                optimizer.zero_grad()
            else:
                trained(head, optimizer, range(step, step + 1))
                trained(twin, other, range(step, step + 1))
        assert torch.allclose(head.weight(), twin.weight(), rtol=1e-5, atol=1e-6)
        assert head.audit().finite


def test_it_is_reported_within_64_steps_however_slow_the_device_is(played: Device) -> None:
    head = new_head()
    optimizer = OPTIMIZERS["sgd"](head)
    trained(head, optimizer, range(3))
    played.late_queries = 10**6
    passed(head, 3, math.nan)
    optimizer.step()
    with pytest.raises(NonFiniteError, match=r"in step 4 \(now 67\)"):
        trained(head, optimizer, range(4, 100))
    optimizer.zero_grad()
    trained(head, optimizer, range(100, 103))
    head.consolidate()  # it is reported once
    assert head.audit().finite


@pytest.mark.parametrize(
    "ask", [lambda head: head.state_dict(), lambda head: head.consolidate(), copy.deepcopy, pickle.dumps]
)
def test_who_asks_for_all_of_it_is_told_at_once(played: Device, ask: Callable[[wh.ExactHead], object]) -> None:
    head = new_head()
    optimizer = OPTIMIZERS["sgd"](head)
    played.late_queries = 10**6
    trained(head, optimizer, range(3), {1: math.inf})
    with pytest.raises(NonFiniteError, match=r"in step 2 \(now 3\).*left out"):
        ask(head)
    ask(head)
    trained(head, optimizer, range(3, 6))
    head.consolidate()


def test_an_lr_that_is_too_large_overflows_and_is_told() -> None:
    head = new_head()
    optimizer = wh.optim.SGD(head, lr=1e30)
    with pytest.raises(NonFiniteError, match="lr is too large"):  # noqa: PT012
        for step in range(3):
            trained(head, optimizer, range(step, step + 1))
        head.consolidate()
    assert head.audit().finite


@EVERY
@pytest.mark.parametrize("bad", [0, 1])
def test_of_several_heads_all_are_left_as_they_are_if_one_is_not_finite(kind: str, bad: int) -> None:
    heads = [new_head(0), new_head(1)]
    twins = [new_head(0), new_head(1)]
    optimizer, other = OPTIMIZERS[kind](heads), OPTIMIZERS[kind](twins)
    for step in range(8):
        for k, head in enumerate(heads):
            passed(head, step, math.nan if step == 3 and k == bad else None)
        before = [held(head) for head in heads]
        optimizer.step()
        if step == 3:
            for head, old in zip(heads, before, strict=True):
                assert all(map(torch.equal, held(head), old))
            with pytest.raises(NonFiniteError, match="in step 4"):
                heads[bad].consolidate()
            continue
        for twin in twins:
            passed(twin, step)
        other.step()
    for head, twin in zip(heads, twins, strict=True):
        assert torch.allclose(head.weight(), twin.weight(), rtol=1e-5, atol=1e-6)


def test_steps_are_numbered_on_when_the_record_changes() -> None:
    head = new_head()
    trained(head, OPTIMIZERS["sgd"](head), range(3))
    optimizer = OPTIMIZERS["momentum"](head)
    with pytest.raises(NonFiniteError, match=r"in step 4 \(now 4\)"):  # noqa: PT012
        trained(head, optimizer, range(3, 4), {3: math.nan})
        head.consolidate()


def test_elsewhere_the_host_sees_it_at_once() -> None:
    report = LateReport(7)
    report.note(torch.tensor(True))
    with pytest.raises(NonFiniteError, match=r"in step 9 \(now 9\)"):
        report.note(torch.tensor(False))
    with cached_everywhere():
        head = wh.ExactHead(WIDTH, D, wh.losses.SquaredError())
    optimizer = wh.optim.SGD(head, lr=0.1)
    head(torch.full((2, WIDTH), math.nan), [[1], [2]]).backward()
    before = head.weight()
    with pytest.raises(NonFiniteError, match="in step 1 "):
        optimizer.step()
    assert torch.equal(head.weight(), before)
