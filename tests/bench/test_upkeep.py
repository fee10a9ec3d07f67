"""The bench of upkeep: its stream is as described, its clock sees every call and leaves no trace."""

from __future__ import annotations

import math
import time

import pytest
import torch

from widehead.bench import measure_upkeep
from widehead.bench.problem import OutputLayerProblem, TrainedStream
from widehead.bench.upkeep import UpkeepClock
from widehead.factored import FactoredWeights
from widehead.factored.generations import Generations
from widehead.factored.rows import Rows

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


def test_the_clock_counts_outer_calls_and_restores_the_methods() -> None:
    before = FactoredWeights.close_segment, Generations.upkeep, Generations.close
    weights = FactoredWeights.from_dense(torch.randn(50, 4))

    def slow(generations: Generations, factor: torch.Tensor, values: Rows) -> None:
        generations.upkeep(values, 10)  # inside a close: belongs to it
        time.sleep(0.02)
        before[2](generations, factor, values)

    with pytest.MonkeyPatch.context() as patch, UpkeepClock(_CPU) as clock:
        patch.setattr(Generations, "close", slow)
        weights.close_segment()
        weights.generations.upkeep(weights.rows, 10)
        assert FactoredWeights.close_segment is not before[0]
    assert [len(calls) for calls in clock.seconds.values()] == [1, 1]
    assert clock.seconds["closing"][0] >= 0.02 > clock.seconds["moving"][0]
    assert (FactoredWeights.close_segment, Generations.upkeep, Generations.close) == before


def test_the_clock_restores_the_methods_after_an_error() -> None:
    before = FactoredWeights.close_segment, Generations.upkeep
    weights = FactoredWeights.from_dense(torch.randn(50, 4))
    with UpkeepClock(_CPU) as clock, pytest.raises(TypeError):
        weights.generations.upkeep()  # type: ignore[call-arg]
    weights.generations.upkeep(weights.rows, 1)
    assert clock.seconds == {"closing": [], "moving": []}
    assert (FactoredWeights.close_segment, Generations.upkeep) == before


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
