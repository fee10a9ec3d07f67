"""Each kernel beside its twin of torch's operations: the same numbers, whatever the sizes and the number of threads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from support.properties import TABLE, Row, batch, head_loss, make_head, relative

import widehead as wh
from widehead import kernels
from widehead.errors import NonFiniteError
from widehead.factored import FactoredWeights, OutputGradient, StepRule, TargetPlan, forward, plan_step
from widehead.factored import update as module
from widehead.factored.deflation import deflate, deflate_rows
from widehead.factored.generations import Generations
from widehead.factored.squares import Squares
from widehead.heads.exact import ExactHead

pytestmark = pytest.mark.skipif(not kernels.available(), reason="needs a C compiler, and Linux")
D = 300
# Below, at and above the sizes of tiles, strips, leaves and vectors, and of what one thread gets.
SIZES = [(1, 1), (1, 40), (5, 16), (33, 47), (48, 48), (49, 20), (100, 64), (130, 37), (256, 130)]
THREADS = [1, 4]
KINDS = ("pending", "heirs", "bends", "last")
ROWS = [row for row in TABLE if row.name in ("squared, values", "spherical softmax", "taylor softmax", "user's")]


@pytest.fixture(params=THREADS, ids=lambda n: f"{n} threads")
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


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


def made(head: ExactHead, row: Row, m: int, d: int) -> OutputGradient:
    """The gradient of a batch that has empty examples and repeated classes."""
    b = batch(row, torch.Generator().manual_seed(2), m, d, D)
    losses, _ = head_loss(head, b, reduction="none")
    (losses * torch.linspace(0.5, 1.5, m)).sum().div(m).backward()
    found = head.pending_gradient()
    assert found is not None
    head.drop_pending()
    return found


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
    mine = made(head, row, m, d)
    with kernels.without_kernels():
        theirs = made(head, row, m, d)
    close(mine.read, theirs.read)
    close(mine.read.plan, theirs.read.plan)
    close(mine, replace(theirs, read=mine.read))
    right = mine.read.hidden @ torch.diag(torch.linspace(0.5, 2.0, d))
    for rights in (None, right):
        compare_steps(head.weights, mine, rights)


def compare_steps(weights: FactoredWeights, gradient: OutputGradient, right: torch.Tensor | None) -> None:
    rule = StepRule.sgd(0.05)
    mine = module._by_kernel(weights, gradient, rule, gradient.read.hidden if right is None else right)
    with kernels.without_kernels():
        theirs = plan_step(weights, gradient, rule, right)
    assert not theirs.closes
    assert not theirs.bends
    assert mine is not None
    assert relative(mine.rows, theirs.rows) < 2e-5 if theirs.rows.numel() else mine.rows.numel() == 0
    assert relative(mine.value, theirs.squares.value) < 2e-5
    # Half of what Q gets is anything that makes the same sum with its transpose.
    d = weights.width
    gram = [part[d + 2 : 2 * d + 2] for part in (mine.added, theirs.squares.added)]
    assert relative(gram[0] + gram[0].T, gram[1] + gram[1].T) < 2e-4
    for rows in (slice(0, d + 2), slice(2 * d + 2, None)):
        assert relative(mine.added[rows], theirs.squares.added[rows]) < 2e-4
    factor, inverse, growth, known, rows_sum = mine.figures
    assert factor == pytest.approx(float(theirs.squares.factor.double().square().sum()), rel=1e-4)
    assert inverse == pytest.approx(float(theirs.squares.inverse.double().square().sum()), rel=1e-4)
    norms = [
        torch.linalg.vector_norm(x, dim=1) for x in (mine.solved, gradient.read.hidden if right is None else right)
    ]
    assert growth == pytest.approx(float((norms[0] / norms[1]).max()), rel=1e-4)
    assert known == pytest.approx(float(mine.value[d : 2 * d + 2].double().sum()), rel=1e-3, abs=1e-2)
    assert rows_sum == pytest.approx(float(mine.rows.double().sum()), rel=1e-3, abs=1e-2)


def contracted(d: int, m: int, num_classes: int) -> Iterator[ExactHead]:
    """A head after each of many steps of half the largest stable size: bends and new segments in most of them."""
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
        gens = head.weights.generations
        found = gens.rows_at_newest(head.weights.rows, ids)
        with kernels.without_kernels():
            expected = gens.rows_at_newest(head.weights.rows, ids)
        assert relative(found, expected) < 1e-5
        for kind in KINDS:
            met[kind] += len(getattr(gens, kind)) > 0
    assert met["pending"] > 0
    assert met["heirs"] > 0
    assert met["bends"] > 0 or m == 1  # one example makes no direction worth a bend


def test_rows_that_are_moved_stand_where_the_twin_puts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where sweeps came so late that the slots they lead to are no longer the newest, or have heirs themselves."""
    sweep, met = Generations.sweep, 0
    monkeypatch.setattr(Generations, "sweep", lambda *_: 0)
    for step, head in enumerate(contracted(12, 6, 2_000)):
        gens = head.weights.generations
        if not gens.retired or step % 10 != 0:
            continue
        met += any(heir != gens.base and heir not in gens.heirs for heir in gens.heirs.values())
        twin, _ = make_head(TABLE[0], 12, 2_000, torch.float32)
        mine, _ = make_head(TABLE[0], 12, 2_000, torch.float32)
        for copy in (twin, mine):
            copy.load_state_dict({k: v.clone() for k, v in head.state_dict().items()})
        with kernels.without_kernels():
            sweep(twin.weights.generations, twin.weights.rows, 2_000, 2_000)
        sweep(mine.weights.generations, mine.weights.rows, 2_000, 2_000)
        assert torch.equal(mine.weights.generations.stamps, twin.weights.generations.stamps)
        assert relative(mine.weights.values, twin.weights.values) < 1e-5
    assert met > 0


