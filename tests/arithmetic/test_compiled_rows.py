"""Rows by C beside torch's: brought forward, made, written and moved; ids and records that are wrong read nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from support.compiled_steps import BALANCED, COMPILED, D, compare_written, stepped, trained
from support.properties import TABLE, batch, head_loss, make_head, pending_gradient, relative

import widehead as wh
from widehead.arithmetic import TORCH, Arithmetic, StepRule, using
from widehead.factored import forward
from widehead.heads.exact import ExactHead
from widehead.losses import sum_over_targets
from widehead.versions import RowVersions

pytestmark = pytest.mark.skipif(COMPILED is None, reason="needs a C compiler, and Linux")
KINDS = ("behind", "successors", "corrections", "last")


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


def contracted(d: int, m: int, num_classes: int) -> Iterator[ExactHead]:
    """A head after each of many steps of half the largest stable size: corrections and new segments in most of them."""
    row = TABLE[0]
    head, _ = make_head(row, d, num_classes, torch.float32)
    optimizer = wh.optim.SGD(head, lr=1.0)
    generator = torch.Generator().manual_seed(1)
    for _ in range(100):
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
