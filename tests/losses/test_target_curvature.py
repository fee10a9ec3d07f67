"""What losses say about the curvature of their target terms, against numerical derivatives."""

from __future__ import annotations

import math

import pytest
import torch

import widehead as wh
from widehead.targets import SparseTargets

D = 400
PROBABILITY = 0.01


def statistics() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, SparseTargets]:
    generator = torch.Generator().manual_seed(0)
    targets = SparseTargets.from_lists([[1, 2], [3], [], [4, 5, 6]], [[0.5, 2.0], [1.0], [], [1.0, 3.0, 0.25]])
    q = 5.0 + torch.rand(4, generator=generator, dtype=torch.float64)
    s = torch.randn(4, generator=generator, dtype=torch.float64)
    return q, s, torch.randn(6, generator=generator, dtype=torch.float64), targets


def second_differences(loss: wh.losses.Loss, step: float = 1e-4) -> torch.Tensor:
    """(nnz,) ∂²ℓ/∂a² of each target's example by central differences."""
    q, s, a, targets = statistics()

    def total(moved: torch.Tensor) -> torch.Tensor:
        return loss(q, s, moved, targets, D)[targets.example_ids]

    unit = torch.eye(6, dtype=torch.float64) * step
    return torch.stack([(total(a + u) - 2 * total(a) + total(a - u))[k] / step**2 for k, u in enumerate(unit)])


@pytest.mark.parametrize(
    "loss",
    [
        wh.losses.SquaredError(),
        wh.losses.WeightedSquaredError(0.3),
        wh.losses.WeightedSquaredError(0.1, target_weight=2.5),
        wh.losses.WeightedSquaredError(0.1, values="weights"),
        wh.losses.ZLoss(0.5, 3.0),
        wh.losses.SphericalLoss(lambda q, s, a, t: q + wh.losses.mean_over_targets(torch.tanh(a) ** 2, t)),
        wh.losses.SphericalLoss(lambda q, s, a, t: q * s),
    ],
    ids=["squared", "weighted", "target weight", "values as weights", "z-loss", "user's", "user's without targets"],
)
def test_it_is_the_second_derivative(loss: wh.losses.Loss) -> None:
    q, s, a, targets = statistics()
    found = loss.target_curvature(q, s, a, targets, D, PROBABILITY)
    assert found.shape == a.shape
    assert torch.allclose(found, second_differences(loss).abs(), atol=1e-5)


def test_it_is_the_same_where_the_caller_wants_no_graph() -> None:
    """As in ``optimizer.step()``."""
    q, s, a, targets = statistics()
    loss = wh.losses.ZLoss(0.5, 3.0)
    expected = loss.target_curvature(q, s, a, targets, D, PROBABILITY)
    with torch.no_grad():
        found = loss.target_curvature(q, s, a, targets, D, PROBABILITY)
    assert torch.equal(found, expected)
    assert not found.requires_grad
    assert not a.requires_grad


def test_targets_that_weigh_less_than_other_outputs_have_none() -> None:
    q, s, a, targets = statistics()
    loss = wh.losses.WeightedSquaredError(0.9, values="weights")
    found = loss.target_curvature(q, s, a, targets, D, PROBABILITY)
    assert found.tolist() == pytest.approx([0.0, 2.2, 0.2, 0.2, 4.2, 0.0])


@pytest.mark.parametrize(
    ("loss", "way"),
    [
        (wh.losses.SphericalSoftmax(0.2), math.sqrt(PROBABILITY * D * 0.2)),
        (wh.losses.TaylorSoftmax(), math.sqrt(2 * PROBABILITY * D)),
    ],
)
def test_softmax_like_losses_take_the_largest_gradient_over_the_way_to_go(loss: wh.losses.Loss, way: float) -> None:
    """A step of 1/γ at the largest gradient brings an output from 0 to where its class has probability PROBABILITY."""
    outputs = torch.linspace(-10.0, 10.0, 100_001, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(loss.score(outputs).sum(), outputs)
    q, s, a, targets = statistics()
    share = torch.tensor([0.2, 0.8, 1.0, 1 / 4.25, 3 / 4.25, 0.25 / 4.25], dtype=torch.float64)
    found = loss.target_curvature(q, s, a, targets, D, PROBABILITY)
    assert torch.allclose(found, share * slope.max() / way, rtol=1e-6)


class Curved(wh.losses.SquaredError):
    """A user's, with curvature of its own."""

    def target_curvature(self, q: torch.Tensor, *rest: object) -> torch.Tensor:
        return torch.ones(6, dtype=q.dtype)


@pytest.mark.parametrize(
    "loss",
    [wh.losses.SquaredError(), wh.losses.WeightedSquaredError(0.1), wh.losses.SphericalSoftmax(), Curved()],
    ids=lambda loss: type(loss).__name__,
)
def test_losses_say_whether_targets_may_add_any(loss: wh.losses.Loss) -> None:
    """Those of a kind that adds none inherit that only as long as their curvature is its own."""
    q, s, a, targets = statistics()
    assert loss.curves_at_targets == bool((loss.target_curvature(q, s, a, targets, D, PROBABILITY) > 0).any())
