"""Runs that several processes make together, as functions of their mesh, or one alone."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh

from support.cli_runs import FILES
from widehead.errors import ProcessesError
from widehead.jobs import configure
from widehead.runs import Run
from widehead.runs.start import trainer_in
from widehead.split import Peers, local, telling
from widehead.training import Outcome
from widehead.training.log import Display

TIMINGS = ("seconds", "preparation", "examples_per_second", "head_share")
OPTIONS: dict[str, dict[str, Any]] = {
    "recommender": {"width": 8, "batch_size": 17, "at": (6,), "loss": "squared-error", "encoder_lr": 0.02},
    "language-model": {"width": 16, "batch_size": 128, "at": (1, 10), "loss": "spherical-softmax"},
    "word-embeddings": {"width": 16, "subsample": None, "at": (1, 10)},
    "multilabel": {"width": 12, "hidden": (16,), "batch_size": 97, "at": (1, 2), "loss": "spherical-softmax"},
    "next-item": {"width": 12, "batch_size": 17, "at": (1, 2)},
}

READERS = {
    "recommender": "widehead.jobs.recommender.read_interactions",
    "language-model": "widehead.jobs.words.count_words",
    "word-embeddings": "widehead.jobs.words.count_words",
    "multilabel": "widehead.jobs.multilabel._documents",
    "next-item": "widehead.jobs.next_item.read_sequences",
}


def make_files(job: str, folder: Path) -> None:
    FILES[job](folder)


def config_of(job: str, folder: Path, out: str, **more: Any) -> Any:
    given = {**OPTIONS[job], "dtype": "float64", "epochs": 1, "evaluate_every": "1 epoch", **more}
    files = {"train": str(folder / "train.txt"), "test": str(folder / "test.txt"), "out": str(folder / out)}
    if "holdout" in more:
        del files["test"]
    return configure(job, **{**given, **files})


def begin(mesh: Any, job: str, folder: Path, out: str, more: dict[str, Any], stop: int | None = None) -> Any:
    """A new run; it dies after ``stop`` records of its log, if there is one."""
    run = Run.new(config_of(job, folder, out, **more), mesh=mesh)
    return _trained(run, stop)


def told(mesh: Any, job: str, folder: Path, out: str, more: dict[str, Any]) -> str:
    """What a new run says to people in this process."""
    with contextlib.redirect_stderr(io.StringIO()) as text:
        Run.new(config_of(job, folder, out, **more), mesh=mesh).train()
    return " ".join(text.getvalue().split())


def go_on(mesh: Any, folder: Path, out: str, changes: dict[str, Any], stop: int | None = None) -> Any:
    return _trained(Run.open(folder / out, mesh=mesh), stop, **changes)


def resaved(mesh: Any, folder: Path, out: str, name: str) -> tuple[int, int]:
    """Load the run's checkpoint and write it anew as ``name``: rows of the encoder here, and in all."""
    peers, run = Peers(mesh), Run.open(folder / out, mesh=mesh)
    trainer = trainer_in(run.folder, run.config, run.data, peers, Display(), None)
    trainer.state.save(folder / name)
    table = trainer.network.encoder.embeddings.weight
    return len(local(table)), len(table)


class Killed(Exception):
    """In the place of a kill: nothing is written after it."""


def whole(part: Any) -> Any:
    """All rows of what is split; all processes ask together."""
    with telling():
        return part.full_tensor() if hasattr(part, "full_tensor") else part


def _trained(run: Run, stop: int | None, **changes: Any) -> Any:
    """What the run came to, and the bits of the encoder here."""
    records, bits = [], []

    def on_log(network: Any, record: Any) -> None:
        records.append(record)
        state = torch.cat([whole(part).flatten() for part in network.encoder.state_dict().values()])
        bits.append(hashlib.blake2b(state.numpy().tobytes()).hexdigest())
        if len(records) == stop:
            raise Killed

    try:
        outcome: Outcome | None = run.train(quiet=True, on_log=on_log, **changes)
    except Killed:
        outcome = None
    return (None if outcome is None else (outcome.step, dict(outcome.metrics))), bits


def refused(mesh: Any, job: str, folders: list[Path], out: str, more: dict[str, Any]) -> tuple[str, str]:
    """What the run is refused with; each process has its own data."""
    config = config_of(job, folders[mesh.get_local_rank()], out, **more)
    try:
        Run.new(config, mesh=mesh).train(quiet=True)
    except (ArithmeticError, OSError, ValueError, RuntimeError) as error:
        return type(error).__name__, str(error)
    return "", ""


def unread(mesh: Any, job: str, folder: Path, out: str, more: dict[str, Any]) -> tuple[str, str]:
    """What the run is refused with whose training data rank 1 alone cannot read."""

    def fail(*_: Any, **__: Any) -> None:
        raise OSError("a disk that fails")

    with pytest.MonkeyPatch.context() as patch:
        if mesh.get_local_rank() == 1:
            patch.setattr(READERS[job], fail)
        return refused(mesh, job, [folder, folder], out, more)


def log_of(out: Path) -> list[dict[str, Any]]:
    lines = (out / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMINGS} for line in lines]


def live_or_die(rank: int, count: int, place: str, job: str, folder: Path, out: str, more: dict[str, Any]) -> None:
    """Start the run, or go on with it, in a process of its own, which ends with code 3 if another has died."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=count)
    mesh = init_device_mesh("cpu", (count,))
    begun = (folder / out / "config.json").exists()
    distributed.barrier()  # all have looked
    try:
        go_on(mesh, folder, out, {}) if begun else begin(mesh, job, folder, out, more)
    except ProcessesError:
        sys.exit(3)
