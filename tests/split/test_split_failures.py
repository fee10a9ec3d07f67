"""A mistake of one process is an error on all of them, in the same words, and nothing is half-changed."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from split import failures
from support.several import Several
from torch import distributed

import widehead as wh
from widehead.errors import ProcessesError

pytestmark = pytest.mark.long


@pytest.mark.parametrize("optimizer", ["sgd", "newton"])
def test_what_is_not_finite_in_one_process_stops_the_step_of_all(several: Several, optimizer: str) -> None:
    for message in several.run(3, failures.not_finite, optimizer):
        assert "NaN or infinity in the hidden layer" in message
        assert "Not finite are examples of rank 1." in message


def test_another_order_of_calls(several: Several) -> None:
    for message in several.run(3, failures.another_order):
        assert "the same order" in message
        assert "rank 0: backward (D = 37, width = 6, float32); rank 1: audit" in message


@pytest.mark.parametrize("method", ["forward", "loss_and_gradient"])
def test_one_that_does_not_train(several: Several, method: str) -> None:
    for message in several.run(3, failures.one_does_not_train, method):
        assert "with gradients on rank 0, and one without" in message
        assert "on rank 1." in message


@pytest.mark.parametrize(
    ("option", "found"), [("classes", "D = 38"), ("width", "width = 7"), ("dtype", "float64")], ids=str
)
def test_another_head(several: Several, option: str, found: str) -> None:
    for message in several.run(3, failures.another_head, option):
        assert found in message.split("rank 1: ")[1].split(";")[0]
        assert "rank 0: counting (D = 37, width = 6, float32)" in message


def test_weights_that_are_not_finite_in_rows_of_one(several: Several) -> None:
    for message in several.run(2, failures.wrong_weight):
        assert message.startswith("Rank 1: `weight` and `bias` should be finite")


@pytest.mark.parametrize("others", [0, 1])
def test_a_split_head_inside_data_parallel(several: Several, others: int) -> None:
    heard = several.run(2, failures.in_data_parallel, others)
    assert all("outside of DistributedDataParallel" in message for message in heard), heard


@pytest.mark.parametrize("call", ["forward", "state", "weight"])
def test_an_average_in_one_process(several: Several, call: str) -> None:
    others, mine = several.run(2, failures.averaged, call)
    assert mine.startswith("The weights of this exact head should be changed by its optimiser alone.")
    assert others == f"Rank 1: {mine}"


def test_a_head_that_moves_waits_for_no_other_process(several: Several) -> None:
    mine, told = several.run(2, failures.moved_after_an_average)[1]
    assert mine.startswith("The weights of this exact head should be changed by its optimiser alone.")
    assert told == 0


@pytest.mark.parametrize("mesh", [3, "cpu"])
def test_what_is_no_mesh(mesh: Any) -> None:
    with pytest.raises(ValueError, match="DeviceMesh of one dimension"):
        wh.ExactHead(4, 10, wh.losses.SquaredError(), mesh=mesh)


def _dies(rank: int, place: str, answer: Any) -> None:
    from torch.distributed.device_mesh import init_device_mesh

    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=2)
    head = wh.ExactHead(4, 10, wh.losses.SquaredError(), mesh=init_device_mesh("cpu", (2,)))
    hidden = torch.ones(2, 4, requires_grad=True)
    head(hidden, [[1], [2]]).backward()
    if rank == 1:
        return  # as if its loader had failed
    try:
        head(hidden, [[1], [2]])
    except ProcessesError as error:
        answer.send(str(error))


def test_a_process_that_is_gone_ends_the_others(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    processes = [context.Process(target=_dies, args=(rank, str(tmp_path / "meet"), theirs)) for rank in range(2)]
    for process in processes:
        process.start()
    assert mine.poll(120), "the other waits for ever"
    assert "Found that one has ended" in mine.recv()
    begin = time.monotonic()
    for process in processes:
        process.join(30)
    assert time.monotonic() - begin < 30


@pytest.mark.parametrize("call", ["forward", "statistics", "scores", "top_k"])
def test_what_one_process_refuses_others_hear_of(several: Several, call: str) -> None:
    first, wrong, last = several.run(3, failures.wrong_argument, call)
    assert "Rank" not in wrong
    assert first == last == f"Rank 1: {wrong}"


@pytest.mark.parametrize("what", ["lr", "decay", "momentum", "damping"])
def test_steps_that_are_not_alike(several: Several, what: str) -> None:
    for message in several.run(2, failures.another_step, what):
        assert "on rank 0 and" in message or "on rank 1 and" in message
        assert "same options" in message


def test_a_learning_rate_that_is_no_number_in_one_process(several: Several) -> None:
    for message in several.run(2, failures.lr_of_no_size):
        assert message.startswith("Rank 1: ")
        assert "lr = nan" in message


def test_weights_that_are_drawn_anew(several: Several) -> None:
    alone = several.run(1, failures.drawn_anew)[0]
    for weight in several.run(3, failures.drawn_anew):
        assert torch.equal(weight, alone)
    assert not torch.equal(alone[:3000], alone[3001:6001])


def test_a_state_that_one_process_refuses(several: Several) -> None:
    other, refused = several.run(2, failures.bad_state)
    assert "`values` of an exact head should be finite" in refused
    assert other.startswith("Rank 1: `values` of an exact head should be finite")
