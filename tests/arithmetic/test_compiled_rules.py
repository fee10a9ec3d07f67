"""Compiled steps with momentum and weight decay beside torch's: all sums are mixed in float64, whatever the sizes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from support.properties import TABLE, Row, batch, head_loss, make_head, pending_gradient, relative

import widehead as wh
from widehead.arithmetic import TORCH, RowSums, StepMade, StepRule, find_compiled, using
from widehead.factored import plan_step

COMPILED = find_compiled()
pytestmark = pytest.mark.skipif(COMPILED is None, reason="needs a C compiler, and Linux")
D = 300
# Fewer and more examples than columns; below, at and above tiles, strips and vectors.
SIZES = [(1, 1), (3, 1), (5, 16), (33, 47), (49, 20), (64, 64), (130, 37), (90, 130)]
RULES = {
    "heavy ball": StepRule.heavy_ball(0.02, 0.9),
    "coupled decay": StepRule.heavy_ball(0.02, 0.9, weight_decay=0.3),
    "nesterov": StepRule.heavy_ball(0.02, 0.8, nesterov=True, weight_decay=0.1),
    "decoupled": StepRule.heavy_ball(0.02, 0.9, weight_decay=0.5, decoupled=True),
    "weight decay alone": StepRule.sgd(0.02, 0.5),
}
ROWS = [row for row in TABLE if row.name in ("squared, values", "taylor softmax")]  # without σ and with it


def trained(row: Row, m: int, d: int, order: int) -> wh.ExactHead:
    """A head in the middle of a segment, whose momentum is not zero, and whose rows stand at two boundaries."""
    head, _ = make_head(row, d, D, torch.float32)
    optimizer = wh.optim.SGD(head, lr=0.02, momentum=0.9 * (order - 1))
    generator = torch.Generator().manual_seed(1)
    for step in range(4):
        head_loss(head, batch(row, generator, m, d, D))[0].backward()
        optimizer.step()
        if step == 1:
            head.weights.close_segment(-0.1)
    return head


def compare(mine: StepMade | None, theirs: StepMade, d: int) -> None:
    assert mine is not None
    for name in ("solved", "rows"):
        found, expected = getattr(mine, name), getattr(theirs, name)
        found = found.made() if isinstance(found, RowSums) else found
        assert relative(found, expected) < 2e-5 if expected.numel() else found.numel() == 0, name
    c = mine.small.columns
    starts = [*range(0, c + 1, d), c + 1, *range(c + 2, 3 * c + 3, d)]  # of blocks of d rows, and of ω and x̄
    for start, stop in pairwise(starts):
        assert relative(mine.small.master[start:stop], theirs.small.master[start:stop]) < 2e-5, start
    assert torch.equal(mine.small.value, mine.small.master.float())
    assert not bool(mine.small.added.any())
    assert mine.figures is not None
    assert theirs.figures is not None
    for name in ("factor", "inverse", "growth"):
        assert getattr(mine.figures, name) == pytest.approx(getattr(theirs.figures, name), rel=1e-3), name
    compared = slice(1 if isinstance(mine.rows, RowSums) else 2)  # of rows that are made later there is a bound
    assert mine.figures.sums[compared] == pytest.approx(theirs.figures.sums[compared], rel=1e-3, abs=1e-2)
    assert mine.figures.contraction == pytest.approx(theirs.figures.contraction, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize(("m", "d"), SIZES)
@pytest.mark.parametrize("order", [1, 2])
def test_passes_and_steps_are_those_of_torch(row: Row, m: int, d: int, order: int, threads: int) -> None:
    head = trained(row, m, d, order)
    mine = pending_gradient(head, row, m)
    with using(TORCH):
        theirs = pending_gradient(head, row, m)
    assert mine.read.size == pytest.approx(float(mine.read.values.double().norm()), rel=1e-5)
    where_rows_are_split = replace(mine, read=replace(mine.read, size=None))
    for name in ("products", "values", "squared_norm", "outputs"):
        found, expected = getattr(mine.read, name), getattr(theirs.read, name)
        assert relative(found, expected) < 2e-5 if expected.numel() else found.numel() == 0, name
    for name in ("left", "others", "by_hidden"):
        assert relative(getattr(mine, name), getattr(theirs, name)) < 2e-5, name
    assert COMPILED is not None
    for rule in (rule for rule in RULES.values() if rule.order == order):
        for hr in (mine.read.hidden, mine.read.hidden @ torch.diag(torch.linspace(0.5, 2.0, d))):
            expected = TORCH.step(theirs, rule, head.weights.small, hr, None)
            for gradient in (mine, where_rows_are_split):
                compare(COMPILED._step(gradient, rule, head.weights.small, hr)[0], expected, d)


@pytest.mark.parametrize(("m", "d"), [(5, 16), (49, 20)])
def test_decay_that_begins_between_two_flushes_finds_what_was_added(m: int, d: int) -> None:
    head = trained(ROWS[0], m, d, 1)
    assert bool(head.weights.small.added.any())
    gradient, small = pending_gradient(head, ROWS[0], m), head.weights.small
    rule, hr = RULES["weight decay alone"], gradient.read.hidden
    assert COMPILED is not None
    compare(COMPILED._step(gradient, rule, small, hr)[0], TORCH.step(gradient, rule, small, hr, None), d)


@pytest.mark.parametrize("m", [5, 49])
def test_a_momentum_near_zero_is_left_to_torch(m: int) -> None:
    """p is nearly singular then: nothing is inverted, and the segment ends."""
    head = trained(ROWS[0], m, 20, 2)
    gradient, rule = pending_gradient(head, ROWS[0], m), StepRule.heavy_ball(0.02, 1e-6)
    assert COMPILED is not None
    assert COMPILED._step(gradient, rule, head.weights.small, gradient.read.hidden)[0] is None
    assert plan_step(head.weights, gradient, rule).closes


def test_rows_without_momentum_are_kept_in_the_basis_of_the_first_step() -> None:
    """They stand for the same W, so that no segment has to end, and no row to be brought forward, after few steps."""
    head, _ = make_head(ROWS[0], 20, D, torch.float32)
    weight = head.weight()
    optimizer = wh.optim.SGD(head, lr=0.005, momentum=0.9)
    assert torch.equal(head.weight(), weight)
    generator = torch.Generator().manual_seed(1)
    for _ in range(30):
        head_loss(head, batch(ROWS[0], generator, 9, 20, D))[0].backward()
        optimizer.step()
    assert head.weights.closes == 0  # 1 after 23 steps if rows are kept as (w, m)