def test_moved_rows_lose_numbers_whose_products_are_slow() -> None:
    table, stamps = torch.zeros(4, 3), torch.zeros(4, dtype=torch.uint8)
    rows = torch.tensor([[1.0, 1e-31, -1e-31], [2.0, 1e-29, 0.0]])
    assert kernels.write(table, stamps, torch.tensor([3, 1]), rows, torch.tensor([7, 9], dtype=torch.uint8))
    assert torch.equal(table[[3, 1]], torch.tensor([[1.0, 0.0, 0.0], [2.0, 1e-29, 0.0]]))
    assert stamps.tolist() == [0, 9, 0, 7]
    assert kernels.write(table, stamps, torch.tensor([0]), rows[:1], 5)
    assert torch.equal(table[0], rows[0])
    assert stamps[0] == 5


def test_a_squared_norm_that_rounding_made_negative_is_zero() -> None:
    head = trained(TABLE[0], 20, 24)
    head.weights.squares.value[26:50] *= -1.0
    b = batch(TABLE[0], torch.Generator().manual_seed(2), 20, 24, D)
    mine = forward(head.weights, b.hidden.float(), b.targets())
    with kernels.without_kernels():
        close(mine, replace(forward(head.weights, b.hidden.float(), b.targets()), plan=mine.plan, targets=mine.targets))
    assert bool((mine.squared_norm == 0.0).any())


def test_the_bound_of_the_curvature_counts_negative_curvature_too() -> None:
    head = trained(TABLE[0], 20, 24)
    b = batch(TABLE[0], torch.Generator().manual_seed(2), 20, 24, D)
    losses, _ = head_loss(head, b, reduction="none")
    (losses * torch.linspace(-1.0, 1.0, 20)).sum().backward()
    gradient = head.pending_gradient()
    assert gradient is not None
    found = head.curvature.bound(gradient)
    assert found == pytest.approx(head.curvature.bound(replace(gradient, curvature_bound=None)), rel=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30, -1.0])
def test_curvature_that_no_kernel_should_meet_is_left_to_the_twin(bad: float) -> None:
    head = trained(TABLE[0], 20, 24)
    gradient = made(head, TABLE[0], 20, 24)
    curvature = gradient.curvature.clone()
    curvature[7] = bad
    spoiled = replace(gradient, curvature=curvature)
    assert module._by_kernel(head.weights, spoiled, StepRule.sgd(0.01), gradient.read.hidden) is None
    if not math.isfinite(bad):
        with pytest.raises(NonFiniteError, match="derivative by q"):
            plan_step(head.weights, spoiled, StepRule.sgd(0.01))


