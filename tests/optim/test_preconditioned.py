"""Newton, Shampoo and Muon: what they promise besides exactness."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.small_head import WIDTH, D, data, make, multi_hot

import widehead as wh
from widehead.optim.muon import root_by_examples
from widehead.optim.newton import damped_inverse
from widehead.optim.shampoo import inverse_root


def least_squares_of(
    head: wh.ExactHead, optimizer: torch.optim.Optimizer, steps: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """Train, and after each step give its number and the least-squares solution (D, WIDTH) of all that was seen."""
    head.load_weight(torch.zeros(D, WIDTH))
    hiddens, outputs = [], []
    for step in range(steps):
        hidden, ids = data(20, seed=step)
        head(hidden, ids).backward()
        optimizer.step()
        hiddens.append(hidden)
        outputs.append(multi_hot(ids))
        yield step, torch.linalg.lstsq(torch.cat(hiddens), torch.cat(outputs)).solution.T


def test_newton_is_recursive_least_squares() -> None:
    """lr = 1, decay = 1, no damping: W is after each step the least-squares solution of all that was seen."""
    head = make()
    optimizer = wh.optim.Newton(head, lr=1.0, decay=1.0, damping=0.0, refresh_every=1)
    for _, solution in least_squares_of(head, optimizer, 30):
        assert torch.allclose(head.weight(), solution, rtol=1e-8, atol=1e-8)
    assert optimizer.trust()[0] == wh.optim.Trust(steps=30, scaled_back=0)


@pytest.mark.parametrize("ridge", [0.3, 40.0])
def test_newton_with_a_ridge_is_ridge_regression(ridge: float) -> None:
    """W is after each step argmin ‖HWᵀ − Y‖² + ρ‖W‖²; a first batch of zeros does not do away with ρ."""
    head = make()
    head.load_weight(torch.zeros(D, WIDTH))
    optimizer = wh.optim.Newton(head, lr=1.0, decay=1.0, damping=0.0, ridge=ridge, refresh_every=1)
    normal, right = torch.zeros(WIDTH, WIDTH).double(), torch.zeros(WIDTH, D).double()
    for step in range(20):
        hidden, ids = data(20, seed=step)
        hidden = hidden * (step > 0)
        head(hidden, ids).backward()
        optimizer.step()
        if step == 1:
            normal += ridge * torch.trace(hidden.T @ hidden) / WIDTH * torch.eye(WIDTH).double()
        normal, right = normal + hidden.T @ hidden, right + hidden.T @ multi_hot(ids)
        solution = torch.linalg.solve(normal, right).T if step > 0 else torch.zeros(D, WIDTH).double()
        assert torch.allclose(head.weight(), solution, rtol=1e-8, atol=1e-10)


def test_newton_that_forgets_nothing_lacks_at_most_a_fiftieth_of_the_steps() -> None:
    """With decay = 1, W stays near the least-squares solution although (A + δI)⁻¹ is renewed ever more rarely."""
    head = make()
    optimizer = wh.optim.Newton(head, lr=1.0, decay=1.0, damping=0.0)
    renewals, solution = 0, None
    for step, best in least_squares_of(head, optimizer, 300):
        age = next(iter(optimizer.state.values()))["age"]
        renewals, solution = renewals + (age == 0), best
        assert age <= step / 50
    assert solution is not None
    assert 115 < renewals < 130  # 50 · (1 + 1/2 + … + 1/6) = 122.5
    assert torch.linalg.norm(head.weight() - solution) < 0.02 * torch.linalg.norm(solution)


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


def test_rounding_is_no_scaling_back() -> None:
    """Full Newton steps whose R knows their own batch alone are as long as is allowed, give or take float32."""
    head = make(dtype=torch.float32)
    optimizer = wh.optim.Newton(head, lr=1.0, decay=0.0, damping=0.0, refresh_every=1)
    for step in range(20):
        hidden = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(step))
        head(hidden, torch.arange(WIDTH)).backward()
        optimizer.step()
    assert optimizer.trust()[0] == wh.optim.Trust(steps=20, scaled_back=0)


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


@pytest.mark.parametrize("kind", ["Newton", "Shampoo", "Muon"])
def test_one_unknown_loss_among_known_ones_is_refused(kind: str) -> None:
    head = make()
    optimizer = getattr(wh.optim, kind)(head)
    hidden, ids = data(4)
    head(hidden, ids).backward()
    q, _, a = head.statistics(hidden, ids)
    (q.sum() - 2 * a.sum()).backward()
    with pytest.raises(TypeError, match="SphericalLoss"):
        optimizer.step()


@pytest.mark.parametrize("kind", ["Newton", "Shampoo", "Muon"])
@pytest.mark.parametrize("loss", [wh.losses.WeightedSquaredError(0.1), wh.losses.SphericalSoftmax()])
def test_a_step_up_the_loss_is_the_step_down_mirrored(kind: str, loss: wh.losses.Loss) -> None:
    """What is known of the curvature is its size: it must not matter which way the loss is turned."""
    moves = []
    for sign in (1.0, -1.0):
        head = make(loss)
        before = head.weight()
        optimizer = getattr(wh.optim, kind)(head)
        hidden, ids = data(20)
        (sign * head(hidden, ids)).backward()
        optimizer.step()
        moves.append(sign * (head.weight() - before))
    assert torch.allclose(moves[0], moves[1], rtol=1e-9, atol=1e-12)
    assert moves[0].abs().max() > 1e-3


LOSSES = [wh.losses.SquaredError(), wh.losses.WeightedSquaredError(0.1), wh.losses.SphericalSoftmax()]


@pytest.mark.parametrize("kind", ["Newton", "Shampoo", "Muon"])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("m", [0, 3, 20])
@pytest.mark.parametrize("times", [1, 15])
def test_first_batches_that_say_nothing_change_nothing(
    kind: str, loss: wh.losses.Loss, dtype: torch.dtype, m: int, times: int
) -> None:
    """There is no curvature yet to be relative to; what follows is as if they had not been."""
    heads = [make(loss, dtype), make(loss, dtype)]
    before = heads[0].weight()
    optimizers = [getattr(wh.optim, kind)(head) for head in heads]
    for _ in range(times):
        heads[0](torch.zeros(m, WIDTH, dtype=dtype), torch.arange(m)).sum().backward()
        optimizers[0].step()
    assert torch.equal(heads[0].weight(), before)
    for head, optimizer in zip(heads, optimizers, strict=True):
        for seed in range(12):
            hidden, ids = data(20, seed)
            head(hidden.to(dtype), ids).backward()
            optimizer.step()
    moves = [head.weight() - before for head in heads]
    assert torch.allclose(*moves, rtol=1e-4, atol=1e-5 * float(moves[1].abs().max()))
    assert optimizers[0].trust() == optimizers[1].trust()


@pytest.mark.parametrize("kind", ["Newton", "Shampoo", "Muon"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("decay", [0.1, 1.0])
def test_batches_that_say_nothing_change_nothing_later(kind: str, dtype: torch.dtype, decay: float) -> None:
    """So many that an average would have faded to nothing, and an inverse of it grown beyond float32."""
    head = make(dtype=dtype)
    options = {} if kind == "Muon" else {"decay": decay}
    optimizer = getattr(wh.optim, kind)(head, **options)
    for seed in range(3):
        hidden, ids = data(20, seed)
        head(hidden.to(dtype), ids).backward()
        optimizer.step()
    before = head.weight()
    for _ in range(60):
        head(torch.zeros(3, WIDTH, dtype=dtype), torch.arange(3)).backward()
        optimizer.step()
    assert torch.allclose(head.weight(), before, rtol=0.0, atol=1e-6)
    hidden, ids = data(20, 9)
    loss = head(hidden.to(dtype), ids)
    loss.backward()
    optimizer.step()
    assert head(hidden.to(dtype), ids) < loss


@pytest.mark.parametrize("kind", ["Newton", "Shampoo", "Muon"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("size", [1e-45, 1e-38, 1e-30, 1e-22, 1e-16, 1e-10, 1e4])
def test_hidden_layers_of_any_size_make_finite_steps(kind: str, dtype: torch.dtype, size: float) -> None:
    head = make(dtype=dtype)
    optimizer = getattr(wh.optim, kind)(head)
    for scale in (size, size, 1.0):
        hidden, ids = data(20)
        loss = head((scale * hidden).to(dtype), ids)
        loss.backward()
        optimizer.step()
        assert bool(torch.isfinite(head.weight()).all())
    assert float(head((scale * hidden).to(dtype), ids).detach()) < 1.01 * float(loss.detach())


@pytest.mark.parametrize("above", [0.0, 5.6e-45, 1e-9])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_matrix_with_no_more_above_zero_than_below_has_no_root(dtype: torch.dtype, above: float) -> None:
    """GᵀG of a gradient whose parts cancel is its rounding; the root of what is above 0 in it was infinite."""
    matrix = torch.tensor([[above, -2e-43], [-2e-43, -6.6e-5]], dtype=torch.float64).to(dtype)
    assert torch.equal(inverse_root(matrix, 0.1), torch.zeros(2, 2, dtype=dtype))
    assert float(inverse_root(-matrix, 0.1).max()) < 2e3


@pytest.mark.parametrize("kind", ["Newton", "Shampoo", "Muon"])
@pytest.mark.parametrize("m", [1, 8, 31])
def test_a_loss_that_is_constant_can_be_stepped_on(kind: str, m: int) -> None:
    """One class alone has the probability 1, and a gradient whose parts cancel: what is left is rounding."""
    torch.manual_seed(0)
    head = wh.ExactHead(1, 1, wh.losses.TaylorSoftmax(), bias=True)
    optimizer = getattr(wh.optim, kind)(head)
    for scale in [1.0, 1e-39, 1e-3, 1e-39, 0.0, 10.0] * 10:
        head(scale * torch.randn(m, 1), torch.zeros(m, 1, dtype=torch.int64), reduction="sum").backward()
        optimizer.step()
        assert bool(torch.isfinite(head.weight()).all())


@pytest.mark.parametrize("kind", ["Newton", "Shampoo", "Muon"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("m", [1, 3, 20])
@pytest.mark.parametrize("damping", [None, 0.0])
def test_a_gradient_of_rounding_errors_is_no_danger(
    kind: str, dtype: torch.dtype, m: int, damping: float | None
) -> None:
    """The same examples again and again: soon nothing is left to learn, and GGᵀ is as often negative as positive."""
    head = make(dtype=dtype)
    optimizer = getattr(wh.optim, kind)(head, damping=damping)
    hidden, ids = torch.ones(m, WIDTH, dtype=dtype), torch.full((m, 1), 7)
    first = float(head(hidden, ids).detach())
    for _ in range(40):
        loss = head(hidden, ids)
        loss.backward()
        optimizer.step()
    assert abs(float(loss.detach())) < (0.5 if kind == "Newton" else 1.0) * first


@pytest.mark.parametrize("m", range(1, WIDTH))
def test_newton_without_damping_learns_a_batch_smaller_than_d_by_heart(m: int) -> None:
    """Recursive least squares on fewer equations than unknowns: all of them hold, as far as rounding allows."""
    for seed in range(10):
        head = make()
        optimizer = wh.optim.Newton(head, damping=0.0, decay=1.0)
        generator = torch.Generator().manual_seed(seed)
        hidden, ids = torch.randn(m, WIDTH, generator=generator, dtype=torch.float64), torch.arange(m)
        before = head(hidden, ids)
        before.backward()
        optimizer.step()
        assert head(hidden, ids).detach() < 1e-2 * before.detach()


def test_inverses_of_singular_matrices_are_finite_without_damping() -> None:
    """Rounding alone bounds them, also where it makes eigenvalues negative that should be 0."""
    ones = torch.ones(2, 2, dtype=torch.float64)
    inverse = damped_inverse(ones, 0.0)
    assert torch.isfinite(inverse).all()
    assert torch.allclose(ones @ inverse @ ones, ones, rtol=2e-2)
    for seed in range(20):
        factor = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        root = inverse_root(factor.T @ factor, 0.0)
        assert torch.isfinite(root).all()
        there = factor @ root @ root @ factor.T  # a projection, seen from inside
        assert torch.allclose(there, torch.eye(3, dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 2e-5)], ids=str)
@pytest.mark.parametrize("repeats", [False, True])
def test_the_root_by_examples_is_the_root(dtype: torch.dtype, close: float, repeats: bool) -> None:
    """W − lr·G(GᵀG + δI)^(−1/2) with G written out, for fewer examples than d, some of them the same or 0."""
    head = make(dtype=dtype)
    weight = head.weight().double()
    hidden = torch.randn(6, WIDTH, generator=torch.Generator().manual_seed(3), dtype=dtype)
    if repeats:
        hidden[1], hidden[4], hidden[5] = hidden[0], 2 * hidden[0], 0.0
    ids = torch.arange(12).view(6, 2)
    head(hidden, ids).backward()
    optimizer = wh.optim.Muon(head, lr=0.01, damping=0.1)
    optimizer.step()
    assert optimizer.trust()[0].scaled_back == 0
    gradient = (2 / 6 * (hidden.double() @ weight.T - multi_hot(ids))).T @ hidden.double()
    square = gradient.T @ gradient
    values, vectors = torch.linalg.eigh(square + 0.1 * square.trace() / WIDTH * torch.eye(WIDTH).double())
    step = 0.01 * gradient @ (vectors * values.rsqrt()) @ vectors.T
    assert (weight - step - head.weight().double()).norm() < close * step.norm()


def deficient(kind: str, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden layer (8, 25) and gradient by the outputs (8, 3), both of a rank far below 8, altogether or nearly."""
    generator = torch.Generator().manual_seed(0)
    hidden, outputs = (torch.randn(8, n, generator=generator, dtype=dtype) for n in (25, 3))
    if kind == "zeros":
        hidden[::2] = 0.0
    elif kind == "one direction":
        hidden = hidden[:, :1] @ hidden[:1]
    elif kind == "nothing":
        hidden = 0.0 * hidden
    else:
        hidden[1::2] = hidden[::2] + 1e-5 * hidden[1::2]
        outputs[1::2] = outputs[1::2] if kind == "nearly equal" else -outputs[::2]
    return hidden, outputs


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("kind", ["zeros", "one direction", "nothing", "nearly equal", "nearly opposite"])
def test_the_root_by_examples_is_symmetric_whatever_the_rank(kind: str, dtype: torch.dtype) -> None:
    """Steps rely on HRHᵀ being symmetric; HR itself is as near as the gradient is known, which may nearly cancel."""
    hidden, outputs = deficient(kind, dtype)
    hr, eps = root_by_examples(hidden, outputs @ outputs.T, 0.01), torch.finfo(dtype).eps
    products, gradient = hr @ hidden.T, outputs.T.double() @ hidden.double()
    assert (products - products.T).norm() <= 10 * eps * hr.norm() * hidden.norm()
    root = inverse_root(gradient.T @ gradient, 0.01)
    assert (hr - hidden.double() @ root).norm() <= 1e7 * eps * hidden.double().norm() * root.norm()
    if kind != "nearly opposite":
        assert (hr - hidden.double() @ root).norm() <= 1e4 * eps * hidden.double().norm() * root.norm()


