"""Newton, Shampoo and Muon: what they promise besides exactness."""

from __future__ import annotations

import pytest
import torch

import widehead as wh

D, WIDTH = 60, 8


def make(loss: wh.losses.Loss | None = None, dtype: torch.dtype = torch.float64) -> wh.ExactHead:
    torch.manual_seed(0)
    return wh.ExactHead(WIDTH, D, loss or wh.losses.SquaredError(), dtype=dtype)


def data(m: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(m, WIDTH, generator=generator, dtype=torch.float64) * torch.logspace(0, -2, WIDTH).double()
    return hidden, torch.randint(0, D, (m, 2), generator=generator)


def multi_hot(ids: torch.Tensor) -> torch.Tensor:
    return torch.zeros(ids.shape[0], D, dtype=torch.float64).scatter_add_(1, ids, torch.ones(ids.shape).double())


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


def test_newton_is_recursive_least_squares() -> None:
    """lr = 1, decay = 1, no damping: W is after each step the least-squares solution of all that was seen."""
    head = make()
    head.load_weight(torch.zeros(D, WIDTH))
    optimizer = wh.optim.Newton(head, lr=1.0, decay=1.0, damping=0.0, refresh_every=1)
    hiddens, outputs = [], []
    for step in range(30):
        hidden, ids = data(20, seed=step)
        head(hidden, ids).backward()
        optimizer.step()
        hiddens.append(hidden)
        outputs.append(multi_hot(ids))
        solution = torch.linalg.lstsq(torch.cat(hiddens), torch.cat(outputs)).solution.T
        assert torch.allclose(head.weight(), solution, rtol=1e-8, atol=1e-8)
    assert optimizer.trust()[0] == wh.optim.Trust(steps=30, scaled_back=0)


def test_newton_with_forgetting_is_weighted_least_squares() -> None:
    head = make()
    head.load_weight(torch.zeros(D, WIDTH))
    optimizer = wh.optim.Newton(head, lr=1.0, decay=0.8, damping=0.0, refresh_every=1)
    normal, right = torch.zeros(WIDTH, WIDTH).double(), torch.zeros(WIDTH, D).double()
    for step in range(30):
        hidden, ids = data(20, seed=step)
        head(hidden, ids).backward()
        optimizer.step()
        normal, right = 0.8 * normal + hidden.T @ hidden, 0.8 * right + hidden.T @ multi_hot(ids)
        assert torch.allclose(head.weight(), torch.linalg.solve(normal, right).T, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", ["Newton", "Shampoo", "Muon"])
def test_steps_that_overshoot_are_scaled_back_and_counted(kind: str) -> None:
    """A hidden layer that suddenly grows 100-fold meets an R made for small ones: the loss must not explode."""
    head = make()
    optimizer = getattr(wh.optim, kind)(head, lr=50.0)
    hidden, ids = data(20)
    worst = 0.0
    for scale in (1.0, 1.0, 1.0, 100.0, 100.0, 100.0):
        loss = head(scale * hidden, ids)
        loss.backward()
        optimizer.step()
        worst = max(worst, float(head(scale * hidden, ids).detach()) / float(loss.detach()))
    assert optimizer.trust()[0].steps == 6
    assert optimizer.trust()[0].scaled_back >= 3
    assert worst < 1.5


@pytest.mark.parametrize("kind", ["Newton", "Shampoo", "Muon"])
def test_popular_classes_do_not_diverge(kind: str) -> None:
    """One class in every example, weighed 100 times what other outputs weigh."""
    head = make(wh.losses.WeightedSquaredError(0.01))
    optimizer = getattr(wh.optim, kind)(head)
    losses = []
    for step in range(100):
        hidden, ids = data(30, seed=step)
        ids[:, 0] = 5
        loss = head(1.0 + hidden, ids)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert max(losses) < 1.5 * losses[0]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


@pytest.mark.parametrize("kind", ["Newton", "Shampoo", "Muon"])
def test_a_loss_that_the_head_does_not_know_is_refused(kind: str) -> None:
    head = make()
    optimizer = getattr(wh.optim, kind)(head)
    hidden, ids = data(4)
    q, _, a = head.statistics(hidden, ids)
    (q.sum() - 2 * a.sum()).backward()
    with pytest.raises(TypeError, match="SphericalLoss"):
        optimizer.step()


@pytest.mark.parametrize("kind", ["SGD", "Newton", "Shampoo", "Muon"])
@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.05, total_steps=10, cycle_momentum=False),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 10),
        lambda o: torch.optim.lr_scheduler.LinearLR(o, start_factor=0.1, total_iters=5),
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: min(1.0, step / 4)),
    ],
)
def test_warm_up_and_lr_schedulers_of_torch_work(kind: str, schedule: object) -> None:
    """W moves by as much as the lr of the moment says: not at all where it is 0."""
    head = make()
    optimizer = getattr(wh.optim, kind)(head, lr=0.02)
    scheduler = schedule(optimizer)  # type: ignore[operator]
    for step in range(8):
        before = head.weight()
        lr = optimizer.param_groups[0]["lr"]
        hidden, ids = data(20, seed=step)
        head(hidden, ids).backward()
        optimizer.step()
        assert bool((head.weight() != before).any()) == (lr > 0.0)
        scheduler.step()


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


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("SGD", {"momentum": 1.0}, "`momentum`"),
        ("SGD", {"momentum": -0.1}, "`momentum`"),
        ("SGD", {"nesterov": True}, "`nesterov`"),
        ("Newton", {"lr": -1.0}, "`lr`"),
        ("Newton", {"damping": -1.0}, "`damping`"),
        ("Newton", {"decay": 1.1}, "`decay`"),
        ("Newton", {"refresh_every": 0}, "`refresh_every`"),
        ("Shampoo", {"decay": 1.1}, "`decay`"),
        ("Shampoo", {"weight_decay": float("nan")}, "`weight_decay`"),
        ("Muon", {"max_grad_norm": 0.0}, "`max_grad_norm`"),
    ],
)
def test_wrong_options_are_named(kind: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(wh.optim, kind)(make(), **{"lr": 0.1, **options})
