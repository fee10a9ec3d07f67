"""The monitor behind the warning of SGD: never above λmax, close to it, and never stuck."""

from __future__ import annotations

import pytest
import torch

from widehead.arithmetic import OutputGradient
from widehead.factored import FactoredWeights, LearningRateMonitor, forward, output_gradient
from widehead.factored.monitor import dense_curvature
from widehead.targets import SparseTargets


def gradient_of(hidden: torch.Tensor, curvature: float = 1.0) -> tuple[OutputGradient, float]:
    """The gradient of a loss with Λ = ``curvature``·I, and λmax(ΛHHᵀ)."""
    largest = curvature * float(torch.linalg.svdvals(hidden)[0]) ** 2
    return only_gradient_of(hidden, curvature), largest


def only_gradient_of(hidden: torch.Tensor, curvature: float = 1.0) -> OutputGradient:
    m, d = hidden.shape
    weights = FactoredWeights.from_dense(torch.zeros(5, d, dtype=hidden.dtype))
    read = forward(weights, hidden, SparseTargets([], [0] * (m + 1)))
    lam = torch.full((m,), curvature, dtype=hidden.dtype)
    return output_gradient(weights, read, lam, torch.zeros_like(lam), hidden.new_zeros(0))


def slow() -> torch.Tensor:
    """(8, 3): the longest example points almost away from where the seven others go, which are nearly as strong."""
    rest = torch.tensor([[1.0, 0.02, 0.0]], dtype=torch.float64).repeat(7, 1) / 7**0.5
    return torch.cat([torch.tensor([[0.0, 0.97, 0.01]], dtype=torch.float64), rest])


def test_precise_is_within_a_percent_where_a_few_iterations_are_not() -> None:
    gradient, largest = gradient_of(slow())
    assert 0.99 * largest <= LearningRateMonitor().largest(gradient, precise=True) <= (1 + 1e-12) * largest
    assert LearningRateMonitor().largest(gradient) < 0.99 * largest


def test_later_calls_come_close_and_never_pass() -> None:
    gradient, largest = gradient_of(slow())
    monitor = LearningRateMonitor()
    found = [monitor.largest(gradient) for _ in range(60)]
    assert max(found) <= (1 + 1e-12) * largest
    assert found[-1] >= 0.99 * largest


@pytest.mark.parametrize("nothing", [0.0, float("nan")])
def test_a_batch_that_says_nothing_is_forgotten(nothing: float) -> None:
    monitor = LearningRateMonitor()
    monitor.largest(only_gradient_of(nothing * torch.ones(8, 3, dtype=torch.float64)))
    gradient, largest = gradient_of(torch.randn(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    assert monitor.largest(gradient) == pytest.approx(largest, rel=0.01)


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_the_bound_is_one_and_exact_for_one_example(scale: float) -> None:
    hidden = scale * torch.randn(8, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradient, largest = gradient_of(hidden, 2.0)
    assert LearningRateMonitor().bound(gradient) >= largest
    gradient, largest = gradient_of(hidden[:1], 2.0)
    assert LearningRateMonitor().bound(gradient) == pytest.approx(largest)


def test_examples_that_weigh_nothing_or_much_are_counted_as_such() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(6, 1) * torch.randn(1, 4) + 0.01 * torch.randn(6, 4)
    right = torch.diag(torch.tensor([1.0, 2.0, 0.5, 3.0]))
    weights = torch.tensor([0.0, 4.0, 1.0, 9.0, 0.1, 0.25])
    dense = (hidden.T @ (weights[:, None] * hidden) @ right).double()
    expected = float(torch.linalg.eigvals(dense).real.max())
    assert float(dense_curvature(hidden, hidden @ right, weights)) == pytest.approx(expected, rel=1e-4)
