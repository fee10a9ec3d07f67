"""When a segment is closed: each limit crossed alone, by a hair, while everything else is at its best."""

from __future__ import annotations

from math import inf, nan

import pytest
import torch

from widehead.arithmetic import Figures, SmallState, StepRule
from widehead.versions.conditioning import contracts_too_much, drift_of, is_sound

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
LR = 0.1
SGD, HEAVY = StepRule.sgd(LR), StepRule.heavy_ball(LR, 0.9)
RULES = pytest.mark.parametrize("rule", [SGD, HEAVY], ids=["sgd", "heavy ball"])
# |f| in the coordinates (z, m) of heavy ball: z moves by lr/(1 − μ), and by as much again that is undone; m by 1.
GROWTH = {SGD: (LR,), HEAVY: (LR / (1.0 - 0.9), 1.0)}


def best(rule: StepRule) -> Figures:
    """What is seen at the beginning of a segment: U = I."""
    eye = (1.0,) if rule.order == 1 else (1.0, 0.0, 0.0, 1.0)
    return Figures(factor=eye, inverse=eye, growth=GROWTH[rule], sums=(0.0, 0.0), contraction=0.0)


def times(numbers: tuple[float, ...], at: int, factor: float) -> tuple[float, ...]:
    return tuple(number * factor if i == at else number for i, number in enumerate(numbers))


def sound(figures: Figures, rule: StepRule, dtype: torch.dtype, drift: float = 0.0) -> bool:
    return is_sound(figures, rule, dtype, drift)


@DTYPES
@RULES
def test_the_beginning_of_a_segment_is_sound(rule: StepRule, dtype: torch.dtype) -> None:
    assert sound(best(rule), rule, dtype)


@DTYPES
@RULES
@pytest.mark.parametrize("block", [0, -1])
def test_condition(rule: StepRule, dtype: torch.dtype, block: int) -> None:
    """κ_F = ‖U‖_F‖U⁻¹‖_F/d of each block of V."""
    limit, good = {torch.float32: 30.0, torch.float64: 1000.0}[dtype], best(rule)
    at = block % len(good.inverse)
    assert sound(good._replace(inverse=times(good.inverse, at, 0.99 * limit)), rule, dtype)
    assert not sound(good._replace(inverse=times(good.inverse, at, 1.01 * limit)), rule, dtype)


@DTYPES
def test_amplification(dtype: torch.dtype) -> None:
    """max ‖C_b‖/‖(Hr)_b‖ · ‖U‖_F/√d, where lr is what there is at the beginning."""
    limit, good = {torch.float32: 8.0, torch.float64: 64.0}[dtype], best(SGD)
    assert sound(good._replace(growth=(0.99 * limit * LR,)), SGD, dtype)
    assert not sound(good._replace(growth=(1.01 * limit * LR,)), SGD, dtype)
    # The same rounding errors of the rows reach W through a larger U.
    larger = good._replace(factor=(2.0,), inverse=(0.5,))
    assert sound(larger._replace(growth=(0.49 * limit * LR,)), SGD, dtype)
    assert not sound(larger._replace(growth=(0.51 * limit * LR,)), SGD, dtype)


@DTYPES
@pytest.mark.parametrize("block", [0, 1])
def test_amplification_of_each_block(dtype: torch.dtype, block: int) -> None:
    """With momentum z's natural gain is counted twice, for what comes through M and is undone."""
    limit, good = {torch.float32: 8.0, torch.float64: 64.0}[dtype], best(HEAVY)
    natural = (2.0 * LR / (1.0 - 0.9) - LR, 1.0)  # |f₁ + r f₂| + |r f₂| with r = −lr·μ/(1 − μ)
    for factor, expected in ((0.99, True), (1.01, False)):
        growth = tuple(factor * limit * natural[j] if j == block else g for j, g in enumerate(good.growth))
        assert sound(good._replace(growth=growth), HEAVY, dtype) is expected


@DTYPES
@RULES
@pytest.mark.parametrize(("scale", "expected"), [(0.9e-10, False), (1.1e-10, True), (0.9e4, True), (1.1e4, False)])
@pytest.mark.parametrize("block", [0, -1])
def test_scale(rule: StepRule, dtype: torch.dtype, scale: float, expected: bool, block: int) -> None:
    """U small or large as a whole: its condition is as it was, and C grows as U shrinks."""
    good = best(rule)
    at = block % len(good.factor)
    row = at // rule.order
    shrunk = good._replace(
        factor=times(good.factor, at, scale),
        inverse=times(good.inverse, at, 1.0 / scale),
        growth=times(good.growth, row, 1.0 / scale),
    )
    assert sound(shrunk, rule, dtype) is (expected and not (rule is SGD and scale < 1.0))


