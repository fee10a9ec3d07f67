"""What long work tells of how far it is, and what displays make of it; clocks are played."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

from widehead.data import read_interactions
from widehead.data.cooccurrences import cooccurrences, following
from widehead.models import SparseMatrix, leading_singular_vectors, positive_eigenpairs, principal_axes
from widehead.options import TrainingConfig
from widehead.progress import Work, heard_by
from widehead.training.log import PlainDisplay
from widehead.training.position import Position


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    played = Clock()
    monkeypatch.setattr(PlainDisplay, "clock", staticmethod(played))
    return played


def test_a_line_is_there_before_the_first_second_of_work_ends(clock: Clock) -> None:
    stream = io.StringIO()
    with heard_by(PlainDisplay(stream).hear):
        work = Work("reading pairs.csv", 100)
        assert stream.getvalue() == ""
        for part in range(1, 100):
            clock.now += 0.1
            work.at(part)
            if clock.now > 1.0:
                break
    assert stream.getvalue() == "   3% | reading pairs.csv | 0:10 left\n".removeprefix(" ")


def test_other_work_is_shown_at_its_beginning_and_its_time_left_is_its_own(clock: Clock) -> None:
    stream = io.StringIO()
    with heard_by(PlainDisplay(stream).hear):
        Work("reading pairs.csv", 1)
        clock.now = 3600.0  # an hour of other work
        vectors = Work("singular vectors", 10)
        clock.now += 20.0
        vectors.add(5)
        clock.now += 1.0
        vectors.add(1)  # too early for another line
    assert stream.getvalue() == "  0% | singular vectors | ? left\n 50% | singular vectors | 0:20 left\n"


def test_work_of_a_moment_is_not_shown(clock: Clock) -> None:
    stream = io.StringIO()
    with heard_by(PlainDisplay(stream).hear):
        for what in ("reading", "judging", "axes"):
            clock.now += 0.05
            Work(what, 1).add(1)
    assert stream.getvalue() == ""


def test_the_time_that_steps_need_is_not_told_by_that_of_preparation() -> None:
    position = Position()
    position.prepared(600.0)
    config = TrainingConfig(job="recommender", train="x", out="y", loss="squared-error", epochs=2, width=8)
    assert position.left(config, 100) == float("inf")
    for _ in range(50):
        position.count(512, 0.1, 100)
    assert position.seconds == pytest.approx(605.0)
    assert position.left(config, 100) == pytest.approx(15.0)
    assert position.where(100)["preparation"] == 600.0
    by_time = TrainingConfig(
        job="recommender", train="x", out="y", loss="squared-error", epochs=None, minutes=11.0, width=8
    )
    assert position.left(by_time, 100) == pytest.approx(55.0)


def pairs(folder: Path) -> Any:
    (folder / "pairs.csv").write_text("".join(f"{n % 977},{n % 1013}\n" for n in range(300_000)))
    return read_interactions(folder / "pairs.csv")


def interactions() -> scipy.sparse.csr_matrix:
    return scipy.sparse.random(2000, 1100, 0.01, random_state=0, format="csr", dtype=np.float32)


WORK: dict[str, Callable[[Path], Any]] = {
    "reading pairs.csv": pairs,
    "singular vectors": lambda _: leading_singular_vectors(SparseMatrix(interactions()), 24),
    "axes of the features": lambda _: principal_axes(interactions(), 8, 0),
    "eigenvectors of words": lambda _: positive_eigenpairs(interactions()[:1100], 8, basis=128, seed=0),
    "counting words near one another": lambda _: cooccurrences(np.arange(400) % 7, 7, 3),
    "counting words right beside one another": lambda _: following(np.zeros(3 << 20, dtype=np.int8), 1),
}


@pytest.mark.parametrize("what", WORK)
def test_all_preparation_tells_how_far_it_is(what: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    heard: list[tuple[str, float]] = []
    with heard_by(lambda *told: heard.append(told)):
        WORK[what](tmp_path)
    parts = [done for name, done in heard if name == what]
    assert parts[0] == 0.0
    assert len(set(parts)) >= 3
    assert parts[-1] > 0.9
    assert all(0.0 <= part <= 1.0 for part in parts)


def test_nobody_need_listen() -> None:
    Work("reading", 1).add(1)
