"""States by torch.distributed.checkpoint: saved by P processes, loaded by others, with the same W to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from split import states
from support.several import MOST, Several
from support.small_run import PROCESSES

pytestmark = pytest.mark.long


def same(found: list[Any], expected: Any) -> None:
    for weight, beside in found:
        assert torch.equal(weight, expected[0])
        assert beside is None if expected[1] is None else torch.equal(beside, expected[1])


@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize(("first", "second"), [(3, 2), (1, 4), (4, 1), (2, 2)])
def test_from_some_processes_to_others_and_back(
    several: Several, tmp_path: Path, first: int, second: int, momentum: bool
) -> None:
    places = [str(tmp_path / name) for name in "abc"]
    expected = several.run(first, states.saved, places[0], momentum, 12)[0]
    same(several.run(second, states.loaded, places[0], momentum, places[1]), expected)
    same(several.run(first, states.loaded, places[1], momentum, places[2]), expected)


def test_a_save_in_the_background(several: Several, tmp_path: Path) -> None:
    expected = several.run(MOST, states.saved_meanwhile, str(tmp_path / "a"))[0]
    same(several.run(3, states.loaded, str(tmp_path / "a"), False, str(tmp_path / "b")), expected)


@pytest.mark.parametrize(("before", "opened"), [(False, True), (True, True), (True, False)])
def test_what_a_killed_save_leaves_is_no_checkpoint(tmp_path: Path, before: bool, opened: bool) -> None:
    """Of an earlier checkpoint in the same folder half is left then: rows of one, Q of the other."""
    folder = tmp_path / "a"
    given = 2, str(tmp_path / "meet"), str(folder), before, opened
    workers = [PROCESSES.Process(target=states.die_in_a_save, args=(rank, *given)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120.0)
    assert [worker.exitcode for worker in workers] == [3, 9]
    assert list(folder.glob("*.distcp"))
    head, _ = states.made(None)
    weight, state = head.weight(), {name: part.clone() for name, part in head.state_dict().items()}
    refusal = RuntimeError if before and not opened else dcp.api.CheckpointException
    with pytest.raises(refusal, match="should be that of its rows" if refusal is RuntimeError else None):
        take(head, state, folder)
    assert torch.equal(head.weight(), weight)


def take(head: Any, state: dict[str, torch.Tensor], folder: Path) -> None:
    dcp.load({"head": state}, checkpoint_id=str(folder))
    head.load_state_dict(state)


@pytest.mark.parametrize("momentum", [False, True])
def test_a_head_with_all_rows_goes_on_from_it(several: Several, tmp_path: Path, momentum: bool) -> None:
    expected = several.run(3, states.saved, str(tmp_path / "a"), momentum, 12)[0]
    head, optimizer = states.made(None, momentum=momentum)
    state = {"head": {name: part.clone() for name, part in head.state_dict().items()}}
    dcp.load(state, checkpoint_id=str(tmp_path / "a"))
    head.load_state_dict(state["head"])
    assert torch.equal(head.weight(), expected[0])
    states.train(head, optimizer, 3, None, range(20, 30))
    assert head.audit().gram < 2e-6


@pytest.mark.parametrize("size", [1, 3])
def test_a_state_of_a_head_with_all_rows_is_taken_apart(several: Several, size: int) -> None:
    head, optimizer = states.made(None)
    states.train(head, optimizer, 2, None, range(12))
    state = {name: part.clone() for name, part in head.state_dict().items()}
    assert max(several.run(size, states.taken_from_one, state, head.weight())) < 2e-6


def test_a_state_whose_memory_was_trained_on_is_refused(several: Several) -> None:
    for message in several.run(2, states.stale):
        assert "changed since" in message


def test_a_state_of_rows_in_half_of_the_memory(several: Several) -> None:
    assert max(several.run(2, states.narrow)) < 2e-6