@DTYPES
def test_a_sum_that_shrank_keeps_the_rounding_of_what_it_was(dtype: torch.dtype) -> None:
    """Without decay and momentum U is I and what steps added; with them it is rounded as it is."""
    least, decayed = {torch.float32: 0.05, torch.float64: 1e-3}[dtype], StepRule.sgd(LR, 0.1)
    for share, rule, expected in ((0.99, SGD, False), (1.01, SGD, True), (0.99, decayed, True)):
        size = share * least
        shrunk = best(SGD)._replace(factor=(size,), inverse=(1.0 / size,), growth=(LR / size,))
        assert sound(shrunk, rule, dtype) is expected


@DTYPES
@RULES
def test_drift(rule: StepRule, dtype: torch.dtype) -> None:
    limit = {torch.float32: 1e-5, torch.float64: 1e-13}[dtype]
    assert sound(best(rule), rule, dtype, drift=0.99 * limit)
    assert not sound(best(rule), rule, dtype, drift=1.01 * limit)
    assert not sound(best(rule), rule, dtype, drift=nan)


@DTYPES
@RULES
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_contraction(rule: StepRule, dtype: torch.dtype, sign: float) -> None:
    """The mean of 1/σ − 1; negative if the step overshoots."""
    limit = sign * {torch.float32: 16.0, torch.float64: 1e6}[dtype]
    for factor, expected in ((0.99, True), (1.01, False)):
        found = best(rule)._replace(contraction=factor * limit)
        assert sound(found, rule, dtype) is expected
        assert contracts_too_much(found, dtype) is not expected


@DTYPES
@RULES
@pytest.mark.parametrize("poison", [nan, inf, -inf])
def test_what_is_not_finite_is_never_sound(rule: StepRule, dtype: torch.dtype, poison: float) -> None:
    good = best(rule)
    for name in ("factor", "inverse", "growth", "sums"):
        numbers = getattr(good, name)
        # An off-diagonal block of U or U⁻¹ is seen through the products with others, which are not 0 in a real one.
        for at in range(len(numbers)):
            if name == "growth" and poison == -inf:
                continue  # a norm is never negative
            if name in ("factor", "inverse") and (poison == -inf or at in (1, 2)):
                continue
            poisoned = tuple(poison if i == at else number for i, number in enumerate(numbers))
            assert not sound(good._replace(**{name: poisoned}), rule, dtype), (name, at)
    assert not sound(good._replace(contraction=poison), rule, dtype)


@DTYPES
@pytest.mark.parametrize("scales", [(1e-3, 1e3), (1e3, 1e-3), (7.0, 7.0)], ids=str)
@pytest.mark.parametrize("condition", [0.98, 1.02])
def test_a_scale_that_a_whole_block_of_rows_has_is_no_matter(
    dtype: torch.dtype, scales: tuple[float, float], condition: float
) -> None:
    """V ← V·diag(a, b)⁻¹ and U ← diag(a, b)·U: rows of U times a and b, columns of U⁻¹ and of C divided by them."""
    limit, rule = {torch.float32: 30.0, torch.float64: 1000.0}[dtype], HEAVY
    coupled = best(rule)._replace(factor=(1.0, 0.1, 0.1, 1.0))
    figures = coupled._replace(inverse=(condition * limit, 0.1, 0.1, 1.0), growth=tuple(g / 2 for g in GROWTH[rule]))
    # `inverse` has the blocks of U⁻ᵀ: its rows belong to the blocks of V, as U's do.
    by_row = (scales[0], scales[0], scales[1], scales[1])
    scaled = figures._replace(
        factor=tuple(number * s for number, s in zip(figures.factor, by_row, strict=True)),
        inverse=tuple(number / s for number, s in zip(figures.inverse, by_row, strict=True)),
        growth=tuple(number / s for number, s in zip(figures.growth, scales, strict=True)),
    )
    assert sound(figures, rule, dtype) is (condition < 1.0)
    assert sound(scaled, rule, dtype) is sound(figures, rule, dtype)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("block", [0, -1])
@pytest.mark.parametrize("drift", [0.0, 1e-12, 1e-3])
def test_the_drift_of_the_inverse_is_what_it_lacks(order: int, block: int, drift: float) -> None:
    """U⁻¹ that is wrong by a factor 1 + drift in the rows of one block of V."""
    c = 5 * order
    factor = torch.linalg.qr(torch.randn(c, c, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    wrong = torch.ones(c, dtype=torch.float64)
    wrong.split(5)[block].fill_(1.0 + drift)
    zeros = torch.zeros(c, dtype=torch.float64)
    small = SmallState.joined(factor, zeros, zeros, factor, factor.T * wrong, torch.float64)
    assert drift_of(small, order) == pytest.approx(drift, rel=1e-2, abs=2e-15)
