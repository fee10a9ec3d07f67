"""Options, schedules and states of Newton, Shampoo and Muon."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.small_head import data, make

import widehead as wh


@pytest.mark.parametrize("kind", ["Newton", "Shampoo", "Muon"])
def test_decay_that_would_wipe_out_the_weights_stops_the_step(kind: str) -> None:
    head = make()
    before = head.weight()
    optimizer = getattr(wh.optim, kind)(head, lr=0.5, weight_decay=2.0)
    hidden, ids = data(4)
    head(hidden, ids).backward()
    with pytest.raises(ValueError, match=r"`lr \* weight_decay` should be in \[0, 1\). Found 1"):
        optimizer.step()
    assert torch.equal(head.weight(), before)


@pytest.mark.parametrize(
    ("kind", "defaults"),
    [
        ("Newton", {"lr": 1.0, "damping": 0.1, "decay": 0.95, "ridge": 0.0, "refresh_every": 10}),
        ("Shampoo", {"lr": 0.3, "damping": 0.1, "decay": 0.95, "refresh_every": 20}),
        ("Muon", {"lr": 0.3, "damping": 0.01}),
    ],
)
def test_defaults_are_those_of_the_docstrings(kind: str, defaults: dict[str, float]) -> None:
    (group,) = getattr(wh.optim, kind)(make()).param_groups
    del group["params"]
    assert group == {**defaults, "weight_decay": 0.0, "max_grad_norm": None, "capturable": False}


def test_what_is_remembered_follows_a_head_that_moves() -> None:
    head = make()
    optimizer = wh.optim.Newton(head)
    hidden, ids = data(4)
    head(hidden, ids).backward()
    optimizer.step()
    (group,) = optimizer.param_groups
    moved: Any = SimpleNamespace(weights=SimpleNamespace(values=torch.empty(0, device="meta")))
    beside = optimizer._remembered(moved, group)
    assert {getattr(beside, name).device.type for name in ("sum", "preconditioner")} == {"meta"}
    assert {optimizer.state[group["params"][0]][name].device.type for name in ("sum", "preconditioner")} == {"cpu"}


@pytest.mark.parametrize("kind", ["SGD", "Newton", "Shampoo", "Muon"])
@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.05, total_steps=10, cycle_momentum=False),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 10),
        lambda o: torch.optim.lr_scheduler.LinearLR(o, start_factor=0.1, total_iters=5),
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: min(1.0, step / 4)),
    ],
)
def test_warm_up_and_lr_schedulers_of_torch_work(kind: str, schedule: object) -> None:
    """W moves by as much as the lr of the moment says: not at all where it is 0."""
    head = make()
    optimizer = getattr(wh.optim, kind)(head, lr=0.02)
    scheduler = schedule(optimizer)  # type: ignore[operator]
    for step in range(8):
        before = head.weight()
        lr = optimizer.param_groups[0]["lr"]
        hidden, ids = data(20, seed=step)
        head(hidden, ids).backward()
        optimizer.step()
        assert bool((head.weight() != before).any()) == (lr > 0.0)
        scheduler.step()


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("SGD", {"momentum": 1.0}, "`momentum`"),
        ("SGD", {"momentum": -0.1}, "`momentum`"),
        ("SGD", {"nesterov": True}, "`nesterov`"),
        ("Newton", {"lr": -1.0}, "`lr`"),
        ("Newton", {"damping": -1.0}, "`damping`"),
        ("Newton", {"decay": 1.1}, "`decay`"),
        ("Newton", {"refresh_every": 0}, "`refresh_every`"),
        ("Newton", {"ridge": -1.0}, "`ridge`"),
        ("Shampoo", {"decay": 1.1}, "`decay`"),
        ("Shampoo", {"weight_decay": float("nan")}, "`weight_decay`"),
        ("Muon", {"max_grad_norm": 0.0}, "`max_grad_norm`"),
    ],
)
def test_wrong_options_are_named(kind: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(wh.optim, kind)(make(), **{"lr": 0.1, **options})


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("Newton", {"dampng": 0.1}),
        ("Newton", {"momentum": 0.9}),
        ("Shampoo", {"ridge": 0.1}),
        ("Muon", {"decay": 0.9}),
        ("SGD", {"damping": 0.1}),
    ],
)
def test_unknown_options_are_refused(kind: str, options: dict) -> None:
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{next(iter(options))}'"):
        getattr(wh.optim, kind)(make(), lr=0.1, **options)


def stepped(kind: str) -> Any:
    """An optimiser that made a step."""
    head = make()
    optimizer = getattr(wh.optim, kind)(head)
    hidden, ids = data(20)
    head(hidden, ids).backward()
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("kind", ["Newton", "Shampoo", "Muon"])
def test_what_is_remembered_goes_through_a_file(kind: str, tmp_path: Path) -> None:
    """It holds tensors and numbers alone, each under the name of a field."""
    optimizer = stepped(kind)
    torch.save(optimizer.state_dict(), tmp_path / "state")
    other = getattr(wh.optim, kind)(make())
    other.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    (found,), (expected,) = other.state.values(), optimizer.state.values()
    assert set(found) == {field.name for field in dataclasses.fields(optimizer.memory)}
    for name, value in expected.items():
        assert torch.equal(found[name], value) if isinstance(value, torch.Tensor) else found[name] == value, name
    assert other.trust() == optimizer.trust() == [wh.optim.Trust(1, 0)]


@pytest.mark.parametrize(("kind", "of"), [("Newton", "Shampoo"), ("Shampoo", "Muon"), ("Muon", "Newton")])
def test_the_state_of_another_kind_is_refused(kind: str, of: str) -> None:
    other = stepped(of)
    optimizer = getattr(wh.optim, kind)(make())
    state = {**optimizer.state_dict(), "state": other.state_dict()["state"]}
    with pytest.raises(ValueError, match=f"The state of {kind} should hold"):
        optimizer.load_state_dict(state)


def test_monitors_tell_the_part_of_all_steps_that_was_scaled_back() -> None:
    heads = [make(), make()]
    optimizer = wh.optim.Newton(heads, lr=50.0)
    assert optimizer.monitors() == {"scaled_back": 0.0}
    hidden, ids = data(20)
    for scale in (1.0, 100.0, 100.0):
        for head in heads[: 2 if scale == 1.0 else 1]:
            head(scale * hidden, ids).backward()
        optimizer.step()
    assert [trust.steps for trust in optimizer.trust()] == [3, 1]
    scaled = sum(trust.scaled_back for trust in optimizer.trust())
    assert scaled > 0
    assert optimizer.monitors() == {"scaled_back": scaled / 4}
    assert wh.optim.SGD(heads, lr=0.1).monitors() == heads[0].monitors() == {}


@pytest.mark.parametrize("decay", [0.95, 1.0])
@pytest.mark.parametrize("kind", ["Newton", "Shampoo"])
def test_replayed_steps_are_counted_as_steps_that_are_made(kind: str, decay: float) -> None:
    """What the host counts of steps that a graph made, told by `schedule` alone, is what it counts in `step`."""
    head = make()
    optimizer = getattr(wh.optim, kind)(head, decay=decay, refresh_every=4)
    ages = []
    for step in range(100):
        (memory,) = optimizer.state.values() if step else [{}]
        before, schedule = (memory.get("steps", 0), memory.get("age", 0)), optimizer.schedule()
        hidden, ids = data(20, step)
        head(hidden, ids).backward()
        optimizer.step()
        (memory,) = optimizer.state.values()
        made = memory["steps"], memory["age"]
        memory["steps"], memory["age"] = before
        optimizer.replayed(schedule)
        assert (memory["steps"], memory["age"]) == made
        ages.append(made[1])
    assert max(ages) == (3 if decay < 1.0 else 1)
