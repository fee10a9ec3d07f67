"""A whole compiled step beside torch's: the same numbers, whatever the sizes and the number of threads."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from support.compiled_steps import BALANCED, COMPILED, ROWS, D, compare_figures, compare_written, stepped, trained
from support.properties import TABLE, Row, batch, head_loss, make_head, pending_gradient, relative

import widehead as wh
from widehead.arithmetic import TORCH, Arithmetic, OutputGradient, RowSums, StepRule, TargetPlan, choose, using
from widehead.errors import NonFiniteError
from widehead.factored import FactoredWeights, forward, plan_step
from widehead.versions import contracts_too_much

pytestmark = pytest.mark.skipif(COMPILED is None, reason="needs a C compiler, and Linux")
# Below, at and above the sizes of tiles, strips, leaves and vectors, and of what one thread gets.
SIZES = [
    (1, 1),
    (3, 1),
    (4, 2),
    (1, 40),
    (5, 16),
    (33, 47),
    (48, 48),
    (49, 20),
    (100, 64),
    (130, 37),
    (130, 150),
    (256, 130),
]


def close(found: Any, expected: Any, tolerance: float = 2e-5) -> None:
    for part in fields(expected):
        mine, theirs = getattr(found, part.name), getattr(expected, part.name)
        if isinstance(theirs, torch.Tensor) and theirs.is_floating_point() and theirs.numel():
            assert relative(mine, theirs) < tolerance, part.name
        elif isinstance(theirs, torch.Tensor):
            assert torch.equal(mine, theirs), part.name


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize(("m", "d"), SIZES)
def test_forward_backward_and_step(row: Row, m: int, d: int, threads: int) -> None:
    head = trained(row, m, d)
    mine = pending_gradient(head, row, m)
    with using(TORCH):
        theirs = pending_gradient(head, row, m)
    close(mine.read, theirs.read)
    close(mine.read.plan, theirs.read.plan)
    close(mine, replace(theirs, read=mine.read))
    right = mine.read.hidden @ torch.diag(torch.linspace(0.5, 2.0, d))
    for rights in (None, right):
        compare_steps(head.weights, mine, rights)


def test_sums_of_a_step_that_is_left_to_torch_are_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where rows are split they are a message, which the others would not answer twice."""
    head = trained(ROWS[0], 9, 3)
    gradient = pending_gradient(head, ROWS[0], 9)
    hidden = gradient.read.hidden
    rule = StepRule(((1.0,),), (-1.5 / float(torch.linalg.eigvalsh(hidden.T @ gradient.weighted_hidden)[-1]),))
    expected = TORCH.step(gradient, rule, head.weights.small, hidden, None)
    assert stepped(head.weights, gradient, rule, hidden) is None
    monkeypatch.setattr(Arithmetic, "sums", None)
    assert COMPILED is not None
    found = COMPILED.step(gradient, rule, head.weights.small, hidden, None)
    assert relative(found.small.gram, expected.small.gram) < 1e-5


@pytest.mark.parametrize(("m", "d"), [(20, 300), (310, 300)])
def test_rows_wider_than_what_is_summed_at_once(m: int, d: int, threads: int) -> None:
    test_forward_backward_and_step(BALANCED, m, d, threads)


def test_more_examples_than_one_product_reads(threads: int) -> None:
    test_forward_backward_and_step(BALANCED, 2_100, 5, threads)


@pytest.mark.parametrize("d", [3, 40])
def test_many_examples_whose_step_is_ill_conditioned_are_left_to_torch(d: int) -> None:
    """Pivots without an exchange of rows may be anything: near 0, below it, or not a number."""
    row, m = ROWS[0], 2 * d + 1
    head = trained(row, m, d)
    gradient = pending_gradient(head, row, m)
    curvature = gradient.read.hidden.T @ gradient.weighted_hidden
    largest = float(torch.linalg.eigvalsh(curvature)[-1])
    for gain in (-1.5 / largest, -1e20, math.nan):
        assert stepped(head.weights, gradient, StepRule(((1.0,),), (gain,)), gradient.read.hidden) is None
    assert stepped(head.weights, gradient, StepRule(((1.0,),), (-0.5 / largest,)), gradient.read.hidden) is not None


