"""Momentum, which lives beside W in the head's weights."""

from __future__ import annotations

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
