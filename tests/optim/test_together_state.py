"""States, copies and hooks of several optimisers as one."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.together import EVERY, Model, batch, parts_of, same, trained

from widehead.optim import Together


@EVERY
def test_training_goes_on_from_states(name: str) -> None:
    options = {"momentum": 0.9} if name == "sgd" else {}
    model = Model()
    optimizer = Together(*parts_of(model, name, **options))
    trained(model, optimizer, 0, 3)
    optimizer.param_groups[1]["lr"] *= 0.5
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    assert [group["params"] for group in saved["optimizer"]["param_groups"]] == [[0, 1], [2]]
    other = Model()
    theirs = Together(*parts_of(other, name, **options))
    other.load_state_dict(saved["model"])
    theirs.load_state_dict(saved["optimizer"])
    for one, its in ((model, optimizer), (other, theirs)):
        trained(one, its, 3, 6)
    assert same(model, other)
    assert theirs.param_groups[1]["lr"] == optimizer.param_groups[1]["lr"]


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))],  # noqa: S301
    ids=["deepcopy", "pickle"],
)
@pytest.mark.parametrize("alone", [False, True])
def test_a_copy_goes_on_as_its_original(copied: Callable[[Any], Any], alone: bool) -> None:
    model = Model()
    optimizer = Together(*parts_of(model), max_grad_norm=0.05)
    trained(model, optimizer, 0, 3)
    other, theirs = (None, copied(optimizer)) if alone else copied((model, optimizer))
    assert theirs.max_grad_norm == 0.05
    assert theirs.heads[0] is not model.head
    if other is None:
        assert torch.equal(theirs.heads[0].weight(), model.head.weight())
        return
    for one, its in ((model, optimizer), (other, theirs)):
        trained(one, its, 3, 6)
        one(*batch(one, 7)).backward()
        assert torch.equal(one.head.handle.grad, one.head.lent_norm())
    assert same(model, other)


def test_a_state_of_other_groups_is_refused_and_changes_nothing() -> None:
    model = Model()
    optimizer = Together(*parts_of(model))
    state = optimizer.state_dict()
    state["param_groups"][0]["lr"] = 7.0
    state["param_groups"][1]["params"] = [2, 3]
    with pytest.raises(ValueError, match=r"groups of \[2, 1\] parameters\. Found \[2, 2\]"):
        optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] == 0.01


def test_hooks_of_states_and_steps_are_called() -> None:
    model, called = Model(), []
    optimizer = Together(*parts_of(model))
    optimizer.register_state_dict_post_hook(lambda _, state: called.append("saved"))
    optimizer.register_load_state_dict_pre_hook(lambda _, state: called.append("loading"))
    optimizer.register_load_state_dict_post_hook(lambda _: called.append("loaded"))
    optimizer.register_step_pre_hook(lambda *_: called.append("stepping"))
    optimizer.register_step_post_hook(lambda *_: called.append("stepped"))
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.step()
    assert called == ["saved", "loading", "loaded", "stepping", "stepped"]


def test_what_is_written_into_the_state_reaches_the_part() -> None:
    model = Model()
    optimizer = Together(*parts_of(model))
    trained(model, optimizer, 0, 2)
    assert len(optimizer.state) == 3
    for parameter, value in list(optimizer.state.items()):
        optimizer.state[parameter] = {name: copy.deepcopy(number) for name, number in value.items()}
    optimizer.state[model.encoder.weight]["exp_avg"].zero_()
    assert not optimizer.parts[0].state[model.encoder.weight]["exp_avg"].any()
    assert model.encoder.weight in optimizer.state
    optimizer.state.clear()
    assert model.encoder.weight not in optimizer.state
    assert torch.zeros(1) not in optimizer.state
    assert [len(part.state) for part in optimizer.parts] == [0, 0]
