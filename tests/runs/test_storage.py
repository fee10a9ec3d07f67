"""Runs whose output layer is in a file: they end as those in memory do, are resumed, and are looked at beside it."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from support.job_files import config_of
from support.small_run import PROCESSES

from widehead.errors import CheckpointError
from widehead.jobs import configure
from widehead.mapped import PAGE
from widehead.options import TrainingConfig
from widehead.runs import Run
from widehead.training.checkpoint import load_checkpoint
from widehead.training.state import RunState


def trained(folder: Path, **options: Any) -> TrainingConfig:
    folder.mkdir()
    config = config_of("recommender", folder, **{"epochs": 4, **options})
    Run.new(config).train(quiet=True)
    return config


def head_of(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = load_checkpoint(folder / "run" / "checkpoints" / "last.safetensors")["head"]
    return state


@pytest.mark.parametrize("options", [{}, {"head_storage_dtype": "bfloat16", "head_bias": True}])
def test_a_run_in_a_file_ends_as_one_in_memory(tmp_path: Path, options: dict[str, Any]) -> None:
    rows = tmp_path / "rows"
    trained(tmp_path / "memory", **options)
    trained(tmp_path / "file", head_storage=str(rows), **options)
    one, two = head_of(tmp_path / "memory"), head_of(tmp_path / "file")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert one["values"].dtype == (torch.bfloat16 if options else torch.float32)
    before = rows.read_bytes()
    run = Run.open(tmp_path / "file" / "run")
    assert run.evaluate(tmp_path / "file" / "test.txt") == Run.open(tmp_path / "memory" / "run").evaluate(
        tmp_path / "memory" / "test.txt"
    )
    assert rows.read_bytes() == before
    assert [p.name for p in (tmp_path / "file" / "run").iterdir() if p.name.startswith(".")] == []


def _train_and_die(config: TrainingConfig) -> None:
    save = RunState.save

    def dying_save(state: RunState, path: Path) -> None:
        if state.position.step >= 12:  # two steps after the last checkpoint
            os.kill(os.getpid(), 9)
        save(state, path)

    RunState.save = dying_save  # type: ignore[method-assign]
    torch.set_num_threads(1)
    Run.new(config).train(quiet=True)


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    options = {"checkpoint_every": "2 steps", "head_optimizer": "sgd", "head_lr": 0.05, "head_momentum": 0.9}
    (tmp_path / "killed").mkdir()
    rows = tmp_path / "rows"
    config = config_of("recommender", tmp_path / "killed", epochs=4, head_storage=str(rows), **options)
    process = PROCESSES.Process(target=_train_and_die, args=(config,))
    process.start()
    process.join()
    assert process.exitcode == -9
    assert rows.exists()
    Run.open(tmp_path / "killed" / "run").train(quiet=True)
    trained(tmp_path / "whole", **options)
    one, two = head_of(tmp_path / "killed"), head_of(tmp_path / "whole")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert rows.stat().st_size == PAGE + one["values"].numel() * 4


def test_a_resumed_run_may_go_on_in_another_file(tmp_path: Path) -> None:
    trained(tmp_path / "a", head_storage=str(tmp_path / "rows"))
    trained(tmp_path / "b", epochs=6)
    Run.open(tmp_path / "a" / "run").train(quiet=True, epochs=6, head_storage=str(tmp_path / "others"))
    assert (tmp_path / "rows").stat().st_size == (tmp_path / "others").stat().st_size
    with pytest.raises(ValueError, match="head_storage"):
        Run.open(tmp_path / "a" / "run").train(quiet=True, epochs=8, head_storage=str(tmp_path / "rows"))


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    rows = tmp_path / "rows"
    rows.write_text("somebody's data")
    (tmp_path / "a").mkdir()
    config = config_of("recommender", tmp_path / "a", head_storage=str(rows))
    with pytest.raises(ValueError, match="head_storage"):
        Run.new(config).train(quiet=True)
    assert not (tmp_path / "a" / "run").exists()
    rows.unlink()
    Run.new(dataclasses.replace(config, epochs=2)).train(quiet=True)
    rows.write_text("somebody's data")
    with pytest.raises(CheckpointError, match=r"somebody's file\..* another head_storage"):
        Run.open(tmp_path / "a" / "run").train(quiet=True, epochs=3)
    assert rows.read_text() == "somebody's data"


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_looking_at_a_run_leaves_no_file_beside_it(tmp_path: Path, momentum: float) -> None:
    options = {"head_optimizer": "sgd", "head_lr": 0.01, "head_momentum": momentum}
    trained(tmp_path / "a", head_storage=str(tmp_path / "rows"), **options)
    before = sorted(p.name for p in (tmp_path / "a" / "run").iterdir())
    first, second = Run.open(tmp_path / "a" / "run"), Run.open(tmp_path / "a" / "run")
    assert torch.equal(first.network.head.weight(), second.network.head.weight())
    assert sorted(p.name for p in (tmp_path / "a" / "run").iterdir()) == before


def test_files_that_a_kill_left_half_made_are_made_anew(tmp_path: Path) -> None:
    """While its space was reserved, and while the rows were copied to a file with room for momenta."""
    options = {"head_optimizer": "sgd", "head_lr": 0.01, "head_momentum": 0.9}
    options |= {"schedule": "constant", "evaluate_every": "1 epoch"}
    trained(tmp_path / "a", head_storage=str(tmp_path / "rows"), **options)
    trained(tmp_path / "b", head_storage=str(tmp_path / "others"), **{**options, "epochs": 6})
    begun = (tmp_path / "rows").read_bytes()[:PAGE]
    (tmp_path / "rows").write_bytes(begun + bytes(1_000))
    (tmp_path / ".rows.new").write_bytes(begun + b"half of the rows")
    Run.open(tmp_path / "a" / "run").train(quiet=True, epochs=6)
    one, two = head_of(tmp_path / "a"), head_of(tmp_path / "b")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not (tmp_path / ".rows.new").exists()


def test_a_file_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    config = config_of("recommender", tmp_path / "a", head_storage=str(tmp_path / "nowhere" / "rows"))
    with pytest.raises(ValueError, match="head_storage"):
        Run.new(config).train(quiet=True)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"head": "full", "head_storage": "rows"}, "head exact"),
        ({"head": "full", "head_storage_dtype": "bfloat16"}, "head exact"),
        ({"head_storage": "rows", "device": "cuda"}, "device cpu"),
        ({"head_storage_dtype": "float16"}, "bfloat16"),
        ({"head_storage": ""}, "head_storage"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        configure("recommender", train="t", out="o", **options)