@pytest.mark.parametrize("kind", ["Newton", "Shampoo", "Muon"])
def test_decay_that_would_wipe_out_the_weights_stops_the_step(kind: str) -> None:
    head = make()
    before = head.weight()
    optimizer = getattr(wh.optim, kind)(head, lr=0.5, weight_decay=2.0)
    hidden, ids = data(4)
    head(hidden, ids).backward()
    with pytest.raises(ValueError, match=r"`lr \* weight_decay` should be in \[0, 1\). Found 1"):
        optimizer.step()
    assert torch.equal(head.weight(), before)


@pytest.mark.parametrize(
    ("kind", "defaults"),
    [
        ("Newton", {"lr": 1.0, "damping": 0.1, "decay": 0.95, "ridge": 0.0, "refresh_every": 10}),
        ("Shampoo", {"lr": 0.3, "damping": 0.1, "decay": 0.95, "refresh_every": 20}),
        ("Muon", {"lr": 0.3, "damping": 0.01}),
    ],
)
def test_defaults_are_those_of_the_docstrings(kind: str, defaults: dict[str, float]) -> None:
    (group,) = getattr(wh.optim, kind)(make()).param_groups
    del group["params"]
    assert group == {**defaults, "weight_decay": 0.0, "max_grad_norm": None, "capturable": False}


