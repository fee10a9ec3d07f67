"""Bags whose rows are split over processes: the same as nn.EmbeddingBag with all rows and examples in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from split import bags
from support.several import Several

import widehead as wh

pytestmark = pytest.mark.long


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize(
    ("optimizer", "mode", "weighted"),
    [("adam", "sum", True), ("adagrad", "mean", False), ("sgd", "sum", False), ("dense", "sum", True)],
)
def test_training(several: Several, optimizer: str, mode: str, weighted: bool, size: int) -> None:
    assert max(max(off) for off in several.run(size, bags.trained, optimizer, mode, 37, weighted)) < 1e-12


@pytest.mark.parametrize("count", [1, 2, 5])
def test_fewer_rows_than_processes_and_processes_without_rows(several: Several, count: int) -> None:
    assert max(max(off) for off in several.run(4, bags.trained, "adam", "sum", count, True)) < 1e-12


@pytest.mark.parametrize(("first", "second"), [(3, 2), (2, None)])
def test_states_from_some_processes_to_others_and_back(
    several: Several, tmp_path: Path, first: int, second: int | None
) -> None:
    """To the last bit, an nn.EmbeddingBag among them."""
    a, b, c = (str(tmp_path / name) for name in "abc")
    expected = several.run(first, bags.saved, a)[0]
    found = [bags.loaded(None, a, b)] if second is None else several.run(second, bags.loaded, a, b)
    for one in [*found, *several.run(first, bags.loaded, b, c)]:
        assert all(torch.equal(x, y) for x, y in zip(one, expected, strict=True))


def test_a_checkpoint_of_an_ordinary_bag_is_taken_apart(several: Several, tmp_path: Path) -> None:
    expected = bags.saved(None, str(tmp_path / "a"))
    for one in several.run(2, bags.loaded, str(tmp_path / "a"), str(tmp_path / "b")):
        assert all(torch.equal(x, y) for x, y in zip(one, expected, strict=True))


def test_first_rows_do_not_depend_on_how_many_processes_there_are(several: Several) -> None:
    first, again = several.run(1, bags.drawn)[0]
    assert abs(float(first.std()) - 1.0) < 0.02
    assert not torch.equal(first, again)
    for found in several.run(3, bags.drawn):
        assert torch.equal(found[0], first)
        assert torch.equal(found[1], again)


def test_what_is_sent_does_not_depend_on_the_number_of_rows(several: Several) -> None:
    few, many = (several.run(2, bags.bytes_of_a_step, count) for count in (30, 30_000))
    assert few == many
    assert few[0]["sums"] == 2 * 4 * bags.WIDTH * 4
    assert few[0]["gradients of sums"] == 4 * bags.WIDTH * 4


@pytest.mark.parametrize("call", ["id", "negative", "type", "offsets", "weights", "state", "another", "frozen"])
def test_what_one_process_does_wrong_all_hear_of(several: Several, call: str) -> None:
    found = several.run(3, bags.wrong, call)
    assert all("ank 1" in message for message, _ in (found[0], found[2])), found
    assert all(same for _, same in found)
    assert found[1][0] != "nothing"


def test_what_is_not_built_is_refused() -> None:
    with pytest.raises(ValueError, match='"sum" or "mean"'):
        wh.RowSplitBag(9, 3, mesh=None, mode="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="DeviceMesh of one dimension"):
        wh.RowSplitBag(9, 3, mesh=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"num_embeddings": 0}, {"embedding_dim": 2.0}])
def test_parameters_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` should be"):
        wh.RowSplitBag(**{"num_embeddings": 3, "embedding_dim": 2, "mesh": None, **wrong})
