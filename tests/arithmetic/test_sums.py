"""A step from sums over the examples is the step from the examples themselves."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from widehead.arithmetic import OutputGradient, SmallState, StepRule
from widehead.arithmetic.solve import solve
from widehead.arithmetic.step import _state_by_examples, step
from widehead.arithmetic.sums import curvature_of
from widehead.factored import FactoredWeights, output_gradient
from widehead.targets import SparseTargets

D, WIDTH, EXAMPLES = 40, 4, 11
RULES = {
    "sgd": StepRule.sgd(0.02),
    "decay": StepRule.decoupled(0.02, 0.02, 0.1),
    "momentum": StepRule.heavy_ball(0.02, 0.9),
    "nesterov": StepRule.heavy_ball(0.02, 0.9, nesterov=True),
}


def given(rule: StepRule, *, constant: bool, seed: int = 1) -> tuple[OutputGradient, SmallState]:
    """A gradient in the middle of a segment, with ragged targets, some named twice."""
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(D, rule.order * WIDTH, generator=g, dtype=torch.float64)
    weights = FactoredWeights.from_dense(weight, rule.order)
    gradient = None
    for _ in range(3):
        if gradient is not None:
            weights.apply(weights.plan(gradient, rule))
        counts = torch.randint(0, 5, (EXAMPLES,), generator=g)
        ids = torch.randint(0, D, (int(counts.sum()),), generator=g)
        targets = SparseTargets(ids, torch.nn.functional.pad(counts.cumsum(0), (1, 0)))
        hidden = torch.randn(EXAMPLES, WIDTH, generator=g, dtype=torch.float64)
        read = weights.forward(hidden, targets)
        lam, sigma = (torch.randn(EXAMPLES, generator=g, dtype=torch.float64) for _ in range(2))
        sparse = torch.randn(len(ids), generator=g, dtype=torch.float64)
        gradient = output_gradient(weights, read, lam, sigma if constant else None, sparse)
    assert gradient is not None
    return gradient, weights.small


@pytest.mark.parametrize("known", [False, True], ids=["", "TTᵀHR is known"])
@pytest.mark.parametrize("preconditioned", [False, True], ids=["", "preconditioned"])
@pytest.mark.parametrize("constant", [False, True], ids=["", "σ"])
@pytest.mark.parametrize("name", RULES)
def test_both_ways_give_the_same(name: str, *, constant: bool, preconditioned: bool, known: bool) -> None:
    rule = RULES[name]
    gradient, small = given(rule, constant=constant)
    root = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    hidden = gradient.read.hidden
    hr = hidden @ (root @ root.T) if preconditioned else hidden
    gram_hr = gradient.gram_times(hr)
    expected = _state_by_examples(gradient, rule, small, hr, gram_hr, solve(gradient, rule, small, hr))
    made = step(gradient, rule, small, hr, gram_hr if known else None)
    torch.testing.assert_close(made.small.value, expected.value, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("cuts", [(0, 11), (0, 3, 11), (0, 0, 5, 11)])
def test_parts_of_the_examples_add_up(cuts: tuple[int, ...]) -> None:
    gradient, _ = given(RULES["nesterov"], constant=True)
    hr = gradient.read.hidden
    parts = torch.stack([curvature_of(gradient, hr, slice(*pair)) for pair in pairwise(cuts)])
    torch.testing.assert_close(parts.sum(0), hr.T @ (gradient.by_squared_norm[:, None] * hr))
