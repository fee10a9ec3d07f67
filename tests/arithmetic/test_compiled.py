"""Each compiled operation beside torch's: the same numbers, whatever the sizes and the number of threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from support import reference
from support.properties import TABLE, Row, batch, head_loss, make_head, pending_gradient, relative

import widehead as wh
from widehead.arithmetic import (
    TORCH,
    Arithmetic,
    Corrected,
    OutputGradient,
    RowSums,
    SmallState,
    StepMade,
    StepRule,
    TargetPlan,
    choose,
    find_compiled,
    using,
)
from widehead.errors import NonFiniteError
from widehead.factored import FactoredWeights, forward, plan_step
from widehead.heads.exact import ExactHead
from widehead.losses import sum_over_targets
from widehead.versions import RowVersions, contracts_too_much

COMPILED = find_compiled()
pytestmark = pytest.mark.skipif(COMPILED is None, reason="needs a C compiler, and Linux")
D = 300
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
KINDS = ("behind", "successors", "corrections", "last")


def _balanced(q: torch.Tensor, s: torch.Tensor, a: torch.Tensor, targets: wh.SparseTargets) -> torch.Tensor:
    return 0.5 * q + 0.3 * s - 10.0 * sum_over_targets(a, targets)


def _balanced_dense(o: torch.Tensor, ids: list[list[int]], _: list[list[float]] | None) -> torch.Tensor:
    return (0.5 * o**2 + 0.3 * o - 10.0 * reference.dense_targets(ids, o.shape[1]) * o).sum(1)


# Squares, sums and targets weigh alike, so that each product of two of them is seen in what a step adds to Q.
BALANCED = Row("balanced", lambda: wh.losses.SphericalLoss(_balanced), _balanced_dense)
ROWS = [row for row in TABLE if row.name in ("squared, values", "spherical softmax", "taylor softmax")] + [BALANCED]


def trained(row: Row, m: int, d: int) -> ExactHead:
    """A head in the middle of a segment, whose rows stand at several boundaries."""
    head, _ = make_head(row, d, D, torch.float32)
    optimizer = wh.optim.SGD(head, lr=0.02)
    generator = torch.Generator().manual_seed(1)
    for step in range(6):
        loss, _ = head_loss(head, batch(row, generator, m, d, D))
        loss.backward()
        optimizer.step()
        if step % 2 == 1 and step < 5:
            head.weights.close_segment()
    return head


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


@pytest.mark.parametrize(("num_classes", "d"), [(17_000, 250), (8_200, 520)])
def test_rows_too_many_for_a_cache(num_classes: int, d: int, threads: int) -> None:
    """They are written past it, also where they are wider than what is summed at once."""
    m = 8
    torch.manual_seed(0)
    head = wh.ExactHead(d, num_classes, wh.losses.SquaredError())
    targets = wh.SparseTargets.from_ids(torch.randperm(num_classes).view(m, -1))
    hidden = torch.randn(m, d)
    head(hidden.requires_grad_(), targets).backward()
    gradient = head.pending_gradient()
    assert gradient is not None
    assert torch.equal(gradient.read.values, head.weights.values[gradient.read.plan.class_ids])
    step = stepped(head.weights, gradient, StepRule.sgd(1e-4), hidden.detach())
    assert step is not None
    compare_written(head.weights, step)


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


def stepped(weights: FactoredWeights, gradient: OutputGradient, rule: StepRule, hr: torch.Tensor) -> StepMade | None:
    """What the compiled step makes; None if it leaves the step to torch's operations."""
    assert COMPILED is not None
    return COMPILED._step(gradient, rule, weights.small, hr)[0]


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


