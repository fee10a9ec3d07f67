"""Heads with parameters, split over 1 to 4 processes: the same losses, gradients and W as one that has everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from split import head_corners, head_states, heads
from split.test_split_head import check
from support.several import Several

import widehead as wh

pytestmark = pytest.mark.long


@pytest.mark.parametrize(
    ("head", "size"),
    [(head, size) for head in sorted(heads.HEADS) for size in (1, 2, 3) if size > 1 or head in ("full", "sampled")],
)
def test_every_head(several: Several, head: str, size: int) -> None:
    optimizer = ("adagrad", "adam", "sgd")[size - 1]
    check(several.run(size, heads.trained, head, optimizer, 37, torch.float64, 30, size != 2), 1e-12)


@pytest.mark.parametrize("head", ["full", "sampled"])
def test_in_four_processes_and_float32(several: Several, head: str) -> None:
    check(several.run(4, heads.trained, head, "adagrad", 37, torch.float32, 30, True), 2e-5, 2e-5)


@pytest.mark.parametrize("classes", [1, 2, 5])
@pytest.mark.parametrize("head", ["full", "in-batch", "noise-contrastive"])
def test_fewer_classes_than_processes_and_processes_without_rows(several: Several, head: str, classes: int) -> None:
    check(several.run(4, heads.trained, head, "sgd", classes, torch.float64, 5, False), 1e-12)


# -- states, clipping and first weights -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "optimizer", "first", "second"),
    [("full", "adam", 3, 2), ("full", "sgd", 2, None), ("sampled", "adam", 2, 4), ("sampled", "adagrad", 3, None)],
)
def test_states_of_heads_and_optimizers_from_some_processes_to_others_and_back(
    several: Several, tmp_path: Path, head: str, optimizer: str, first: int, second: int | None
) -> None:
    """To the last bit, with one process that has all rows among the others."""
    places = [str(tmp_path / name) for name in "abc"]
    expected = several.run(first, head_states.saved, head, optimizer, places[0])[0]
    if second is None:
        found = [head_states.loaded(None, head, optimizer, *places[:2])]
    else:
        found = several.run(second, head_states.loaded, head, optimizer, *places[:2])
    found += several.run(first, head_states.loaded, head, optimizer, *places[1:])
    for one in found:
        assert len(one) == len(expected) >= 3
        assert all(torch.equal(a, b) for a, b in zip(one, expected, strict=True))


def test_a_state_of_a_head_that_has_all_rows_is_taken_apart(several: Several) -> None:
    head = head_states.made(None, "blackout", "sgd")[0]
    for weight, again, state in several.run(3, head_states.taken_apart, "blackout", dict(head.state_dict())):
        assert torch.equal(weight, head.weight())
        assert torch.equal(again, head.weight())
        assert set(state) == set(head.state_dict())


@pytest.mark.parametrize("order", [2.0, 1.0, float("inf")])
@pytest.mark.parametrize("head", ["full", "sampled"])
def test_clipping_by_torch_is_by_the_norm_of_the_whole(several: Several, head: str, order: float) -> None:
    for off in several.run(3, head_states.clipped_by_torch, head, order):
        assert max(map(abs, off)) < 1e-12


def test_clipping_with_an_encoder_in_fully_shard(several: Several) -> None:
    for off in several.run(2, head_states.clipped_with_fully_shard):
        assert max(map(abs, off)) < 1e-12


@pytest.mark.parametrize("head", ["full", "sampled"])
def test_an_infinity_in_the_rows_of_one_stops_the_step_of_all_by_grad_scaler(several: Several, head: str) -> None:
    for kept, off in several.run(2, head_states.scaled, head):
        assert kept
        assert off < 1e-5


@pytest.mark.parametrize("head", ["full", "sampled"])
def test_first_weights_do_not_depend_on_how_many_processes_there_are(several: Several, head: str) -> None:
    first, again, _ = several.run(1, head_states.drawn, head)[0]
    assert abs(float(first.std()) * (3.0 * heads.WIDTH) ** 0.5 - 1.0) < 0.02
    assert not torch.equal(first, again)
    for found in several.run(3, head_states.drawn, head):
        assert torch.equal(found[0], first)
        assert torch.equal(found[1], again)
        assert found[2]


@pytest.mark.parametrize("head", ["full", "sampled"])
def test_what_is_sent_does_not_depend_on_the_number_of_classes(several: Several, head: str) -> None:
    few, many = (several.run(2, head_states.bytes_of_a_step, head, classes) for classes in (300, 30_000))
    unique = {"rows", "row gradients"}  # of 7 negatives, more of which are targets too if there are few classes
    assert [{k: v for k, v in one.items() if k not in unique} for one in few] == [
        {k: v for k, v in one.items() if k not in unique} for one in many
    ]
    if head == "full":
        hidden, most = (
            2 * 3 * 4 * 8 * 7,
            2 * 3 * 8 * 7 * (1 + 3),
        )  # the shorter part is filled up; up to three targets each
        assert hidden < few[0]["batch"] + few[1]["batch"] <= hidden + most
        assert few[0]["by hidden"] == 4 * 8 * 3 * (5 + 7)
    else:
        assert many[0]["rows"] == many[0]["row gradients"] <= 1.2 * few[0]["rows"]


@pytest.mark.parametrize("head", ["adaptive", "two-level", "huffman"])
def test_a_tree_in_data_parallel(several: Several, head: str) -> None:
    assert max(several.run(2, heads.tree_in_data_parallel, head)) < 1e-12


@pytest.mark.parametrize("head", [wh.AdaptiveSoftmaxHead, wh.HierarchicalSoftmaxHead])
def test_a_tree_is_not_split(head: Any) -> None:
    with pytest.raises(ValueError, match="leave it out, and put encoder and head as one model into Distributed"):
        head(16, 100, mesh="a mesh")


def test_indices_that_miss_classes_leave_the_normalizer_unbiased(several: Several) -> None:
    pytest.importorskip("faiss")
    assert max(several.run(2, heads.estimates)) < 4.0


# -- corners --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["full", "sampled"])
def test_copies_averages_and_casts(several: Several, head: str) -> None:
    for off in several.run(2, head_corners.copied, head):
        assert off[:2] == [0.0, 0.0]
        assert off[2] < 1e-12


@pytest.mark.parametrize("head", ["full", "in-batch", "negative sampling", "retrieved", "retrieved for each"])
def test_processes_without_examples_or_targets(several: Several, head: str) -> None:
    assert max(max(off) for off in several.run(3, head_corners.given_nothing, head)) < 1e-12


@pytest.mark.parametrize("head", ["full", "sampled", "retrieved"])
def test_a_head_that_is_not_trained(several: Several, head: str) -> None:
    assert max(several.run(3, head_corners.frozen, head)) < 1e-12


@pytest.mark.parametrize("head", ["full", "sampled"])
def test_in_bfloat16(several: Several, head: str) -> None:
    for split, alone in several.run(2, head_corners.narrow, head):
        assert split <= 2.0 * alone + 0.02