def test_a_step_that_overshoots_is_left_to_the_twin() -> None:
    head = trained(TABLE[0], 20, 24)
    gradient = made(head, TABLE[0], 20, 24)
    assert module._by_kernel(head.weights, gradient, StepRule.sgd(50.0), gradient.read.hidden) is None


@pytest.mark.parametrize(("m", "d"), [(20, 8), (8, 8), (5, 8)])
def test_a_step_that_leaves_nothing_of_most_directions_is_left_to_the_twin(m: int, d: int) -> None:
    """Newton's first step: what is left of U is rounding, and its conditioning says nothing."""
    row = TABLE[0]
    head, _ = make_head(row, d, D, torch.float32)
    gradient = made(head, row, m, d)
    hidden = gradient.read.hidden
    right = hidden @ torch.linalg.pinv(hidden.T @ (gradient.curvature[:, None] * hidden))
    assert module._by_kernel(head.weights, gradient, StepRule.sgd(1.0), right) is None
    assert module._by_kernel(head.weights, gradient, StepRule.sgd(0.9), right) is not None


def test_strided_parts_are_read_right() -> None:
    row = TABLE[0]
    head = trained(row, 12, 16)
    b = batch(row, torch.Generator().manual_seed(3), 12, 16, D)
    targets = b.targets()
    offsets = torch.stack([targets.offsets, targets.offsets], dim=1)[:, 0]
    strided = wh.SparseTargets(targets.class_ids, offsets)
    hidden = b.hidden.float().T.contiguous().T
    assert not hidden.is_contiguous()
    with kernels.without_kernels():
        expected = forward(head.weights, hidden, targets)
    close(forward(head.weights, hidden, strided), replace(expected, targets=strided))


def test_a_plan_of_no_targets() -> None:
    plan = TargetPlan.of(wh.SparseTargets([], [0, 0, 0]))
    assert plan.class_ids.numel() == 0
    assert plan.class_offsets.tolist() == [0]


@pytest.mark.parametrize(("m", "d"), [(3, 5), (20, 33), (70, 64), (40, 20)])
def test_a_direction_is_taken_out_as_by_the_twin(m: int, d: int, threads: int) -> None:
    row = TABLE[0]
    head = trained(row, m, d)
    gradient = made(head, row, m, d)
    hidden, weights = gradient.read.hidden, head.weights
    # U is made small in one direction: a step that leaves a tenth of it there.
    gain = -0.9 / float(torch.linalg.eigvalsh(hidden.T @ (gradient.curvature[:, None] * hidden))[-1])
    step = module._by_kernel(weights, gradient, StepRule.sgd(-gain), hidden)
    assert step is not None
    squares = Squares(weights.squares.master, weights.squares.base, step.added, step.value)
    found = deflate_rows(squares, step.solved, hidden, gain, gradient, gradient.read.values)
    expected = deflate(squares, step.solved, hidden, gain)
    assert found is not None
    assert expected is not None
    mine, kernel = found
    sign = torch.sign(torch.dot(mine.x, expected.x))
    assert relative(sign * mine.x, expected.x) < 1e-3  # any vector near the singular one does
    size = float(torch.linalg.matrix_norm(mine.squares.factor))
    for bend, values, rows in (
        (mine, kernel.values, kernel.rows),
        module._with_rows(gradient, expected, gradient.read.values)[:3],
    ):
        both = torch.eye(d, dtype=torch.float64) + torch.outer(bend.x.double(), bend.b.double())
        factor = bend.squares.master[:d]
        assert relative(both @ factor, squares.fold().master[:d]) < 2e-6, "V(I + xbᵀ)U' should be VU"
        assert relative(bend.squares.inverse.double() @ factor, torch.eye(d, dtype=torch.float64)) < 2e-4
        assert relative(values, gradient.read.values @ both.float()) < 1e-5
        # The rows in the new segment's numbers, brought back, are those that the step wants.
        wanted = gradient.read.values.double() @ squares.fold().master[:d]
        wanted += gain * gradient.read.plan.transposed_times(gradient.sparse, hidden).double()
        assert relative(rows.double() @ factor, wanted) < 2e-5
    assert relative(mine.squares.master[d : 2 * d + 2], squares.fold().master[d : 2 * d + 2]) < 1e-12
    factor_size, inverse_size, growth, known, total = kernel.figures
    assert factor_size**0.5 == pytest.approx(size, rel=1e-4)
    assert inverse_size == pytest.approx(float(mine.squares.inverse.double().square().sum()), rel=1e-4)
    norms = [torch.linalg.vector_norm(x, dim=1) for x in (mine.solved, hidden)]
    assert growth == pytest.approx(float((norms[0] / norms[1]).max()), rel=1e-4)
    assert known == pytest.approx(float(mine.squares.value[d : 2 * d + 2].double().sum()), rel=1e-3, abs=1e-2)
    assert total == pytest.approx(float(kernel.rows.double().sum()), rel=1e-3, abs=1e-2)


