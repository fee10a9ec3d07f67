"""Steps near the largest stable one: rank-one corrections keep U well conditioned, and W is what dense SGD makes."""

from __future__ import annotations

import pytest
import torch

from widehead import factored
from widehead.arithmetic import TORCH, Corrected, SmallState, StepRule, correct_before
from widehead.factored import FactoredWeights
from widehead.targets import SparseTargets

D, WIDTH, M = 300, 24, 16


def corrected(small: SmallState, solved: torch.Tensor, hidden: torch.Tensor, gain: float) -> Corrected | None:
    """The correction in a step of a batch without targets."""
    weights, zero = FactoredWeights.from_dense(torch.zeros(1, WIDTH, dtype=torch.float64)), torch.zeros(M).double()
    read = factored.forward(weights, hidden, SparseTargets([], [0] * (M + 1)))
    gradient = factored.output_gradient(weights, read, zero, None, zero[:0])
    return TORCH.correct(gradient, StepRule.sgd(-gain), small, solved, hidden, read.values)


@pytest.mark.parametrize("smallest", [0.5, 0.1, 0.04])
def test_a_small_singular_value_is_exchanged_for_a_correction(smallest: float) -> None:
    g = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=g, dtype=torch.float64))[0] for _ in range(2))
    factor = (
        left @ torch.diag(torch.cat([torch.tensor([smallest]), torch.linspace(0.8, 1.2, WIDTH - 1)]).double()) @ right
    )
    vector = torch.zeros(WIDTH, dtype=torch.float64)
    small = SmallState.joined(factor, vector, vector, factor, torch.linalg.inv(factor), torch.float64)
    hidden = torch.randn(M, WIDTH, generator=g, dtype=torch.float64)
    made = corrected(small, -0.1 * hidden @ small.inverse, hidden, -0.1)
    assert made is not None
    eye = torch.eye(WIDTH, dtype=torch.float64)
    assert torch.allclose((eye + torch.outer(made.x, made.b)) @ made.small.factor, factor, atol=1e-12)
    assert torch.allclose(made.small.factor @ made.small.inverse, eye, atol=1e-11)
    assert torch.allclose(made.solved @ made.small.factor, -0.1 * hidden, atol=1e-11)
    assert torch.linalg.cond(made.small.factor) < 2.0
    assert torch.equal(made.small.gram, small.gram)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("m", [M, WIDTH + 6])
@pytest.mark.parametrize(("fraction", "decay"), [(0.1, 0.0), (0.25, 0.0), (0.5, 0.0), (0.5, 0.01)])
def test_steps_in_one_dominant_direction(fraction: float, decay: float, dtype: torch.dtype, m: int) -> None:
    """At ``fraction`` of the largest stable step; nearly all that ends a segment elsewhere is a correction here."""
    g = torch.Generator().manual_seed(1)
    scale = torch.arange(1.0, WIDTH + 1.0, dtype=torch.float64) ** -0.5
    mean = torch.randn(WIDTH, generator=g, dtype=torch.float64)
    mean *= scale.norm() / mean.norm()
    lr = fraction * 2.0 / float(torch.linalg.eigvalsh(2.0 * (torch.diag(scale**2) + torch.outer(mean, mean)))[-1])
    truth = torch.randn(D, WIDTH, generator=g, dtype=torch.float64)
    weights = FactoredWeights.from_dense(truth.to(dtype, copy=True))
    closed = 0
    for _ in range(200):
        hidden = (torch.randn(m, WIDTH, generator=g, dtype=torch.float64) * scale + mean).to(dtype)
        ids = torch.randint(0, D, (m,), generator=g)
        read = factored.forward(weights, hidden, SparseTargets(ids, torch.arange(m + 1)))
        lam, sparse = torch.full((m,), 2.0 / m, dtype=dtype), torch.full((m,), -2.0 / m, dtype=dtype)
        gradient = factored.output_gradient(weights, read, lam, None, sparse)
        change = factored.plan_step(weights, gradient, StepRule.sgd(lr, decay))
        factored.apply_step(weights, change)
        closed += change.closes
        exact = hidden.double()
        outputs = 2.0 / m * exact @ truth.T
        outputs[torch.arange(m), ids] -= 2.0 / m
        truth = (1.0 - lr * decay) * truth - lr * outputs.T @ exact
    assert weights.versions.closes >= 5
    assert closed <= 0.2 * weights.versions.closes
    error = (weights.dense().double() - truth).norm() / truth.norm()
    assert error < (3e-6 if dtype == torch.float32 else 1e-12)
    found = factored.audit(weights)
    assert max(found.gram, found.inverse) < (1e-5 if dtype == torch.float32 else 1e-11)


