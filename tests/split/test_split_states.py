"""States by torch.distributed.checkpoint: saved by P processes, loaded by others, with the same W to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from split import states
from support.several import Several

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
