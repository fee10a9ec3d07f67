"""Rows in generations against the obvious twin: a dense matrix that is multiplied by every segment's product."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from widehead.factored.generations import CAPACITY, FANOUT, Generations
from widehead.factored.rows import Rows

D, WIDTH = 200, 3


def contraction(generator: torch.Generator) -> torch.Tensor:
    """A random matrix whose largest singular value is 1, as a product of stable steps has."""
    matrix = torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64)
    return matrix / torch.linalg.matrix_norm(matrix, 2)


def start() -> tuple[Generations, Rows, torch.Tensor]:
    values = torch.randn(D, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Generations.fresh(D, WIDTH, values), Rows(values), values.clone()


def check(generations: Generations, values: Rows, truth: torch.Tensor) -> None:
    everything = torch.arange(D)
    assert torch.allclose(generations.rows_at_newest(values, everything), truth, atol=1e-12)
    carried = set(generations.stamps.unique().tolist())
    live = generations.live
    assert carried <= set(live)
    assert len(live) == len(set(live))
    assert generations.newest in live


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.booleans(), st.lists(st.integers(0, D - 1), max_size=6, unique=True), st.integers(0, 90)),
        max_size=120,
    )
)
def test_rows_are_what_the_dense_matrix_is(plan: list[tuple[bool, list[int], int]]) -> None:
    """Any order of closing segments, rewriting rows and sweeping leaves every row's meaning as it is."""
    generations, values, truth = start()
    generator = torch.Generator().manual_seed(1)
    for closes, touched, swept in plan:
        if closes:
            factor = contraction(generator)
            generations.close(factor, values)
            truth = truth @ factor
        rows = torch.tensor(touched, dtype=torch.int64)
        values.write(rows, generations.rows_at_newest(values, rows))
        generations.stamps[rows] = generations.newest
        generations.sweep(values, swept)
    check(generations, values, truth)


def test_a_row_that_is_never_a_target_moves_logarithmically_often() -> None:
    generations, values, truth = start()
    generator = torch.Generator().manual_seed(2)
    closes = FANOUT**3
    for _ in range(closes):
        factor = contraction(generator)
        generations.close(factor, values)
        truth = truth @ factor
        generations.sweep(values, D)
    check(generations, values, truth)
    assert generations.moved_rows <= 3 * D
    assert len(generations.live) <= 3 * FANOUT


def test_sweeps_look_at_no_more_rows_than_asked() -> None:
    generations, values, _ = start()
    for _ in range(FANOUT):
        generations.close(torch.eye(WIDTH, dtype=torch.float64), values)
    assert generations.retired
    generations.sweep(values, 30)
    assert generations.cursor == 30
    assert generations.moved_rows == 30
    assert (generations.stamps[30:] != generations.newest).all()


def test_when_no_sweep_ever_runs_slots_are_freed_in_time() -> None:
    generations, values, truth = start()
    generator = torch.Generator().manual_seed(3)
    for _ in range(3 * CAPACITY):
        factor = contraction(generator)
        generations.close(factor, values)
        truth = truth @ factor
        assert len(generations.live) <= CAPACITY
    check(generations, values, truth)


def test_gathering_leaves_one_boundary() -> None:
    generations, values, truth = start()
    generator = torch.Generator().manual_seed(4)
    for _ in range(20):
        factor = contraction(generator)
        generations.close(factor, values)
        truth = truth @ factor
        generations.sweep(values, 7)
    generations.gather_all(values)
    assert generations.live == [generations.newest]
    assert torch.allclose(values.stored, truth, atol=1e-12)


@pytest.mark.parametrize("closes_every", [1, 10, 1000])
def test_pace_keeps_live_slots_bounded(closes_every: int) -> None:
    """With the pace that a training step uses, sweeps never fall so far behind that a step has to finish them."""
    rows = 5000
    values = Rows(torch.zeros(rows, WIDTH))
    generations = Generations.fresh(rows, WIDTH, values.stored)
    most, generations.steps_per_close = 0, float(closes_every)
    for step in range(1, 600 * closes_every if closes_every < 100 else 20_000):
        if step % closes_every == 0:
            generations.close(torch.eye(WIDTH), values)
        generations.sweep(values, generations.rows_due(16))
        most = max(most, len(generations.live))
    assert most < CAPACITY - 1


def test_contracted_transforms_hold_no_denormal_numbers() -> None:
    values = Rows(torch.ones(D, WIDTH))
    generations = Generations.fresh(D, WIDTH, values.stored)
    for _ in range(60):
        generations.close(0.1 * torch.eye(WIDTH), values)
        generations.sweep(values, 10)
    tiny = torch.finfo(torch.float32).tiny
    for part in (generations.transforms, values.stored):
        assert not ((part != 0) & (part.abs() < tiny)).any()