@pytest.mark.parametrize("smallest", [1e-3, 0.0])
def test_a_singular_value_whose_inverse_is_not_known_well_is_left(smallest: float) -> None:
    factor = torch.eye(WIDTH, dtype=torch.float64)
    factor[0, 0] = smallest
    inverse = factor.clone()
    inverse[0, 0] = 1.0 / smallest if smallest else torch.inf
    small = SmallState.joined(factor, factor[1], factor[1], factor, inverse, torch.float64)
    hidden = torch.ones(M, WIDTH, dtype=torch.float64)
    assert corrected(small, hidden @ small.inverse, hidden, 1.0) is None


@pytest.mark.parametrize("m", [5, WIDTH + 6])
@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize("left", [1e-2, 1e-6, -1e-9])
def test_a_direction_of_which_a_step_leaves_nothing_is_kept_out_of_u(left: float, decay: float, m: int) -> None:
    """The step leaves the part ``left`` of one direction: U' is without it, U' and the correction together have all."""
    g, eye = torch.Generator().manual_seed(2), torch.eye(WIDTH, dtype=torch.float64)
    weights = FactoredWeights.from_dense(torch.randn(D, WIDTH, generator=g, dtype=torch.float64))
    lr, lam = 0.1, torch.full((m,), 2.0 / m, dtype=torch.float64)
    ids, sparse = torch.randint(0, D, (m,), generator=g), torch.randn(m, generator=g, dtype=torch.float64)
    rule = StepRule.sgd(lr, decay)
    for contracted in (False, True):  # an ordinary step first, so that U is not I
        hidden = 0.1 * torch.randn(m, WIDTH, generator=g, dtype=torch.float64)
        if contracted:
            u, s, v = torch.linalg.svd(hidden, full_matrices=False)
            s[0] = (m * (1.0 - lr * decay - left) / (2.0 * lr)) ** 0.5
            hidden = u * s @ v
        read = factored.forward(weights, hidden, SparseTargets(ids, torch.arange(m + 1)))
        gradient = factored.output_gradient(weights, read, lam, None, sparse)
        made, before = TORCH.step(gradient, rule, weights.small, hidden, None), weights.small
        factored.apply_step(weights, factored.plan_step(weights, gradient, rule))
    found = correct_before(gradient, rule, before, made)
    assert found is not None
    factor = before.factor @ ((1.0 - lr * decay) * eye - lr * hidden.T @ (lam[:, None] * hidden))
    torch.testing.assert_close((eye + torch.outer(found.x, found.b)) @ found.small.factor, factor, atol=1e-12, rtol=0.0)
    torch.testing.assert_close(found.small.factor @ found.small.inverse, eye, atol=1e-12, rtol=0.0)
    torch.testing.assert_close(found.solved @ found.small.factor, -lr * hidden, atol=1e-12, rtol=0.0)
    assert torch.linalg.cond(found.small.factor) < 3.0
    assert torch.linalg.cond(factor) > 0.5 / abs(left)
    values = read.values + torch.outer(read.values @ found.x, found.b)
    rows = torch.zeros(D, WIDTH, dtype=torch.float64).index_add_(0, ids, sparse[:, None] * found.solved)
    torch.testing.assert_close(found.values, values, atol=1e-12, rtol=0.0)
    torch.testing.assert_close(found.rows, values + rows[read.plan.class_ids], atol=1e-12, rtol=0.0)