def test_what_is_remembered_follows_a_head_that_moves() -> None:
    head = make()
    optimizer = wh.optim.Newton(head)
    hidden, ids = data(4)
    head(hidden, ids).backward()
    optimizer.step()
    (group,) = optimizer.param_groups
    moved: Any = SimpleNamespace(weights=SimpleNamespace(values=torch.empty(0, device="meta")))
    beside = optimizer._remembered(moved, group)
    assert {getattr(beside, name).device.type for name in ("sum", "preconditioner")} == {"meta"}
    assert {optimizer.state[group["params"][0]][name].device.type for name in ("sum", "preconditioner")} == {"cpu"}


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
        ("Newton", {"ridge": -1.0}, "`ridge`"),
        ("Shampoo", {"decay": 1.1}, "`decay`"),
        ("Shampoo", {"weight_decay": float("nan")}, "`weight_decay`"),
        ("Muon", {"max_grad_norm": 0.0}, "`max_grad_norm`"),
    ],
)
def test_wrong_options_are_named(kind: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(wh.optim, kind)(make(), **{"lr": 0.1, **options})


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("Newton", {"dampng": 0.1}),
        ("Newton", {"momentum": 0.9}),
        ("Shampoo", {"ridge": 0.1}),
        ("Muon", {"decay": 0.9}),
        ("SGD", {"damping": 0.1}),
    ],
)
def test_unknown_options_are_refused(kind: str, options: dict) -> None:
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{next(iter(options))}'"):
        getattr(wh.optim, kind)(make(), lr=0.1, **options)