def compare_written(weights: FactoredWeights, step: StepMade) -> None:
    """Rows that are made as they are written are those of the twin, and nothing else is written."""
    assert COMPILED is not None
    assert isinstance(step.rows, RowSums)
    assert step.figures is not None
    ids, rows = step.rows.plan.class_ids, step.rows.made()
    bound = step.figures.sums[1]
    assert math.isfinite(bound)
    assert not rows.numel() or float(rows.abs().max()) <= bound * 1.0001
    sizes = [float(part.double().norm()) for part in (step.rows.values, step.rows.sparse, step.rows.solved)]
    assert bound == pytest.approx(sizes[0] + sizes[1] * sizes[2], rel=1e-4)
    tables = [weights.values.clone() for _ in range(2)]
    versions = [weights.versions.versions.clone() for _ in range(2)]
    for arithmetic, table, version in zip((COMPILED, TORCH), tables, versions, strict=True):
        arithmetic.write_rows(table, version, ids, step.rows, 3)
    torch.testing.assert_close(tables[0], tables[1], rtol=1e-5, atol=1e-6 * float(tables[1].abs().max()))
    assert torch.equal(versions[0], versions[1])
    assert set(versions[0][ids].tolist()) <= {3}


def compare_figures(mine: StepMade | Corrected, theirs: StepMade | Corrected) -> None:
    assert mine.figures is not None
    assert theirs.figures is not None
    for name in ("factor", "inverse", "growth"):
        assert getattr(mine.figures, name) == pytest.approx(getattr(theirs.figures, name), rel=1e-3), name
    assert mine.figures.sums[0] == pytest.approx(theirs.figures.sums[0], rel=1e-3, abs=1e-2)
    if not isinstance(mine.rows, RowSums):
        assert mine.figures.sums[1] == pytest.approx(theirs.figures.sums[1], rel=1e-3, abs=1e-2)
    assert mine.figures.contraction == pytest.approx(theirs.figures.contraction, rel=1e-3, abs=1e-4)


def contracted(d: int, m: int, num_classes: int) -> Iterator[ExactHead]:
    """A head after each of many steps of half the largest stable size: corrections and new segments in most of them."""
    row = TABLE[0]
    head, _ = make_head(row, d, num_classes, torch.float32)
    optimizer = wh.optim.SGD(head, lr=1.0)
    generator = torch.Generator().manual_seed(1)
    for _ in range(160):
        b = batch(row, generator, m, d, num_classes, dominant=4.0)
        optimizer.param_groups[0]["lr"] = 0.5 * m / float(torch.linalg.matrix_norm(b.hidden, 2)) ** 2
        loss, _ = head_loss(head, b)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield head


@pytest.mark.parametrize(("m", "d"), [(1, 8), (20, 33), (70, 64), (70, 20)])
def test_rows_that_stand_anywhere_are_brought_forward(m: int, d: int, threads: int) -> None:
    ids, met = torch.randperm(D, generator=torch.Generator().manual_seed(4)), dict.fromkeys(KINDS, 0)
    for head in contracted(d, m, D):
        gens = head.weights.versions
        found = gens.rows_at_newest(head.weights.rows, ids)
        with using(TORCH):
            expected = gens.rows_at_newest(head.weights.rows, ids)
        assert relative(found, expected) < 1e-5
        for kind in KINDS:
            met[kind] += len(getattr(gens, kind)) > 0
    assert met["behind"] > 0
    assert met["successors"] > 0
    assert met["corrections"] > 0 or m == 1  # one example makes no direction worth a correction