def test_many_examples_with_a_pivot_near_zero_among_good_ones_are_left_to_torch() -> None:
    """HᵀΛHR is not symmetric: all pivots may be above 0 while what the first leaves of others is rounding."""
    d, found = 3, 0
    head = trained(ROWS[0], 9, d)
    gradient = pending_gradient(head, ROWS[0], 9)
    hidden, generator = gradient.read.hidden, torch.Generator().manual_seed(0)
    for _ in range(40):
        root = torch.randn(d, d, generator=generator)
        hr = hidden @ (root @ root.T)
        product = (hidden.T @ (gradient.by_squared_norm[:, None] * hr)).double()
        gain = -(1.0 - 1e-5) / float(product[0, 0])
        system = torch.eye(d, dtype=torch.float64) + gain * product
        pivots = [float(torch.linalg.det(system[:k, :k])) for k in range(1, d + 1)]
        if min(pivots) > 0.0:
            found += 1
            assert stepped(head.weights, gradient, StepRule(((1.0,),), (gain,)), hr) is None
            mild = -0.5 / float(torch.linalg.eigvals(product).abs().max())
            assert stepped(head.weights, gradient, StepRule(((1.0,),), (mild,)), hr) is not None
    assert found > 0


def compare_steps(weights: FactoredWeights, gradient: OutputGradient, right: torch.Tensor | None) -> None:
    rule, hr = StepRule.sgd(0.05), gradient.read.hidden if right is None else right
    mine = stepped(weights, gradient, rule, hr)
    theirs = TORCH.step(gradient, rule, weights.small, hr, None)
    change = plan_step(weights, gradient, rule, right)
    assert not change.closes
    assert not change.corrections
    assert mine is not None
    assert mine.rows is not None
    assert theirs.rows is not None
    rows, expected = made(mine.rows), made(theirs.rows)
    assert relative(rows, expected) < 2e-5 if expected.numel() else rows.numel() == 0
    compare_written(weights, mine)
    assert relative(mine.small.value, theirs.small.value) < 2e-5
    # Half of what Q gets is anything that makes the same sum with its transpose.
    d = weights.width
    gram = [part[d + 2 : 2 * d + 2] for part in (mine.small.added, theirs.small.added)]
    assert relative(gram[0] + gram[0].T, gram[1] + gram[1].T) < 2e-4
    for rows in (slice(0, d + 2), slice(2 * d + 2, None)):
        assert relative(mine.small.added[rows], theirs.small.added[rows]) < 2e-4
    compare_figures(mine, theirs)
    # What figures are, computed here.
    assert mine.figures is not None
    assert mine.solved is not None
    assert mine.figures.factor[0] == pytest.approx(float(mine.small.factor.double().norm()) / d**0.5, rel=1e-4)
    assert mine.figures.inverse[0] == pytest.approx(float(mine.small.inverse.double().norm()) / d**0.5, rel=1e-4)
    norms = [torch.linalg.vector_norm(x, dim=1) for x in (mine.solved, hr)]
    assert mine.figures.growth[0] == pytest.approx(float((norms[0] / norms[1]).max()), rel=1e-4)


def made(rows: torch.Tensor | RowSums) -> torch.Tensor:
    return rows.made() if isinstance(rows, RowSums) else rows


def test_a_squared_norm_that_rounding_made_negative_is_zero() -> None:
    head = trained(TABLE[0], 20, 24)
    head.weights.small.value[26:50] *= -1.0
    b = batch(TABLE[0], torch.Generator().manual_seed(2), 20, 24, D)
    mine = forward(head.weights, b.hidden.float(), b.targets())
    with using(TORCH):
        close(mine, replace(forward(head.weights, b.hidden.float(), b.targets()), plan=mine.plan, targets=mine.targets))
    assert bool((mine.squared_norm == 0.0).any())