def test_what_v_is_bent_by_does_not_take_the_inverse_at_its_word() -> None:
    head = trained(TABLE[0], 20, 24)
    gradient = made(head, TABLE[0], 20, 24)
    hidden, master = gradient.read.hidden, head.weights.squares.fold().master
    inexact = master.clone()
    inexact[50:] *= 1.0 + 1e-3 * torch.randn(24, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    squares = Squares.of(inexact, torch.float32)
    found = deflate_rows(squares, -0.1 * hidden @ squares.inverse, hidden, -0.1, gradient, gradient.read.values)
    assert found is not None
    both = torch.eye(24, dtype=torch.float64) + torch.outer(found[0].x.double(), found[0].b.double())
    assert relative(both @ found[0].squares.master[:24], master[:24]) < 1e-7


def test_a_direction_that_is_gone_is_not_taken_out() -> None:
    head = trained(TABLE[0], 20, 24)
    gradient = made(head, TABLE[0], 20, 24)
    squares, hidden = head.weights.squares, gradient.read.hidden
    for spoiled in (1e-6, float("nan")):
        master = squares.fold().master.clone()
        master[2 * 24 + 2 :] /= spoiled
        solved = hidden @ master[2 * 24 + 2 :].T.float()
        assert (
            deflate_rows(Squares.of(master, torch.float32), solved, hidden, 1.0, gradient, gradient.read.values) is None
        )


@pytest.mark.parametrize("most", [1, 7, 100, 10_000])
@pytest.mark.parametrize(("cursor", "stop"), [(0, 0), (0, 1_000), (3, 19), (5, 998)])
def test_rows_to_move_are_found(cursor: int, stop: int, most: int) -> None:
    head, _ = make_head(TABLE[0], 4, 1_000, torch.float32)
    gens, rows = head.weights.generations, head.weights.rows
    gens.stamps.copy_(torch.randint(0, 40, (1_000,), generator=torch.Generator().manual_seed(0)))
    gens.sweeping, gens.cursor = [3, 17, 39], cursor
    found, reached = gens._to_move(rows, stop, most)
    with kernels.without_kernels():
        expected, twin_reached = gens._to_move(rows, stop, most)
    assert torch.equal(found, expected)
    # Both stop where the next row to move is, or somewhere between the last that was found and it.
    assert reached == twin_reached or (len(found) == most and found[-1] < reached <= twin_reached)


def test_a_hidden_layer_elsewhere_is_none_of_the_kernels() -> None:
    head, _ = make_head(TABLE[0], 4, 50, torch.float32)
    hidden = torch.zeros(3, 4)
    assert kernels.applies(hidden, head.weights.values)
    for other in (hidden.to("meta"), hidden.double(), torch.zeros(3, 5), torch.zeros(0, 4)):
        assert not kernels.applies(other, head.weights.values)
    assert not kernels.applies(hidden, head.weights.values.to("meta"))
    assert not kernels.moves(head.weights.values.to("meta"))
    with pytest.raises((RuntimeError, NotImplementedError)):
        head(hidden.to("meta"), [[1], [2], [3]])