@pytest.mark.parametrize("kind", ["Newton", "Shampoo", "Muon"])
def test_what_is_remembered_goes_through_a_file(kind: str, tmp_path: Path) -> None:
    """It holds tensors and numbers alone, each under the name of a field."""
    head = make()
    optimizer = getattr(wh.optim, kind)(head)
    hidden, ids = data(20)
    head(hidden, ids).backward()
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "state")
    other = getattr(wh.optim, kind)(make())
    other.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    (found,), (expected,) = other.state.values(), optimizer.state.values()
    assert set(found) == {field.name for field in dataclasses.fields(optimizer.memory)}
    for name, value in expected.items():
        assert torch.equal(found[name], value) if isinstance(value, torch.Tensor) else found[name] == value, name
    assert other.trust() == optimizer.trust() == [wh.optim.Trust(1, 0)]


@pytest.mark.parametrize(("kind", "of"), [("Newton", "Shampoo"), ("Shampoo", "Muon"), ("Muon", "Newton")])
def test_the_state_of_another_kind_is_refused(kind: str, of: str) -> None:
    head = make()
    other = getattr(wh.optim, of)(head)
    hidden, ids = data(20)
    head(hidden, ids).backward()
    other.step()
    optimizer = getattr(wh.optim, kind)(make())
    state = {**optimizer.state_dict(), "state": other.state_dict()["state"]}
    with pytest.raises(ValueError, match=f"The state of {kind} should hold"):
        optimizer.load_state_dict(state)


