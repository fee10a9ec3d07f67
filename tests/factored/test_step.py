"""The exact step against the dense one, for what the table of losses does not reach: R, Λ of any sign, singular P."""

from __future__ import annotations

import itertools

import pytest
import torch
from support import reference

from widehead import factored
from widehead.arithmetic import OutputGradient, StepRule
from widehead.errors import NonFiniteError
from widehead.factored import FactoredWeights
from widehead.targets import SparseTargets

D = 40


def exact_step(weights: FactoredWeights, gradient: OutputGradient, lr: float) -> None:
    factored.apply_step(weights, factored.plan_step(weights, gradient, StepRule.sgd(lr)))


def problem(m: int, d: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """W, H, λ of both signs, σ, and ragged targets with their values g."""
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(D, d, generator=g, dtype=torch.float64)
    hidden = torch.randn(m, d, generator=g, dtype=torch.float64)
    lam = torch.randn(m, generator=g, dtype=torch.float64)
    sigma = torch.randn(m, generator=g, dtype=torch.float64)
    counts = torch.randint(0, 4, (m,), generator=g)
    offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    ids = torch.randint(0, D, (int(offsets[-1]),), generator=g)
    values = torch.randn(ids.numel(), generator=g, dtype=torch.float64)
    return weight, hidden, lam, sigma, ids, offsets, values


def dense_t(weight: torch.Tensor, parts: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """T (m, D), written out."""
    hidden, lam, sigma, ids, offsets, values = parts
    t = lam[:, None] * (hidden @ weight.T) + sigma[:, None]
    for b, (start, stop) in enumerate(itertools.pairwise(offsets.tolist())):
        for k in range(start, stop):
            t[b, ids[k]] += values[k]
    return t


def examples_of(offsets: torch.Tensor) -> torch.Tensor:
    """(nnz,) the example of each target."""
    return torch.repeat_interleave(torch.arange(len(offsets) - 1), offsets.diff())


def gradient_of(weights: FactoredWeights, parts: tuple[torch.Tensor, ...]) -> OutputGradient:
    hidden, lam, sigma, ids, offsets, values = parts
    dtype = weights.values.dtype
    read = factored.forward(weights, hidden.to(dtype), SparseTargets(ids, offsets))
    return factored.output_gradient(weights, read, lam.to(dtype), sigma.to(dtype), values.to(dtype))


@pytest.mark.parametrize(("m", "d"), [(3, 7), (7, 7), (20, 7), (1, 1)])
@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_one_step(m: int, d: int, decay: float, preconditioned: bool) -> None:
    weight, *parts = problem(m, d)
    right = None
    if preconditioned:
        root = torch.randn(d, d, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
        right = root @ root.T / d + 0.1 * torch.eye(d, dtype=torch.float64)
    weights = FactoredWeights.from_dense(weight.clone())
    for lr in (0.01, 0.1, 0.0):
        gradient = gradient_of(weights, tuple(parts))
        t = dense_t(weight, tuple(parts))
        assert torch.allclose(gradient.by_hidden, t @ weight, rtol=1e-9, atol=1e-9)
        assert torch.isclose(gradient.norm(), (t.T @ parts[0]).norm(), rtol=1e-10)
        weight = reference.sgd(weight, t.T @ parts[0], lr, decay, right)
        hidden_right = None if right is None else parts[0] @ right
        change = factored.plan_step(weights, gradient, StepRule.sgd(lr, decay), hidden_right)
        factored.apply_step(weights, change)
        assert torch.allclose(weights.dense(), weight, rtol=1e-9, atol=1e-9)
        assert torch.allclose(weights.small.gram, weight.T @ weight, rtol=1e-9, atol=1e-9)
        assert torch.allclose(weights.small.column_sum, weight.sum(0), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("m", [1, 4, 12])
@pytest.mark.parametrize("miss", [0.0, 1e-14, 1e-8, 1e-4])
def test_singular_and_nearly_singular_steps(dtype: torch.dtype, m: int, miss: float) -> None:
    """I − ηHᵀΛH has an eigenvalue of 0 (or almost): W loses a direction, and every row must still be right."""
    d = 6
    weight, hidden, _, sigma, ids, offsets, values = problem(m, d, seed=3)
    lam = torch.full((m,), 2.0, dtype=torch.float64)
    weights = FactoredWeights.from_dense(weight.to(dtype))
    for _ in range(5):
        lr = (1.0 + miss) / float(torch.linalg.eigvalsh(2.0 * hidden.T @ hidden)[-1])
        parts = (hidden, lam, sigma, ids, offsets, values)
        weight = weight - lr * dense_t(weight, parts).T @ hidden
        exact_step(weights, gradient_of(weights, parts), lr)
        hidden = hidden.flip(1)
    error = (weights.dense().double() - weight).norm() / weight.norm()
    assert error < (1e-12 if dtype == torch.float64 else 3e-6)
    assert weights.versions.closes > 0


def test_rows_are_exact_whatever_the_segment_and_the_sweep() -> None:
    """Hundreds of violent steps: rows of every age, open segment, sweep half way."""
    weight, *_ = problem(1, 5)
    weights = FactoredWeights.from_dense(weight.clone())
    for step in range(400):
        _, hidden, lam, sigma, ids, offsets, values = problem(3, 5, seed=step)
        parts = (hidden, lam.abs(), 0.01 * sigma, ids, offsets, values)
        lr = 1.7 / float(torch.linalg.eigvals(hidden.T @ (lam.abs()[:, None] * hidden)).real.max())
        weight = weight - lr * dense_t(weight, parts).T @ hidden
        exact_step(weights, gradient_of(weights, parts), lr)
    assert torch.allclose(weights.dense(), weight, rtol=1e-8, atol=1e-8)
    assert len(weights.versions.live) > 3
    weights.consolidate()
    assert torch.allclose(weights.values + weights.small.shift, weight, rtol=1e-8, atol=1e-8)


RULES = {
    "sgd": StepRule.sgd(0.002, 0.01),
    "heavy ball": StepRule.heavy_ball(0.002, 0.9),
    "nesterov": StepRule.heavy_ball(0.002, 0.9, nesterov=True, weight_decay=0.01),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("m", [3, 20])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_mild_steps_stay_in_their_segment(rule: StepRule, m: int, preconditioned: bool) -> None:
    """A wrong U⁻¹ would be noticed by its drift and cost a new segment in each step, which no weight shows."""
    weight, hidden, lam, *rest = problem(m, 7)
    weights = FactoredWeights.from_dense(weight).with_order(rule.order)
    right = torch.diag(torch.linspace(0.2, 1.0, 7, dtype=torch.float64)) + 0.1 if preconditioned else None
    for _ in range(12):
        gradient = gradient_of(weights, (hidden, lam.abs(), *rest))
        change = factored.plan_step(weights, gradient, rule, None if right is None else hidden @ right)
        factored.apply_step(weights, change)
    found = factored.audit(weights)
    assert (found.closes, found.segment_steps) == (0, 12)
    assert max(found.gram, found.inverse) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_factor_that_only_shrinks_is_closed_in_time(dtype: torch.dtype) -> None:
    """Decay by 0.1 a step leaves U a multiple of I, as well conditioned as can be, and V without bounds."""
    weight, hidden, _, _, ids, offsets, values = problem(3, 5)
    weights = FactoredWeights.from_dense(weight.to(dtype))
    for _ in range(40):
        gradient = gradient_of(weights, (hidden, torch.zeros(3), torch.zeros(3), ids, offsets, values))
        factored.apply_step(weights, factored.plan_step(weights, gradient, StepRule.sgd(0.1, 9.0)))
        assert 1e-11 < weights.small.factor.diagonal().min() <= 1.0
    step = torch.zeros_like(weight).index_add_(0, ids, values[:, None] * hidden[examples_of(offsets)])
    assert torch.allclose(weights.dense().double(), -step / 9.0, rtol=1e-5, atol=1e-6)


def test_an_inverse_that_went_wrong_is_noticed_and_done_without() -> None:
    weight, *parts = problem(3, 5)
    weights = FactoredWeights.from_dense(weight.clone())
    weights.small.inverse.add_(1e-6)  # in float64 all views are one tensor
    exact_step(weights, gradient_of(weights, tuple(parts)), 0.001)
    assert weights.versions.closes == 1
    weight = weight - 0.001 * dense_t(weight, tuple(parts)).T @ parts[0]
    assert torch.allclose(weights.dense(), weight, rtol=1e-12)


def test_a_segment_is_closed_for_directions_that_no_example_has_now() -> None:
    """One direction shrinks 50-fold, then another grows 50-fold: no row of today is amplified, the next might be."""
    weight, *_ = problem(1, 2)
    weights = FactoredWeights.from_dense(weight.clone())
    none = SparseTargets([], [0, 0])
    for hidden, lam, closes in (([1.0, 0.0], 0.98, 0), ([0.0, 1.0], -49.0, 1)):
        read = factored.forward(weights, torch.tensor([hidden], dtype=torch.float64), none)
        lam = torch.tensor([lam], dtype=torch.float64)
        exact_step(weights, factored.output_gradient(weights, read, lam, torch.zeros_like(lam), lam[:0]), 1.0)
        assert weights.versions.closes == closes
    assert torch.allclose(weights.dense(), weight * torch.tensor([0.02, 50.0], dtype=torch.float64), rtol=1e-12)


def test_a_step_that_overflows_is_refused_before_anything_changes() -> None:
    weight, *parts = problem(3, 7)
    weights = FactoredWeights.from_dense(weight.float())
    gradient = gradient_of(weights, tuple(parts))
    for lr in (1e30, 1e300):
        with pytest.raises(NonFiniteError, match="too large"):
            factored.plan_step(weights, gradient, StepRule.sgd(lr))
    assert torch.equal(weights.dense(), weight.float())
    assert weights.revision == 0


def test_decay_that_would_wipe_out_the_weights_is_refused() -> None:
    for make in (StepRule.sgd, lambda lr, weight_decay: StepRule.heavy_ball(lr, 0.9, weight_decay=weight_decay)):
        with pytest.raises(ValueError, match="below 1"):
            make(0.5, weight_decay=2.0)


@pytest.mark.parametrize("steps", [1_000, pytest.param(10_000, marks=pytest.mark.long)])
def test_small_updates_are_not_lost_in_float32(steps: int) -> None:
    """Contractions by 1 − 1e-8 each: a float32 U would stay at 1 while Q shrank, and they would part ways."""
    torch.manual_seed(0)
    weights = FactoredWeights.from_dense(torch.randn(50, 4))
    hidden = torch.eye(4)
    none = SparseTargets([], [0] * 5)
    for _ in range(steps):
        read = factored.forward(weights, hidden, none)
        gradient = factored.output_gradient(weights, read, torch.ones(4), torch.zeros(4), torch.zeros(0))
        exact_step(weights, gradient, 1e-8)
    assert torch.allclose(
        weights.small.flushed().master.diagonal(), torch.tensor(1 - 1e-8 * steps, dtype=torch.float64), rtol=1e-7
    )
    assert factored.audit(weights).gram < 1e-6


def test_audit_sees_every_kind_of_damage() -> None:
    weight, *_ = problem(3, 7)
    weights = FactoredWeights.from_dense(weight.clone())
    assert factored.audit(weights).gram < 1e-14
    weights.small.gram[0, 0] += 1.0
    weights.small.column_sum[0] += 1.0
    weights.small.inverse[0, 0] += 1.0
    weights.values[3, 3] = float("nan")
    found = factored.audit(weights)
    assert not found.finite
    weights.values[3, 3] = weight[3, 3]
    found = factored.audit(weights)
    assert found.finite
    assert found.gram > 1e-4
    assert found.column_sum > 1e-4
    assert found.inverse > 1e-4
