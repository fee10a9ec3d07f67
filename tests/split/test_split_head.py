"""Rows split over 1 to 4 processes: the same losses, gradients and W as one head that has all rows and all examples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from split import cases, direct
from support.properties import TABLE
from support.several import Several

import widehead as wh

pytestmark = pytest.mark.long

SIZES = [1, 2, 3, 4]
FEW = ("squared, values", "spherical softmax", "user's")


def check(found: list[dict[str, float]], bound: float, of_gradients: float | None = None) -> None:
    bounds = {"hidden": of_gradients or bound, "norm": of_gradients or bound, "closes": float("inf")}
    for rank, off in enumerate(found):
        wrong = {name: value for name, value in off.items() if not value < bounds.get(name, bound)}
        assert not wrong, f"rank {rank}: {off}"


@pytest.mark.parametrize(
    ("loss", "size"), [(row.name, size) for row in TABLE for size in SIZES if size == 3 or row.name in FEW]
)
def test_every_loss(several: Several, size: int, loss: str) -> None:
    arguments = (loss, "sgd", 37, 6, 3, torch.float64, 12, {})
    check(several.run(size, cases.trained, *arguments), 1e-11)


@pytest.mark.parametrize(("loss", "size"), [(FEW[0], 3), (FEW[1], 2), (FEW[1], 4), (FEW[2], 2)])
@pytest.mark.parametrize("optimizer", sorted(cases.OPTIMIZERS))
def test_every_optimizer(several: Several, size: int, optimizer: str, loss: str) -> None:
    arguments = (loss, optimizer, 37, 6, 3, torch.float64, 15, {"bias": True})
    check(several.run(size, cases.trained, *arguments), 1e-10)


@pytest.mark.parametrize("classes", [1, 2, 3, 5, 8])
def test_fewer_classes_than_processes_and_processes_without_rows(several: Several, classes: int) -> None:
    arguments = ("squared", "newton", classes, 6, 3, torch.float64, 12, {})
    check(several.run(4, cases.trained, *arguments), 1e-10)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "newton"])
@pytest.mark.parametrize(("m", "loss"), [(3, "squared"), (40, "squared"), (40, "spherical softmax")])
def test_float32(several: Several, optimizer: str, m: int, loss: str) -> None:
    arguments = (loss, optimizer, 500, 16, m, torch.float32, 100, {})
    check(several.run(2, cases.trained, *arguments), 2e-5, 4e-4)  # gradients fade while W is learnt


@pytest.mark.parametrize("kind", ["file", "bfloat16"])
def test_rows_in_a_file_and_in_half_of_the_memory(several: Several, kind: str, tmp_path: Path) -> None:
    for off in several.run(3, cases.kept_apart, str(tmp_path), kind):
        assert off["gram"] < 4e-6, off
        assert off["column_sum"] < 4e-6, off
        assert off["weight"] < (2e-5 if kind == "file" else 2e-2), off


@pytest.mark.parametrize("case", [cases.accumulated, cases.own_loss, cases.with_encoder, cases.with_sharded_encoder])
def test_accumulated_passes_losses_by_hand_and_encoders(several: Several, case: Callable[..., Any]) -> None:
    check(several.run(3, case), 1e-11)


@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.parametrize("kind", direct.KINDS)
@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_loss_and_gradient_are_those_of_forward_and_backward(
    several: Several, kind: str, optimizer: str, passes: int
) -> None:
    """To the last bit: batches of unlike sizes, ragged, some examples without targets."""
    for same in several.run(2, direct.trained, "squared, values", optimizer, kind, passes):
        assert all(same), same


@pytest.mark.parametrize("rest", direct.RESTS)
def test_loss_and_gradient_of_a_head_that_does_not_learn(several: Several, rest: str) -> None:
    for same in several.run(2, direct.at_rest, rest):
        assert all(same), same


def test_first_weights_do_not_depend_on_how_many_processes_there_are(several: Several) -> None:
    alone = several.run(1, cases.drawn, torch.float32)[0]
    assert abs(float(alone.std()) - float(wh.losses.SquaredError().initial_std(6, 9001))) < 0.01
    for size in SIZES[1:]:
        for weight in several.run(size, cases.drawn, torch.float32):
            assert torch.equal(weight, alone)


def test_what_is_sent_does_not_depend_on_the_number_of_classes(several: Several) -> None:
    few, many = (several.run(2, cases.bytes_of_a_step, classes) for classes in (10_000, 1_000_000))
    assert few == many
    # Two messages of all examples' rows: 8 numbers of H, and of SW, each with 4 bytes.
    examples = 3 * (5 + 7)
    assert few[0]["SW"] == 4 * 8 * examples
    assert few[0]["sums over examples"] == 3 * 4 * 3 * 8 * 8  # examples are more than the width
    hidden, most = 2 * 3 * 4 * 8 * 7, 2 * 3 * 8 * 7 * (1 + 3)  # the shorter part is filled up; up to three targets each
    assert hidden < few[0]["batch"] + few[1]["batch"] <= hidden + most


def test_all_take_what_rank_0_knows_of_w_from_time_to_time(several: Several) -> None:
    for rank, (before, after, parted) in enumerate(several.run(2, cases.told_the_truth)):
        assert before > 1e-7
        assert after < 1e-13
        assert (parted > 1e-8) == (rank == 1)