def test_monitors_tell_the_part_of_all_steps_that_was_scaled_back() -> None:
    heads = [make(), make()]
    optimizer = wh.optim.Newton(heads, lr=50.0)
    assert optimizer.monitors() == {"scaled_back": 0.0}
    hidden, ids = data(20)
    for scale in (1.0, 100.0, 100.0):
        for head in heads[: 2 if scale == 1.0 else 1]:
            head(scale * hidden, ids).backward()
        optimizer.step()
    assert [trust.steps for trust in optimizer.trust()] == [3, 1]
    scaled = sum(trust.scaled_back for trust in optimizer.trust())
    assert scaled > 0
    assert optimizer.monitors() == {"scaled_back": scaled / 4}
    assert wh.optim.SGD(heads, lr=0.1).monitors() == heads[0].monitors() == {}


@pytest.mark.parametrize("decay", [0.95, 1.0])
@pytest.mark.parametrize("kind", ["Newton", "Shampoo"])
def test_replayed_steps_are_counted_as_steps_that_are_made(kind: str, decay: float) -> None:
    """What the host counts of steps that a graph made, told by `schedule` alone, is what it counts in `step`."""
    head = make()
    optimizer = getattr(wh.optim, kind)(head, decay=decay, refresh_every=4)
    ages = []
    for step in range(100):
        (memory,) = optimizer.state.values() if step else [{}]
        before, schedule = (memory.get("steps", 0), memory.get("age", 0)), optimizer.schedule()
        hidden, ids = data(20, step)
        head(hidden, ids).backward()
        optimizer.step()
        (memory,) = optimizer.state.values()
        made = memory["steps"], memory["age"]
        memory["steps"], memory["age"] = before
        optimizer.replayed(schedule)
        assert (memory["steps"], memory["age"]) == made
        ages.append(made[1])
    assert max(ages) == (3 if decay < 1.0 else 1)


def test_a_sum_too_small_to_be_inverted_leaves_no_preconditioner_behind() -> None:
    """On a CPU as on a GPU: R is of the sum that there is now, not of one that faded."""
    head = make(dtype=torch.float32)
    optimizer = wh.optim.Newton(head, decay=0.0, refresh_every=1)
    for size in (1.0, 1e-18):
        hidden, ids = data(20)
        head((size * hidden).float(), ids).backward()
        optimizer.step()
        (memory,) = optimizer.state.values()
        assert bool(memory["preconditioner"].any()) == (size == 1.0)
