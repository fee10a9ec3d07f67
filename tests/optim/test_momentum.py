"""Momentum, which lives beside W in the head's weights."""

from __future__ import annotations

import copy

import pytest
import torch
from support.small_head import WIDTH, D, data, make, multi_hot

import widehead as wh


def step_both(
    head: wh.ExactHead, ours: torch.optim.Optimizer, linear: torch.nn.Linear, theirs: torch.optim.Optimizer, seed: int
) -> None:
    """One step of squared error on the head and on its dense twin."""
    hidden, ids = data(20, seed=seed)
    head(hidden, ids).backward()
    ours.step()
    theirs.zero_grad()
    ((linear(hidden) - multi_hot(ids)) ** 2).sum(1).mean().backward()
    theirs.step()


def test_one_cycle_moves_momentum_too() -> None:
    head, linear = make(), make().to_linear()
    ours = wh.optim.SGD(head, lr=0.02, momentum=0.9)
    theirs = torch.optim.SGD(linear.parameters(), lr=0.02, momentum=0.9)
    schedules = [torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.05, total_steps=12) for o in (ours, theirs)]
    for step in range(12):
        step_both(head, ours, linear, theirs, seed=step)
        assert ours.param_groups[0]["momentum"] == theirs.param_groups[0]["momentum"]
        for schedule in schedules[: 2 if step < 11 else 0]:
            schedule.step()
    assert torch.allclose(head.weight(), linear.weight, rtol=1e-9)


def test_momentum_that_fades_to_zero_and_returns() -> None:
    """p of the step's rule becomes singular: the segment is closed instead of inverted."""
    head, linear = make(), make().to_linear()
    ours = wh.optim.SGD(head, lr=0.02, momentum=0.9)
    theirs = torch.optim.SGD(linear.parameters(), lr=0.02, momentum=0.9)
    for step, momentum in enumerate((0.9, 0.5, 1e-3, 1e-9, 0.0, 0.0, 0.3, 0.9, 0.9)):
        ours.param_groups[0]["momentum"] = theirs.param_groups[0]["momentum"] = momentum
        step_both(head, ours, linear, theirs, seed=step)
        assert torch.allclose(head.weight(), linear.weight, rtol=1e-9)


def test_momentum_comes_and_goes_with_the_optimizer() -> None:
    """W stays as it is when an optimiser that keeps momentum takes over a head, and when one without does."""
    head = make()
    weight = head.weight()
    wh.optim.SGD(head, lr=0.1, momentum=0.9)
    assert head.weights.order == 2
    assert torch.allclose(head.weight(), weight, rtol=1e-14)
    assert head.weights.momentum().abs().max() == 0.0
    hidden, ids = data(20)
    scores = head.top_k(hidden, 3)
    plain = wh.optim.SGD(head, lr=0.1)
    assert head.weights.order == 1
    assert torch.allclose(head.top_k(hidden, 3)[0], scores[0])
    head(hidden, ids).backward()
    plain.step()
    assert head.weights.values.shape == (D, WIDTH)


def test_weights_loaded_after_the_optimizer_was_made_begin_without_momentum() -> None:
    head, fresh = make(), make()
    optimizer = wh.optim.SGD(head, lr=0.1, momentum=0.9)
    weight = head.weight()
    hidden, ids = data(20)
    head(hidden, ids).backward()
    optimizer.step()
    head.load_weight(weight)
    assert head.weights.momentum().abs().max() == 0.0
    other = wh.optim.SGD(fresh, lr=0.1, momentum=0.9)
    for step in range(3):
        hidden, ids = data(20, seed=step)
        for model, own in ((head, optimizer), (fresh, other)):
            model(hidden, ids).backward()
            own.step()
    assert torch.allclose(head.weight(), fresh.weight(), rtol=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_two_optimizers_that_ask_for_different_things_are_told_so(momentum: float) -> None:
    head = make()
    first = wh.optim.SGD(head, lr=0.1, momentum=momentum)
    second = wh.optim.SGD(head, lr=0.1, momentum=0.9 - momentum)
    weight = head.weight()
    hidden, ids = data(20)
    head(hidden, ids).backward()
    with pytest.raises(RuntimeError, match="another optimiser was made"):
        first.step()
    assert torch.equal(head.weight(), weight)
    second.step()
    assert not torch.equal(head.weight(), weight)


def test_a_state_without_momentum_loaded_since_is_noticed_and_can_be_gone_on_from() -> None:
    head, plain = make(), make()
    optimizer = wh.optim.SGD(head, lr=0.1, momentum=0.9)
    hidden, ids = data(20)
    head(hidden, ids).backward()
    optimizer.step()
    head.load_state_dict(plain.state_dict())
    head(hidden, ids).backward()
    with pytest.raises(RuntimeError, match="a state loaded into it"):
        optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    other = wh.optim.SGD(plain, lr=0.1, momentum=0.9)
    plain(hidden, ids).backward()
    for own in (optimizer, other):
        own.step()
    assert torch.allclose(head.weight(), plain.weight(), rtol=1e-12)


def test_an_optimizer_made_without_momentum_takes_over_that_of_a_loaded_state() -> None:
    """As torch.optim.SGD does."""
    head, other = make(), make()
    optimizer, successor = wh.optim.SGD(head, lr=0.02, momentum=0.9), wh.optim.SGD(other, lr=1.0)
    hidden, ids = data(20)
    head(hidden, ids).backward()
    optimizer.step()
    other.load_state_dict(copy.deepcopy(head.state_dict()))
    successor.load_state_dict(optimizer.state_dict())
    for step in range(3):
        hidden, ids = data(20, seed=step)
        for model, own in ((head, optimizer), (other, successor)):
            model(hidden, ids).backward()
            own.step()
    assert torch.equal(head.weight(), other.weight())
    assert torch.equal(head.weights.momentum(), other.weights.momentum())


def test_momentum_that_comes_later_is_refused() -> None:
    head = make()
    optimizer = wh.optim.SGD(head, lr=0.1)
    optimizer.param_groups[0]["momentum"] = 0.5
    hidden, ids = data(20)
    head(hidden, ids).backward()
    with pytest.raises(ValueError, match=r"from the beginning .* Found 0\.5"):
        optimizer.step()


def test_asking_again_for_what_is_there_changes_nothing() -> None:
    head = make()
    for keep in (False, True, True, False):
        head.keep_momentum(keep)
        weights = head.weights
        head.keep_momentum(keep)
        assert head.weights is weights
        assert weights.order == 1 + keep
