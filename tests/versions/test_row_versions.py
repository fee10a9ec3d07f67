"""Versions of rows against the obvious twin: a dense matrix that is multiplied by every transform at once."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from widehead.arithmetic.interface import SLOTS
from widehead.factored import FactoredWeights
from widehead.factored.state import from_state, to_state
from widehead.versions import Rows, RowVersions

D, WIDTH = 200, 3


class Twins:
    """Versions of rows, and the dense float64 matrix that they stand for."""

    def __init__(self, rows: int = D, width: int = WIDTH, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.values = Rows(self.draw(rows, width))
        self.truth = self.values.stored.clone()
        self.versions = RowVersions.fresh(rows, width, self.truth)

    def draw(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def close(self) -> None:
        """A random matrix whose largest singular value is 1, as a product of stable steps has."""
        width = self.values.width
        factor = self.draw(width, width)
        factor /= torch.linalg.matrix_norm(factor, 2)
        self.versions.close(factor, self.values)
        self.truth = self.truth @ factor

    def correct(self) -> None:
        """A random direction is contracted."""
        x = self.draw(self.values.width)
        x /= x.norm()
        b = -(0.5 + 0.5 * torch.rand((), generator=self.generator, dtype=torch.float64)) * x
        self.versions.correct(x, b, self.values)
        self.truth = self.truth + torch.outer(self.truth @ x, b)

    def touch(self, rows: list[int]) -> None:
        """New values for some rows."""
        index = torch.tensor(rows, dtype=torch.int64)
        added = self.draw(len(rows), self.values.width)
        self.versions.write(self.values, index, self.versions.rows_at_newest(self.values, index) + added)
        self.truth[index] += added

    def check(self) -> None:
        gens = self.versions
        found = gens.rows_at_newest(self.values, torch.arange(self.values.num_rows))
        assert torch.allclose(found, self.truth, atol=1e-12)
        live = gens.live
        assert set(gens.versions.unique().tolist()) <= {*live, *range(SLOTS + 1, SLOTS + 1 + len(gens.corrections))}
        assert len(live) == len(set(live))
        assert gens.base in live
        assert set(gens.behind) <= set(live) - {gens.base}
        assert torch.equal(gens.transforms[gens.base], torch.eye(self.values.width, dtype=torch.float64))


EVENTS = st.one_of(
    st.tuples(st.just("touch"), st.lists(st.integers(0, D - 1), max_size=6, unique=True)),
    st.tuples(st.sampled_from(["close", "correct", "correct", "correct", "end"]), st.just(0)),
    st.tuples(st.sampled_from(["advance", "upkeep"]), st.integers(0, 40)),
    st.tuples(st.just("sweep"), st.integers(0, 90)),
)


def play(twins: Twins, event: tuple[str, int | list[int]]) -> None:
    (name, argument), gens = event, twins.versions
    if isinstance(argument, list):
        twins.touch(argument)
    elif name in ("close", "correct"):
        getattr(twins, name)()
    elif name == "end":
        gens.end_interval(twins.values)
    elif name == "advance":
        gens.advance(argument)
    elif name == "upkeep":
        gens.upkeep(twins.values, argument)
    else:
        gens.sweep(twins.values, argument, 20)


@settings(max_examples=60)
@given(st.lists(EVENTS, max_size=120))
def test_rows_are_what_the_dense_matrix_is(plan: list[tuple[str, int | list[int]]]) -> None:
    """Whatever was closed, corrected, written, advanced and swept in whatever order, each row means what it should."""
    twins = Twins()
    for event in plan:
        play(twins, event)
    twins.check()


@settings(max_examples=15)
@given(st.lists(EVENTS, max_size=80), st.lists(EVENTS, max_size=40))
@example([("correct", 0), ("touch", [])], [("upkeep", 0)])
def test_a_record_read_back_goes_on_bit_for_bit(
    before: list[tuple[str, int | list[int]]], after: list[tuple[str, int | list[int]]]
) -> None:
    """In the middle of an interval, of advancing and of a sweep."""
    twins = Twins()
    weights = FactoredWeights.from_rows(twins.values)
    twins.versions = weights.versions
    for event in before:
        play(twins, event)
    weights.recount()  # the twins write rows alone
    other = copy.copy(twins)
    empty = FactoredWeights.from_dense(torch.zeros_like(twins.truth))
    restored = from_state({name: part.clone() for name, part in to_state(weights).items()}, empty)
    other.versions, other.values = restored.versions, restored.rows
    other.generator = twins.generator.clone_state()
    other.truth = twins.truth.clone()
    for event in after:
        play(twins, event)
        play(other, event)
    assert torch.equal(other.values.stored, twins.values.stored)
    made = to_state(restored)
    for name, part in to_state(weights).items():
        assert torch.equal(made[name], part), name


def test_the_end_of_an_interval_has_memory_for_a_block_of_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rows, "block_rows", 16)
    twins, brought = Twins(), []
    bring = type(twins.values.arithmetic).bring_rows

    def watched(self: Any, table: Any, ids: torch.Tensor, **options: Any) -> Any:
        brought.append(len(ids))
        return bring(self, table, ids, **options)

    twins.correct()
    for first in range(0, 100, 10):  # rows of ten steps, some of them twice
        twins.touch(list(range(first, first + 15)))
    monkeypatch.setattr(type(twins.values.arithmetic), "bring_rows", watched)
    twins.versions.end_interval(twins.values)
    assert brought == [16] * 6 + [9]
    monkeypatch.undo()
    twins.check()


def test_a_row_that_is_never_a_target_moves_rarely() -> None:
    twins = Twins()
    for _ in range(twins.versions.fanout**3):
        twins.close()
        twins.versions.sweep(twins.values, D, D)
    twins.check()
    assert twins.versions.moved_rows <= 3 * D
    assert len(twins.versions.live) <= 3 * twins.versions.fanout


def test_slots_with_very_many_rows_are_not_emptied() -> None:
    twins = Twins()
    for number in range(4 * twins.versions.fanout):
        twins.close()
        twins.touch([number])
        twins.versions.sweep(twins.values, D, D)
    twins.check()
    assert 0 < twins.versions.moved_rows < D / 2
    assert int((twins.versions.versions == 0).sum()) > D / 2


def test_sweeps_look_at_no_more_rows_than_asked_and_move_no_more() -> None:
    twins = Twins()
    for number in range(twins.versions.fanout):
        twins.touch(list(range(20 * number, 20 * number + 20)))
        twins.close()
    gens = twins.versions
    assert gens.retired
    assert gens.sweep(twins.values, 30, D) == gens.cursor == 30
    assert gens.moved_rows == 10  # the first 20 rows stand where very many do
    assert gens.sweep(twins.values, D, 10) == 10
    assert (gens.cursor, gens.moved_rows) == (40, 20)
    assert (gens.versions[40:140] != gens.base).all()
    twins.check()


def test_when_no_upkeep_ever_runs_slots_are_freed_in_time() -> None:
    twins = Twins()
    for number in range(3 * SLOTS):
        twins.close()
        twins.touch([number % D])
        assert len(twins.versions.live) <= SLOTS
    twins.check()


def test_when_no_upkeep_ever_runs_intervals_end_in_time() -> None:
    twins = Twins()
    for number in range(3 * SLOTS):
        twins.correct()
        twins.touch([number % D])
    assert int(twins.versions.versions.max()) < 256
    twins.check()


def test_gathering_leaves_one_boundary() -> None:
    twins = Twins()
    for number in range(40):
        twins.close() if number % 3 else twins.correct()
        twins.touch([number, number + 1])
        twins.versions.sweep(twins.values, 7, 7)
    twins.correct()
    twins.versions.gather_all(twins.values)
    assert twins.versions.live == [twins.versions.newest]
    assert torch.allclose(twins.values.stored, twins.truth, atol=1e-12)


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("upkeep", [False, True])
def test_a_process_without_rows_has_an_end_to_its_sweeps(rows: int, upkeep: bool) -> None:
    """Of fewer classes than processes some have none."""
    twins = Twins(rows)
    for _ in range(2 * SLOTS):
        twins.close()
        if upkeep:
            twins.versions.upkeep(twins.values, 0)
    twins.versions.gather_all(twins.values)
    assert twins.versions.live == [twins.versions.newest]
    twins.check()


@pytest.mark.parametrize("closes_every", [1, 3, 10, 300])
@pytest.mark.parametrize("kind", ["correct", "close"])
def test_pace_keeps_work_and_live_slots_bounded(closes_every: int, kind: str) -> None:
    """With the upkeep of training steps, nothing is ever put off until it has to be done at once."""
    rows, touched = 20_000, 16
    twins = Twins(rows, 8)
    gens, most, moved = twins.versions, 0, 0
    for step in range(1, 300 * min(closes_every, 10)):
        if step % closes_every == 0:
            getattr(twins, kind)()
        twins.touch(torch.randint(rows, (touched,), generator=twins.generator).unique().tolist())
        before = gens.moved_rows
        gens.upkeep(twins.values, touched)
        most, moved = max(most, len(gens.live)), max(moved, gens.moved_rows - before)
    twins.check()
    assert most <= 5 * gens.fanout
    assert moved <= 256


def test_contracted_transforms_hold_no_denormal_numbers() -> None:
    values = Rows(torch.ones(D, WIDTH))
    versions = RowVersions.fresh(D, WIDTH, values.stored)
    x = torch.tensor([1.0, 0.0, 0.0])
    for number in range(60):
        if number % 2:
            versions.close(0.1 * torch.eye(WIDTH), values)
        for _ in range(3):
            versions.correct(x, -0.9999 * x, values)
            rows = torch.tensor([number])
            versions.write(values, rows, versions.rows_at_newest(values, rows))
        versions.upkeep(values, 10)
    tiny = torch.finfo(torch.float32).tiny
    for part in (versions.transforms, versions.corrections.both, values.stored):
        assert not ((part != 0) & (part.abs() < tiny)).any()
