"""Averages of models that leave W out: whoever writes one into the tensors of a state or into parameters is told."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from support.small_head import data, make

import widehead as wh


def trained(steps: int) -> Any:
    head = make(wh.losses.SphericalSoftmax(), torch.float32)
    optimizer = wh.optim.SGD(head, lr=0.1)
    for seed in range(steps):
        hidden, ids = data(6, seed)
        head(hidden.float(), ids).backward()
        optimizer.step()
    return head


@pytest.mark.parametrize("write", ["copy", "lerp", "multiply and add"])
def test_an_average_written_into_the_tensors_of_a_state_is_an_error(write: str) -> None:
    """As timm's ModelEma and loops over state_dict().values() do."""
    head, average = trained(9), trained(5)
    hidden = data(3)[0].float()
    for old, new in zip(average.state_dict().values(), head.state_dict().values(), strict=True):
        if write == "copy":
            old.copy_(0.5 * old + 0.5 * new)
        elif old.is_floating_point():
            old.lerp_(new, 0.5) if write == "lerp" else old.mul_(0.5).add_(new, alpha=0.5)
    for use in (lambda: average.scores(hidden), lambda: average.state_dict(), lambda: average.to(torch.float64)):
        with pytest.raises(RuntimeError, match=r"copied or averaged into.*widehead\.heads\.AveragedModel"):
            use()
    head.scores(hidden)


def test_steps_between_states_are_no_such_thing() -> None:
    head = trained(5)
    optimizer, kept = wh.optim.SGD(head, lr=0.1), []
    for seed in range(4):
        kept.append(head.state_dict())
        hidden, ids = data(6, seed)
        head(hidden.float(), ids).backward()
        optimizer.step()
        head.consolidate()
    head.scores(hidden.float())
    assert all(torch.equal(state["values"], head.weights.values) for state in kept)  # the memory itself, as in torch
    head.load_state_dict(copy.deepcopy(head.state_dict()))
    head.scores(hidden.float())


def test_a_pickle_holds_the_rows_once() -> None:
    head = wh.ExactHead(64, 1_000, wh.losses.SquaredError())
    before = len(pickle.dumps(head))
    head.state_dict()
    assert len(pickle.dumps(head)) < 1.1 * before
    other = copy.deepcopy(head)
    assert other.state_dict()["values"].data_ptr() == other.weights.values.data_ptr()


def test_a_seal_averaged_with_itself_and_written_back_is_seen() -> None:
    """As by averages that are copied into the model that they are of: its own number would come back."""
    head = trained(5)
    seal = head.seal.clone()
    seal.lerp_(head.seal, 0.1)
    head.seal.data.copy_(seal)
    with pytest.raises(RuntimeError, match="averaged into"):
        head.scores(data(3)[0].float())
