"""What an object shows of itself, as in a notebook: at most three lines, which say what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.cli_runs import FILES, Called

import widehead as wh
from widehead.names import HEADS, LOSSES
from widehead.runs import Run

FREQUENCIES = torch.arange(1000.0, 0.0, -1.0)


def head_of(name: str) -> Any:
    more: dict[str, Any] = {"loss": wh.losses.SphericalSoftmax()} if name == "exact" else {}
    if name not in ("exact", "full", "retrieved", "adaptive"):
        more["frequencies"] = FREQUENCIES
    return HEADS[name](16, 1000, **more)


@pytest.mark.parametrize("name", HEADS)
def test_heads(name: str) -> None:
    head = head_of(name)
    assert repr(head).startswith(f"{type(head).__name__}(in_features=16, num_classes=1000")
    assert "\n" not in repr(head)
    assert repr(torch.nn.Sequential(head)).count("\n") == 2
    assert repr(head.to_scorer()).count("\n") <= 3


def test_losses_say_their_parameters() -> None:
    assert repr(wh.losses.ZLoss(a=0.2)) == "ZLoss(a=0.2, b=10.0)"
    for kind in LOSSES.values():
        assert repr(kind()).startswith(f"{kind.__name__}(")
        assert "\n" not in repr(kind())


@pytest.mark.parametrize("job", FILES)
def test_runs(job: str, trained: dict[str, tuple[Path, Called]]) -> None:
    folder, called = trained[job]
    assert called.code == 0
    run = Run.open(folder / "run")
    for thing in (run, run.job, run.config):
        assert type(thing).__name__ in repr(thing)
        assert repr(thing).count("\n") <= 2
    assert str(folder / "run") in repr(run)
    assert run.config.job in repr(run)
    assert "log_every" not in repr(run.config)
    assert "head_optimizer" in repr(run.config)


def test_targets() -> None:
    assert repr(wh.SparseTargets.from_ids(torch.tensor([3, 4]))) == "SparseTargets(2 examples, 2 targets)"
