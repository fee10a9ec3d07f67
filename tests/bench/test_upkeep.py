"""The bench of upkeep: its stream is as described, its clock sees every call and leaves no trace."""

from __future__ import annotations

import math
import time

import pytest
import torch

from widehead.arithmetic import using
from widehead.bench import measure_upkeep
from widehead.bench.problem import OutputLayerProblem, TrainedStream
from widehead.bench.upkeep import UpkeepClock
from widehead.heads import ExactHead
from widehead.losses import SquaredError
from widehead.optim import SGD

_CPU = torch.device("cpu")


def _stream(targets: str, classes: int = 1000, width: int = 16, batch: int = 4000) -> TrainedStream:
    generator = torch.Generator().manual_seed(0)
    return TrainedStream(OutputLayerProblem(classes, width, batch, 2), targets, generator)  # type: ignore[arg-type]


def test_hidden_layers_have_a_mean_and_a_spectrum() -> None:
    hidden, _ = _stream("zipf").draw()
    hidden = hidden.double()
    mean = hidden.mean(0)
    assert (hidden**2).sum(1).mean() == pytest.approx(16.0, rel=0.05)
    assert (mean**2).sum() == pytest.approx(8.0, rel=0.05)
    spectrum = torch.linalg.eigvalsh((hidden - mean).T @ (hidden - mean) / len(hidden)).flip(0)
    share = 1.0 / torch.arange(1.0, 17.0, dtype=torch.float64)
    torch.testing.assert_close(spectrum, 8.0 * share / share.sum(), rtol=0.15, atol=0.0)


def test_targets_follow_their_distribution() -> None:
    stream = _stream("zipf")
    zipf = torch.cat([stream.draw()[1].class_ids for _ in range(10)])
    assert (zipf == 0).double().mean() == pytest.approx(math.log(2) / math.log(1001), rel=0.05)
    assert (zipf < 31).double().mean() == pytest.approx(math.log(32) / math.log(1001), rel=0.05)
    uniform = _stream("uniform").draw()[1].class_ids
    assert uniform.double().mean() == pytest.approx(499.5, rel=0.05)
    for ids in (zipf, uniform):
        assert ids.min() >= 0
        assert ids.max() < 1000


def test_the_largest_stable_lr_is_where_the_curvature_says() -> None:
    stream = _stream("uniform", batch=64)
    lr = stream.largest_stable_lr(batches=1)
    hidden, _ = _stream("uniform", batch=64).draw()
    assert lr == pytest.approx(2.0 / float(torch.linalg.eigvalsh(2.0 * hidden.T @ hidden / 64).max()), rel=1e-4)


def test_figures_are_those_of_the_run() -> None:
    row = measure_upkeep(3000, 8, 16, steps=150, curvature=0.5)
    assert 1.0 <= row["p99_in_medians"] <= row["p999_in_medians"] <= row["max_in_medians"]
    assert 0.0 < row["closes_per_step"] <= 2.0  # a step may bend two directions
    assert row["upkeep_share"] == pytest.approx(row["closing_share"] + row["moving_share"])
    assert 0.0 < row["closing_share"] < 1.0
    assert row["longest_close"] <= row["max_in_medians"] * row["seconds"]
    assert (row["steps"], row["optimizer"], row["targets"], row["classes"]) == (150, "sgd", "zipf", 3000)


def test_newton_has_its_own_lr() -> None:
    row = measure_upkeep(500, 8, 16, 3, steps=20, optimizer="newton", targets="uniform")
    assert (row["lr"], row["curvature"]) == (1.0, None)


def test_the_same_seed_does_the_same_upkeep() -> None:
    first, second = (measure_upkeep(3000, 8, 16, steps=60, seed=5) for _ in range(2))
    assert first["closes_per_step"] == second["closes_per_step"]
    assert first["rows_moved"] == second["rows_moved"]


def test_the_clock_counts_every_phase_and_leaves_no_trace() -> None:
    clock, head = UpkeepClock(_CPU), ExactHead(4, 50, SquaredError())
    optimizer, plain = SGD(head, lr=0.12), head.weights.rows.arithmetic
    with using(plain.with_phases(clock.phase)):
        for _ in range(5):
            head(torch.ones(1, 4), [[1]]).backward()
            optimizer.step()
    closes = head.weights.versions.closes
    assert closes > 0
    assert len(clock.seconds["closing"]) >= closes  # to look for a correction and to make it are two
    assert len(clock.seconds["moving"]) == 5
    assert head.weights.rows.arithmetic is plain
    head(torch.ones(1, 4), [[1]]).backward()
    optimizer.step()
    assert len(clock.seconds["moving"]) == 5


def test_the_clock_counts_all_of_a_phase_also_one_that_fails() -> None:
    clock = UpkeepClock(_CPU)
    with pytest.raises(ValueError, match="non-negative"), clock.phase("closing"):
        time.sleep(0.02) or time.sleep(-1)  # type: ignore[func-returns-value]
    assert clock.seconds["closing"][0] >= 0.02
    assert clock.seconds["moving"] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "`steps`"),
        ({"optimizer": "adam"}, "`optimizer`"),
        ({"optimizer": "newton", "curvature": 0.5}, "leave it out"),
        ({"curvature": 0.0}, "in \\(0, 1\\]"),
        ({"curvature": float("nan")}, "in \\(0, 1\\]"),
        ({"targets": "even"}, '"zipf" or "uniform"'),
    ],
)
def test_wrong_options_of_upkeep_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure_upkeep(100, 4, 4, **options)
