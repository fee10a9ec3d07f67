"""Runs on the device: killed, gone on with, and opened on a CPU."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any

import torch
from support.played import now_played, played_cuda
from support.properties import relative

from gpu.device import DEVICE, note

_NEEDED = ("scipy", "safetensors", "filelock")  # of runs
_OF_COMMANDS = (*_NEEDED, "typer", "rich", "polars", "matplotlib", "jinja2")
_PATIENCE = 120.0  # seconds


def needs(names: tuple[str, ...]) -> None:
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise unittest.SkipTest(f"needs {', '.join(missing)}, not on this machine")


def work(out: Path, device: str, played: bool) -> None:
    """Start the small run in ``out``, or go on with it."""
    from support.small_run import start_or_resume

    with played_cuda() if played else contextlib.nullcontext():
        start_or_resume(out, device=device, epochs=3, checkpoint_every="10 steps", dropout=0.0, input_dropout=0.0)


def weights_in(out: Path, device: str) -> tuple[torch.Tensor, int]:
    """W of the last checkpoint, read on a device, and the step it is of."""
    from support.small_run import build

    from widehead.training.folder import RunFolder

    folder, config = RunFolder.open(out)
    trainer = build(config.__class__(**{**vars(config), "device": device}), folder)
    trainer.restore()
    return trainer.network.head.weight().cpu(), trainer.state.position.step


def saved(out: Path) -> bool:
    return (out / "checkpoints" / "last.safetensors").exists()


def killed_at_its_first_checkpoint(process: Any, out: Path) -> bool:
    """Whether the process was still at work when it was killed."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and process.is_alive() and not saved(out):
        time.sleep(0.01)
    alive = process.is_alive()
    if alive:
        os.kill(process.pid, signal.SIGKILL)
    process.join(_PATIENCE)
    return bool(alive)


def test_a_run_that_was_killed_goes_on_and_opens_on_a_cpu() -> None:
    needs(_NEEDED)
    from support.small_run import PROCESSES

    played = now_played() is not None
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder, "whole"), Path(folder, "killed")
        work(whole, DEVICE, played)
        process = PROCESSES.Process(target=work, args=(killed, DEVICE, played))
        process.start()
        note(killed=killed_at_its_first_checkpoint(process, killed))
        work(killed, DEVICE, played)
        (expected, steps), (found, same) = weights_in(whole, DEVICE), weights_in(killed, DEVICE)
        on_cpu, _ = weights_in(killed, "cpu")
    note(steps=steps, resumed_off_by=relative(found, expected), on_cpu_off_by=relative(on_cpu, found))
    assert steps == same > 0
    assert relative(found, expected) < 1e-4  # sums are scattered in another order each time
    assert relative(on_cpu, found) < 1e-6


def test_the_command_line_trains_resumes_and_evaluates() -> None:
    needs(_OF_COMMANDS)
    if now_played() is not None:
        raise unittest.SkipTest("programs of their own are not played; tests/cli/test_device.py runs these commands")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = [[f"u{u}", *(f"i{12 * (u % 5) + (7 * u + i) % 12}" for i in range(9))] for u in range(100)]
        (folder / "train.txt").write_text("".join(" ".join(line[:7]) + "\n" for line in lines))
        (folder / "test.txt").write_text("".join(" ".join([line[0], *line[7:]]) + "\n" for line in lines))
        sizes = ["--width", "8", "--batch-size", "16", "--epochs", "60", "--checkpoint-every", "20 steps", "--at", "6"]
        told = ["--out", folder / "run", "--device", DEVICE, "--quiet"]
        train = ["train", "recommender", folder / "train.txt", "--test", folder / "test.txt", *sizes, *told]
        process = subprocess.Popen(command(*train))
        end = time.monotonic() + _PATIENCE
        while process.poll() is None and time.monotonic() < end and not saved(folder / "run"):
            time.sleep(0.01)
        note(killed=process.poll() is None)
        process.kill()
        process.wait()
        subprocess.run(command("train", "recommender", "--out", folder / "run", "--resume", "--quiet"), check=True)
        recall = {}
        for device in (DEVICE, "cpu"):
            asked = command("evaluate", folder / "run", "--json", "--device", device)
            recall[device] = json.loads(subprocess.run(asked, check=True, capture_output=True).stdout)["recall@6"]
    note(recall=recall)
    assert abs(recall[DEVICE] - recall["cpu"]) < 1e-3
    assert recall["cpu"] > 0.5


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "widehead", *map(str, arguments)]
