"""Newton, Shampoo and Muon: what they promise besides exactness."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from support.small_head import WIDTH, D, data, make, multi_hot

import widehead as wh


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


@pytest.mark.parametrize(("refresh_every", "steps"), [(1, 30), (None, 120)])
def test_newton_is_recursive_least_squares(refresh_every: int | None, steps: int) -> None:
    """lr = 1, decay = 1, no damping: W is after each step the least-squares solution of all that was seen."""
    head = make()
    optimizer = wh.optim.Newton(head, lr=1.0, decay=1.0, damping=0.0, refresh_every=refresh_every)
    for _, solution in least_squares_of(head, optimizer, steps):
        assert torch.allclose(head.weight(), solution, rtol=1e-8, atol=1e-8)
    assert optimizer.trust()[0] == wh.optim.Trust(steps=steps, scaled_back=0)


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
    optimizer = wh.optim.Newton(head, lr=1.0, decay=1.0, damping=1e-9)
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
