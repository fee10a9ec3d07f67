"""Resumption: whatever ended a run, it goes on to the same bits as one that nothing ended."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from support import small_run
from support.small_run import PROCESSES, build, log_without_timings, run_through_kills, small_config, start_or_resume

from widehead.errors import CheckpointError
from widehead.training import checkpoint as checkpoint_file
from widehead.training.checkpoint import load_checkpoint
from widehead.training.folder import RunFolder


def leaves(tree: Any, path: str = "") -> dict[str, Any]:
    """Every number, text and tensor of a checkpoint's tree, by its path."""
    if isinstance(tree, dict):
        return {k: v for name, node in tree.items() for k, v in leaves(node, f"{path}.{name}").items()}
    if isinstance(tree, list | tuple):
        return {k: v for i, node in enumerate(tree) for k, v in leaves(node, f"{path}.{i}").items()}
    return {path: tree}


def assert_same_end(a: Path, b: Path) -> None:
    """Both runs ended in the same state, bit for bit, with the same log; only times differ."""
    assert log_without_timings(a) == log_without_timings(b)
    one, two = (leaves(load_checkpoint(p / "checkpoints" / "last.safetensors")) for p in (a, b))
    assert one.keys() == two.keys()
    for name, value in one.items():
        if "seconds" in name or "span" in name:
            continue
        same = torch.equal(value, two[name]) if isinstance(value, torch.Tensor) else value == two[name]
        assert same, name


def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    start_or_resume(tmp_path / "whole")
    for stop in (3, 25, 31, 75):
        stop_after(tmp_path / "parts", stop)
    assert start_or_resume(tmp_path / "parts").status == "finished"
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


def stop_after(out: Path, step: int) -> None:
    """Run until ``step`` and stop as Ctrl-C does."""
    if out.exists():
        folder, config = RunFolder.open(out)
    else:
        config = small_config(out)
        folder = RunFolder.create(config)
    trainer = build(config, folder)
    if folder.last_checkpoint.exists():
        trainer.restore()
    original = trainer._step

    def stopping_step(*batch: Any) -> None:
        original(*batch)
        if trainer.state.position.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    trainer._step = stopping_step  # type: ignore[method-assign]
    assert trainer.run().step == step


def test_killed_at_random_moments_it_still_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """Checkpoints after every second step keep the process busy writing, so that kills hit that too."""
    options = {"checkpoint_every": "2 steps", "epochs": 10}
    start_or_resume(tmp_path / "whole", **options)
    parts = tmp_path / "parts"
    assert run_through_kills(start_or_resume, (parts,), seed=0, most=6, pause=(0.1, 0.6), **options) >= 2
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


def die_while_writing(out: Path, saves: int) -> None:
    """Be killed in the middle of the payload of checkpoint number ``saves``."""
    original, seen = checkpoint_file._pieces, []

    def pieces(tensor: torch.Tensor) -> Any:
        if tensor.shape == (small_run.INPUTS, 12):
            seen.append(None)
        for piece in original(tensor):
            yield piece
            # Weights, then the two moments of RowAdam: three such tensors a checkpoint.
            if len(seen) == 3 * saves - 1:
                os.kill(os.getpid(), signal.SIGKILL)

    checkpoint_file._pieces = pieces
    start_or_resume(out, checkpoint_every="10 steps")


def test_killed_during_a_write_it_goes_on_from_the_checkpoint_before(tmp_path: Path) -> None:
    start_or_resume(tmp_path / "whole", checkpoint_every="10 steps")
    process = PROCESSES.Process(target=die_while_writing, args=(tmp_path / "parts", 3))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    left = sorted(p.name for p in (tmp_path / "parts" / "checkpoints").iterdir())
    assert left == [".last.safetensors.tmp", "last.safetensors"]
    assert load_checkpoint(tmp_path / "parts" / "checkpoints" / "last.safetensors")["position"]["step"] == 20
    start_or_resume(tmp_path / "parts")
    assert_same_end(tmp_path / "whole", tmp_path / "parts")
    assert sorted(p.name for p in (tmp_path / "parts" / "checkpoints").iterdir()) == ["last.safetensors"]