def test_the_bound_of_the_curvature_counts_negative_curvature_too() -> None:
    head = trained(TABLE[0], 20, 24)
    b = batch(TABLE[0], torch.Generator().manual_seed(2), 20, 24, D)
    losses, _ = head_loss(head, b, reduction="none")
    (losses * torch.linspace(-1.0, 1.0, 20)).sum().backward()
    gradient = head.pending_gradient()
    assert gradient is not None
    found = head.monitor.bound(gradient)
    assert found == pytest.approx(head.monitor.bound(replace(gradient, bound=None)), rel=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30, -1.0])
def test_curvature_that_no_kernel_should_meet_is_left_to_the_twin(bad: float) -> None:
    head = trained(TABLE[0], 20, 24)
    gradient = pending_gradient(head, TABLE[0], 20)
    curvature = gradient.by_squared_norm.clone()
    curvature[7] = bad
    spoiled = replace(gradient, by_squared_norm=curvature)
    assert stepped(head.weights, spoiled, StepRule.sgd(0.01), gradient.read.hidden) is None
    if not math.isfinite(bad):
        with pytest.raises(NonFiniteError, match="derivative by q"):
            plan_step(head.weights, spoiled, StepRule.sgd(0.01))


def test_a_step_that_overshoots_is_left_to_the_twin() -> None:
    head = trained(TABLE[0], 20, 24)
    gradient = pending_gradient(head, TABLE[0], 20)
    assert stepped(head.weights, gradient, StepRule.sgd(50.0), gradient.read.hidden) is None


@pytest.mark.parametrize("arithmetic", [TORCH, COMPILED], ids=["torch", "compiled"])
@pytest.mark.parametrize(("m", "d"), [(20, 8), (8, 8), (5, 8)])
def test_a_step_that_leaves_nothing_of_most_directions_ends_the_segment(m: int, d: int, arithmetic: Arithmetic) -> None:
    """Newton's first step: what is left of U is rounding, and its conditioning says nothing."""
    row = TABLE[0]
    head, _ = make_head(row, d, D, torch.float32)
    with using(arithmetic):
        gradient = pending_gradient(head, row, m)
    hidden = gradient.read.hidden
    hr = hidden @ torch.linalg.pinv(hidden.T @ (gradient.by_squared_norm[:, None] * hidden))
    for lr, too_much in ((1.0, True), (0.9, False)):
        step = arithmetic.step(gradient, StepRule.sgd(lr), head.weights.small, hr, None)
        assert step.figures is not None
        assert contracts_too_much(step.figures, torch.float32) == too_much
        change = plan_step(head.weights, gradient, StepRule.sgd(lr), hr)
        assert change.closes == too_much


def test_strided_parts_are_read_right() -> None:
    row = TABLE[0]
    head = trained(row, 12, 16)
    b = batch(row, torch.Generator().manual_seed(3), 12, 16, D)
    targets = b.targets()
    offsets = torch.stack([targets.offsets, targets.offsets], dim=1)[:, 0]
    strided = wh.SparseTargets(targets.class_ids, offsets)
    hidden = b.hidden.float().T.contiguous().T
    assert not hidden.is_contiguous()
    with using(TORCH):
        expected = forward(head.weights, hidden, targets)
    close(forward(head.weights, hidden, strided), replace(expected, targets=strided))


def test_a_plan_of_no_targets() -> None:
    plan = TargetPlan.of(wh.SparseTargets([], [0, 0, 0]))
    assert plan.class_ids.numel() == 0
    assert plan.class_offsets.tolist() == [0]


def test_rows_and_hidden_layers_elsewhere_are_left_to_torch() -> None:
    head, _ = make_head(TABLE[0], 4, 50, torch.float32)
    table = head.weights.values
    assert COMPILED is not None
    assert COMPILED.fits(table, resident=True)
    for other, resident in ((table.to("meta"), True), (table.double(), True), (table.bfloat16(), True), (table, False)):
        assert not COMPILED.fits(other, resident=resident)
        assert choose(other, resident=resident) is TORCH
    with pytest.raises(ValueError, match=r"on the head's device, cpu\. Found meta"):
        head(torch.zeros(3, 4).to("meta"), [[1], [2], [3]])