def test_rows_that_are_moved_stand_where_the_twin_puts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where sweeps came so late that the slots they lead to are no longer the newest, or have heirs themselves."""
    sweep, met = RowVersions.sweep, 0
    monkeypatch.setattr(RowVersions, "sweep", lambda *_: 0)
    for step, head in enumerate(contracted(12, 6, 2_000)):
        gens = head.weights.versions
        if not gens.retired or step % 10 != 0:
            continue
        met += any(heir != gens.base and heir not in gens.successors for heir in gens.successors.values())
        twin, _ = make_head(TABLE[0], 12, 2_000, torch.float32)
        mine, _ = make_head(TABLE[0], 12, 2_000, torch.float32)
        for copy in (twin, mine):
            copy.load_state_dict({k: v.clone() for k, v in head.state_dict().items()})
        with using(TORCH):
            sweep(twin.weights.versions, twin.weights.rows, 2_000, 2_000)
        sweep(mine.weights.versions, mine.weights.rows, 2_000, 2_000)
        assert torch.equal(mine.weights.versions.versions, twin.weights.versions.versions)
        assert relative(mine.weights.values, twin.weights.values) < 1e-5
    assert met > 0


@pytest.mark.parametrize("arithmetic", [TORCH, COMPILED], ids=["torch", "compiled"])
def test_moved_rows_lose_numbers_whose_products_are_slow(arithmetic: Arithmetic) -> None:
    table, versions = torch.zeros(4, 3), torch.zeros(4, dtype=torch.uint8)
    rows = torch.tensor([[1.0, 1e-31, -1e-31], [2.0, 1e-29, 0.0]])
    arithmetic.write_rows(table, versions, torch.tensor([3, 1]), rows, torch.tensor([7, 9], dtype=torch.uint8))
    assert torch.equal(table[[3, 1]], torch.tensor([[1.0, 0.0, 0.0], [2.0, 1e-29, 0.0]]))
    assert versions.tolist() == [0, 9, 0, 7]
    arithmetic.write_rows(table, versions, torch.tensor([0]), rows[:1], 5)
    assert torch.equal(table[0], rows[0])
    assert versions[0] == 5


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


@pytest.mark.parametrize("arithmetic", [TORCH, COMPILED], ids=["torch", "compiled"])
def test_many_small_terms_are_summed_before_they_meet_a_large_row(arithmetic: Arithmetic) -> None:
    """A class that a batch names 4,000 times: its row is rounded once, not once a target."""
    d, times = 5, 4000
    row = next(row for row in TABLE if row.name == "user's squared")
    head = ExactHead(d, 3, row.make())
    weight = torch.linspace(0.7, 1.3, 3 * d).view(3, d)
    head.load_weight(weight)
    hidden = torch.full((1, d), 0.3)
    optimizer = wh.optim.SGD(head, lr=0.1 / times)
    with using(arithmetic):
        head(hidden, [[0] * times]).backward()
        optimizer.step()
    h, w = hidden.double(), weight.double()
    by_outputs = 2.0 * h @ w.T - 2.0 * times * torch.eye(3, dtype=torch.float64)[:1]
    wanted = w - optimizer.param_groups[0]["lr"] * by_outputs.T @ h
    assert relative(head.weight(), wanted) < 3e-6  # 4e-5 where each term met the row


@pytest.mark.parametrize("arithmetic", [TORCH, COMPILED], ids=["torch", "compiled"])
@pytest.mark.parametrize("width", [1, 16, 40])
def test_equal_terms_of_a_row_are_summed_in_pieces(width: int, arithmetic: Arithmetic) -> None:
    """Of a class that a batch names 5,000 times: one by one, their roundings are all in one direction."""
    row, times = next(row for row in TABLE if row.name == "user's squared"), 5_000
    head = ExactHead(width, D, row.make())
    head.load_weight(torch.zeros(D, width))
    hidden = torch.linspace(0.1, 0.3, width)[None]
    optimizer = wh.optim.SGD(head, lr=0.1 / times)
    with using(arithmetic):
        head(hidden, [[7] * times], reduction="sum").backward()
        optimizer.step()
    assert relative(head.weight()[7], 0.2 * hidden[0].double()) < 40 * 2.0**-24  # 700 where each term met the sum


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


def corrected(
    arithmetic: Arithmetic, gradient: OutputGradient, gain: float, small: SmallState, solved: torch.Tensor
) -> Corrected | None:
    read = gradient.read
    return arithmetic.correct(gradient, StepRule.sgd(-gain), small, solved, read.hidden, read.values)


@pytest.mark.parametrize(("m", "d"), [(3, 5), (20, 33), (70, 64), (40, 20)])
def test_a_direction_is_taken_out_as_by_the_twin(m: int, d: int, threads: int) -> None:
    row = TABLE[0]
    head = trained(row, m, d)
    gradient = pending_gradient(head, row, m)
    hidden, weights = gradient.read.hidden, head.weights
    # U is made small in one direction: a step that leaves a tenth of it there.
    gain = -0.9 / float(torch.linalg.eigvalsh(hidden.T @ (gradient.by_squared_norm[:, None] * hidden))[-1])
    step = stepped(weights, gradient, StepRule.sgd(-gain), hidden)
    assert step is not None
    assert step.solved is not None
    assert COMPILED is not None
    mine, expected = (corrected(one, gradient, gain, step.small, step.solved) for one in (COMPILED, TORCH))
    assert mine is not None
    assert expected is not None
    sign = torch.sign(torch.dot(mine.x, expected.x))
    assert relative(sign * mine.x, expected.x) < 1e-3  # any vector near the singular one does
    before = step.small.flushed().master
    for found in (mine, expected):
        both = torch.eye(d, dtype=torch.float64) + torch.outer(found.x.double(), found.b.double())
        factor = found.small.master[:d]
        assert relative(both @ factor, before[:d]) < 2e-6, "V(I + xbᵀ)U' should be VU"
        assert relative(found.small.inverse.double() @ factor, torch.eye(d, dtype=torch.float64)) < 2e-4
        assert relative(found.values, gradient.read.values @ both.float()) < 1e-5
        # The rows in the new segment's numbers, brought back, are those that the step wants.
        wanted = gradient.read.values.double() @ before[:d]
        wanted += gain * gradient.read.plan.transposed_times(gradient.sparse, hidden).double()
        assert relative(found.rows.double() @ factor, wanted) < 2e-5
        assert relative(found.small.master[d : 2 * d + 2], before[d : 2 * d + 2]) < 1e-12
        norms = [torch.linalg.vector_norm(x, dim=1) for x in (found.solved, hidden)]
        assert found.figures.growth[0] == pytest.approx(float((norms[0] / norms[1]).max()), rel=1e-4)
    compare_figures(mine, expected)


def test_what_v_is_corrected_with_does_not_take_the_inverse_at_its_word() -> None:
    head = trained(TABLE[0], 20, 24)
    gradient = pending_gradient(head, TABLE[0], 20)
    hidden, master = gradient.read.hidden, head.weights.small.flushed().master
    inexact = master.clone()
    inexact[50:] *= 1.0 + 1e-3 * torch.randn(24, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    small = SmallState.of(inexact, torch.float32)
    assert COMPILED is not None
    found = corrected(COMPILED, gradient, -0.1, small, -0.1 * hidden @ small.inverse)
    assert found is not None
    both = torch.eye(24, dtype=torch.float64) + torch.outer(found.x.double(), found.b.double())
    assert relative(both @ found.small.master[:24], master[:24]) < 1e-7


def test_a_direction_that_is_gone_is_not_taken_out() -> None:
    head = trained(TABLE[0], 20, 24)
    gradient = pending_gradient(head, TABLE[0], 20)
    assert COMPILED is not None
    for spoiled in (1e-6, float("nan")):
        master = head.weights.small.flushed().master.clone()
        master[2 * 24 + 2 :] /= spoiled
        solved = gradient.read.hidden @ master[2 * 24 + 2 :].T.float()
        assert corrected(COMPILED, gradient, 1.0, SmallState.of(master, torch.float32), solved) is None


@pytest.mark.parametrize("most", [1, 7, 100, 10_000])
@pytest.mark.parametrize(("cursor", "stop"), [(0, 0), (0, 1_000), (3, 19), (5, 998)])
def test_rows_to_move_are_found(cursor: int, stop: int, most: int) -> None:
    head, _ = make_head(TABLE[0], 4, 1_000, torch.float32)
    gens = head.weights.versions
    gens.versions.copy_(torch.randint(0, 40, (1_000,), generator=torch.Generator().manual_seed(0)))
    assert COMPILED is not None
    wanted = [3, 17, 39]
    found, reached = COMPILED.find_rows(gens.versions, cursor, stop, wanted, most)
    expected, twin_reached = TORCH.find_rows(gens.versions, cursor, stop, wanted, most)
    assert torch.equal(found, expected)
    # Both stop where the next row to move is, or somewhere between the last that was found and it.
    assert reached == twin_reached or (len(found) == most and found[-1] < reached <= twin_reached)


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


@pytest.mark.parametrize(
    "damage",
    [
        lambda v: v.versions.fill_(7),
        lambda v: v.versions.fill_(250),
        lambda v: v.successors.update({0: 1, 1: 0}),
        lambda v: setattr(v, "base", 200),
    ],
    ids=["no such slot", "no such correction", "a circle", "no such base"],
)
def test_a_record_that_contradicts_itself_reads_nothing_outside(damage: Callable[[RowVersions], object]) -> None:
    head = trained(TABLE[0], 20, 24)
    versions, ids = head.weights.versions, torch.arange(D)
    damage(versions)
    with pytest.raises(RuntimeError, match="contradicts itself"):
        versions.rows_at_newest(head.weights.rows, ids)


@pytest.mark.parametrize("wrong", [-1, D, 1 << 40])
def test_ids_that_are_no_rows_are_neither_read_nor_written(wrong: int) -> None:
    head = trained(TABLE[0], 20, 24)
    weights, ids, before = head.weights, torch.tensor([3, wrong]), head.weight()
    assert COMPILED is not None
    for call in (
        lambda: weights.versions.rows_at_newest(weights.rows, ids),
        lambda: weights.versions.write(weights.rows, ids, torch.zeros(2, 24)),
        lambda: forward(weights, torch.zeros(2, 24), wh.SparseTargets(ids, [0, 1, 2])),
    ):
        with pytest.raises((RuntimeError, ValueError), match=r"contradicts itself|at least 0"):
            call()
    assert torch.equal(head.weight(), before)


@pytest.mark.parametrize("wrong", [-1, D, 1 << 40])
def test_ids_that_are_no_rows_are_not_written_by_sums_either(wrong: int) -> None:
    head = trained(TABLE[0], 20, 24)
    gradient = pending_gradient(head, TABLE[0], 20)
    step = stepped(head.weights, gradient, StepRule.sgd(0.05), gradient.read.hidden)
    assert step is not None
    ids, before = gradient.read.plan.class_ids.clone(), head.weight()
    ids[-1] = wrong
    with pytest.raises(RuntimeError, match="contradicts itself"):
        head.weights.versions.write(head.weights.rows, ids, step.rows)
    assert torch.equal(head.weight(), before)


@pytest.mark.parametrize("size", [1e-24, 1e-21, 1.0, 1e20])
def test_a_gram_matrix_knows_target_rows_whose_gradients_have_no_squares(size: float) -> None:
    """Squares of the gradients by outputs under- or overflow where what they add to rows is as usual."""

    def of_targets(q: torch.Tensor, s: torch.Tensor, a: torch.Tensor, targets: wh.SparseTargets) -> torch.Tensor:
        return -size * sum_over_targets(a, targets)

    torch.manual_seed(0)
    head = wh.ExactHead(4, 40, wh.losses.SphericalLoss(of_targets))
    scale = min(1.0 / size, 1e15)
    hidden = scale * torch.randn(3, 4)
    optimizer = wh.optim.SGD(head, lr=1e3 / (size * scale))
    head(hidden.requires_grad_(), [[1, 5], [2], [7, 8, 2]]).backward()
    optimizer.step()
    dense, found = head.weight().double(), head.weights.small.gram.double()
    assert relative((found + found.T) / 2, dense.T @ dense) < 1e-6


@pytest.mark.parametrize(("m", "d"), [(5, 16), (49, 20)])
@pytest.mark.parametrize("number", [math.nan, math.inf, 3e38])
@pytest.mark.parametrize("where", ["values", "sparse"])
def test_the_bound_of_new_rows_meets_what_is_not_finite(where: str, number: float, m: int, d: int) -> None:
    """One number among many; 3e38 is finite, but not with as much beside it."""
    head = trained(BALANCED, m, d)
    gradient = pending_gradient(head, BALANCED, m)
    read, sparse, gain = gradient.read, gradient.sparse.clone(), 0.05
    if where == "sparse":
        sparse[1], gain = number, 1.0
    else:
        head.weights.values[read.plan.class_ids[0]] = number
        read = forward(head.weights, read.hidden, read.targets)
    step = stepped(head.weights, replace(gradient, read=read, sparse=sparse), StepRule.sgd(gain), read.hidden)
    assert step is not None
    assert step.figures is not None
    assert not math.isfinite(step.figures.sums[1])
