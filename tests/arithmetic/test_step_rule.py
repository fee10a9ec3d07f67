"""The linear rule of a step: its inverse, and the coordinates in which momentum is a matter of scale."""

from __future__ import annotations

import pytest
import torch

from widehead.arithmetic import StepRule

RULES = [
    StepRule.sgd(0.1, 0.2),
    StepRule.heavy_ball(0.1, 0.9),
    StepRule.heavy_ball(0.1, 0.9, nesterov=True, weight_decay=0.3),
    StepRule.heavy_ball(0.1, 0.5, weight_decay=0.2, decoupled=True),
    StepRule.heavy_ball(0.1, 0.0, weight_decay=0.2),
]


@pytest.mark.parametrize("rule", RULES)
def test_the_inverse_is_one(rule: StepRule) -> None:
    inverse = rule.inverse()
    assert inverse is not None
    product = torch.tensor(rule.mix, dtype=torch.float64) @ torch.tensor(inverse, dtype=torch.float64)
    assert torch.allclose(product, torch.eye(rule.order, dtype=torch.float64), atol=1e-12)


def test_a_singular_rule_has_no_inverse() -> None:
    assert StepRule.heavy_ball(0.1, 1e-6).inverse() is None


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_in_its_basis_a_step_without_gradient_is_diagonal(nesterov: bool, decay: float) -> None:
    """z = w + r·m: what is kept of it is 1 − lr·λ, and of m it is μ; without curvature neither sees the other."""
    rule = StepRule.heavy_ball(0.1, 0.9, nesterov=nesterov, weight_decay=decay, decoupled=True)
    p = torch.tensor(rule.mix, dtype=torch.float64)
    to_basis = torch.tensor([[1.0, 0.0], [rule.basis(), 1.0]], dtype=torch.float64)
    seen = torch.linalg.inv(to_basis) @ p @ to_basis
    assert torch.allclose(seen, torch.diag(torch.tensor([1.0 - 0.1 * decay, 0.9], dtype=torch.float64)), atol=1e-12)


@pytest.mark.parametrize("decay", [0.9, 0.99, 1.0, 1.1])
def test_the_basis_stays_bounded_where_decay_comes_close_to_momentum(decay: float) -> None:
    """No coordinates separate W from M where both shrink alike; those of four times the way are good enough."""
    rule = StepRule.heavy_ball(0.1, 0.9, weight_decay=decay, decoupled=True)
    assert -4.0 * 0.1 * 0.9 / (1.0 - 0.9) * (1.0 + 1e-9) <= rule.basis() < 0.0


def test_not_finite_is_seen() -> None:
    assert StepRule.sgd(0.1).is_finite
    assert not StepRule(((1.0,),), (float("nan"),)).is_finite
    assert not StepRule(((float("inf"),),), (0.1,)).is_finite


def tensor(number: float) -> torch.Tensor:
    return torch.tensor(number, dtype=torch.float64)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decoupled", [False, True])
def test_rules_of_tensors_become_those_of_plain_numbers(momentum: float, nesterov: bool, decoupled: bool) -> None:
    plain = StepRule.heavy_ball(0.1, momentum, nesterov=nesterov, weight_decay=0.3, decoupled=decoupled)
    for numbers in ((tensor(0.1), momentum, 0.3), (0.1, tensor(momentum), 0.3), (0.1, momentum, tensor(0.3))):
        rule = StepRule.heavy_ball(*numbers[:2], nesterov=nesterov, weight_decay=numbers[2], decoupled=decoupled)
        assert rule.known() == plain
    assert StepRule.sgd(tensor(0.1), 0.2).known() == StepRule.sgd(0.1, 0.2)
    assert plain.known() is plain


def test_a_rule_without_decay_keeps_whatever_its_length() -> None:
    assert StepRule.sgd(tensor(0.1)).keeps
    assert not StepRule.sgd(0.1, tensor(0.0)).keeps  # known to the tensor alone


def test_without_momentum_the_momentum_stays() -> None:
    """As torch leaves its buffer."""
    rule = StepRule.heavy_ball(0.1, 0.0, weight_decay=0.2)
    assert (rule.mix, rule.gain) == (((0.98, 0.0), (0.0, 1.0)), (-0.1, 0.0))


@pytest.mark.parametrize("momentum", [0.1, 0.3, 0.9, 0.99])
@pytest.mark.parametrize("lr", [3e-7, 0.013, 0.7, 31.0])
@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_with_heavy_ball_a_gradient_is_carried_by_the_momentum_alone(momentum: float, lr: float, decay: float) -> None:
    """φ = f·p⁻¹ with φ₁ exactly 0 without decay inside the momentum: compiled steps then invert nothing."""
    rule = StepRule.heavy_ball(lr, momentum, weight_decay=decay, decoupled=True)
    first, second = rule.carried()
    (a, b), (c, d) = rule.mix
    assert first == 0.0
    assert first * b + second * d == pytest.approx(rule.gain[1], rel=1e-12)
    assert first * a + second * c == pytest.approx(rule.gain[0], rel=1e-12)


def test_with_nesterov_it_is_carried_by_both() -> None:
    rule = StepRule.heavy_ball(0.1, 0.9, nesterov=True)
    first, second = rule.carried()
    (a, b), (c, d) = rule.mix
    assert abs(first) > 1e-3
    assert [first * a + second * c, first * b + second * d] == pytest.approx(list(rule.gain))