def test_when_checkpoints_are_written_does_not_matter(tmp_path: Path) -> None:
    start_or_resume(tmp_path / "often", checkpoint_every="1 steps")
    start_or_resume(tmp_path / "never", checkpoint_every="1000 steps")
    assert_same_end(tmp_path / "often", tmp_path / "never")


def test_a_longer_run_goes_on_from_a_finished_one(tmp_path: Path) -> None:
    constant = {"schedule": "constant"}
    start_or_resume(tmp_path / "run", epochs=2, **constant)
    folder, config = RunFolder.open(tmp_path / "run")
    trainer = build(dataclasses.replace(config, epochs=4), folder)
    trainer.restore()
    trainer.run()
    start_or_resume(tmp_path / "whole", epochs=4, **constant)
    one, two = (load_checkpoint(tmp_path / name / "checkpoints" / "last.safetensors") for name in ("run", "whole"))
    assert torch.equal(one["head"]["values"], two["head"]["values"])
    assert torch.equal(one["encoder"]["embeddings.weight"], two["encoder"]["embeddings.weight"])


def test_a_finished_run_stays_finished(tmp_path: Path) -> None:
    first = start_or_resume(tmp_path / "run", epochs=1)
    log = log_without_timings(tmp_path / "run")
    start = time.monotonic()
    assert start_or_resume(tmp_path / "run") == first
    assert time.monotonic() - start < 5
    assert log_without_timings(tmp_path / "run") == log


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    start_or_resume(tmp_path / "run", epochs=1)
    folder, config = RunFolder.open(tmp_path / "run")
    other = {"hidden": (11,), "width": 9, "loss": "taylor-softmax", "seed": 4, "batch_size": 1, "schedule": "linear"}
    for name, value in other.items():
        trainer = build(dataclasses.replace(config, **{name: value}), folder)
        with pytest.raises(CheckpointError, match=f"`{name}` = .*as in config.json. Found one with"):
            trainer.restore()
    trainer = build(config, folder)
    for changes, message in (
        ({"sizes": {"inputs": 300, "classes": 61}}, r"'classes': 61.*Found.*'classes': 60.*data"),
        ({"names": {"items.txt": 7}}, r"run's items\.txt. Found that file missing"),
    ):
        trainer.state.origin = dataclasses.replace(build(config, folder).state.origin, **changes)
        with pytest.raises(CheckpointError, match=message):
            trainer.restore()


def test_networks_are_compared_whatever_the_options_say(tmp_path: Path) -> None:
    start_or_resume(tmp_path / "run", epochs=1)
    folder, config = RunFolder.open(tmp_path / "run")
    for options in ({"hidden": (11,)}, {"hidden": (12,), "width": 9}):
        trainer = build(dataclasses.replace(config, **options), folder)
        trainer.state.origin = build(config, folder).state.origin
        before = trainer.network.head.weight()
        with pytest.raises(CheckpointError, match="encoder"):
            trainer.restore()
        assert torch.equal(trainer.network.head.weight(), before)


def test_limits_and_cadences_may_change(tmp_path: Path) -> None:
    start_or_resume(tmp_path / "run", epochs=1)
    folder, config = RunFolder.open(tmp_path / "run")
    changed = {"epochs": 9, "minutes": 1.0, "log_every": 1, "keep_best": True, "test": "elsewhere.txt"}
    trainer = build(dataclasses.replace(config, **changed), folder)
    trainer.restore()
    assert trainer.state.position.step == 25


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again_with_its_log(tmp_path: Path) -> None:
    start_or_resume(tmp_path / "whole")
    start_or_resume(tmp_path / "killed", epochs=2)
    log = tmp_path / "killed" / "metrics.jsonl"
    log.write_bytes(log.read_bytes() + b'{"kind": "train", "st')
    (tmp_path / "killed" / "checkpoints" / "last.safetensors").unlink()
    folder, config = RunFolder.open(tmp_path / "killed")
    folder.write_config(dataclasses.replace(config, epochs=4))
    start_or_resume(tmp_path / "killed")
    assert_same_end(tmp_path / "whole", tmp_path / "killed")
