"""Runs of `widehead train` that are killed (SIGKILL) fifty times and resumed: do they end as the unbroken one does?

    OMP_NUM_THREADS=1 python recipes/faults.py [--kills 50] [--only NAME] [--seed 0]

For each of four runs (jobs, optimisers and storages of the table below) on random data: one unbroken run; the same run
killed again and again, each time going on with --resume, then left to its end. The first five kills come within 0.3
seconds of the start of the process, mostly before there is a checkpoint. Of the others, every second one comes after a
random pause of up to 1.5 seconds (start, reading, restoring, training, writing: where it comes it comes), the rest as
soon as the file of a checkpoint is being written, or up to 10 ms later. Checkpoints are made after every second step.
After every kill the folder is looked at: its log reads, and its checkpoint (where there is one yet) loads and
evaluates. In the end every number and tensor of the last checkpoint, every line of the log and the metrics of
`evaluate` are compared; only times may differ.

The processes are forked from this one, which has imported everything: a start takes seconds otherwise, and most kills
would hit an import. Appends one line a run to recipes/results/faults.jsonl; ends with an error where anything differed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # what torch imports with its first optimiser
from provenance import append

import widehead.report  # noqa: F401, so that processes find everything imported
from widehead.cli import main as command_line
from widehead.runs import Run
from widehead.training import read_metrics
from widehead.training.checkpoint import load_checkpoint

TIMES = ("seconds", "preparation", "examples_per_second", "head_share")


def recommender(folder: Path) -> None:
    """2,000 users, 3,000 items in 30 groups."""
    rng = np.random.default_rng(0)
    taken = [100 * (u % 30) + rng.choice(100, 12, replace=False) for u in range(2_000)]
    for name, part in (("train", slice(0, 9)), ("test", slice(9, 12))):
        lines = (f"u{u} " + " ".join(f"i{i}" for i in items[part]) for u, items in enumerate(taken))
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def text(folder: Path) -> None:
    """Words that mostly follow one another in a circle of 3,000."""
    rng = np.random.default_rng(0)
    for name, lines in (("train", 2_500), ("test", 50)):
        starts = rng.integers(0, 3_000, lines)
        made = (" ".join(f"w{(start + j * j) % 3_000}" for j in range(20)) for start in starts)
        (folder / f"{name}.txt").write_text("\n".join(made) + "\n", encoding="utf-8")


def labelled(folder: Path) -> None:
    """Texts whose words tell both of their labels."""
    rng = np.random.default_rng(0)
    for name, documents in (("train", 6_000), ("test", 300)):
        groups = rng.integers(0, 2_000, documents)
        made = (f"L{g} M{g // 4}\t" + " ".join(f"t{g}x{k}" for k in rng.choice(6, 4)) for g in groups)
        (folder / f"{name}.txt").write_text("\n".join(made) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Case:
    """A run: its data and how it is trained."""

    data: Callable[[Path], None]
    job: str
    options: tuple[str, ...]

    def arguments(self, folder: Path, out: Path, every: str) -> list[str]:
        files = [str(folder / "train.txt"), "--test", str(folder / "test.txt"), "--out", str(out)]
        rows = ["--head-storage", str(out.with_suffix(".rows"))] if "ROWS" in self.options else []
        own = [option for option in self.options if option != "ROWS"]
        common = ["--log-every", "10", "--evaluate-every", "100 steps", "--checkpoint-every", every, "--quiet"]
        return ["train", self.job, *files, *own, *rows, *common]

    def again(self, out: Path, every: str) -> list[str]:
        return ["train", self.job, "--out", str(out), "--resume", "--quiet", "--checkpoint-every", every]


_SMALL = ("--width", "32", "--batch-size", "40")
_SGD = ("--head-optimizer", "sgd", "--head-momentum", "0.9")
CASES = {
    "recommender, newton": Case(recommender, "recommender", (*_SMALL, "--epochs", "60", "--dropout", "0.1")),
    "language-model, sgd with momentum": Case(
        text,
        "language-model",
        (*_SGD, "--head-lr", "0.3", *_SMALL, "--hidden", "32", "--minimum-count", "1", "--epochs", "2"),
    ),
    "recommender, sgd with momentum in a file": Case(
        recommender, "recommender", (*_SGD, "--head-lr", "0.002", *_SMALL, "--epochs", "60", "ROWS")
    ),
    "multilabel, newton in bfloat16": Case(
        labelled, "multilabel", ("--head-storage-dtype", "bfloat16", *_SMALL, "--hidden", "32", "--epochs", "20")
    ),
}


@dataclass
class Count:
    """What happened to one run."""

    kills: int = 0
    while_writing: int = 0  # a checkpoint; its temporary file was left
    before_the_first: int = 0  # checkpoint
    loaded: int = 0  # checkpoints of killed runs that loaded and evaluated
    steps: list[int] = field(default_factory=list)


def start(arguments: list[str], log: Path) -> int:
    """`widehead` with these arguments in a process of its own; its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with log.open("w", encoding="utf-8") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            with contextlib.suppress(SystemExit):
                command_line(arguments)
            code = 0
    finally:
        os._exit(code)


def ended(process: int) -> int | None:
    """The exit code of a process, or None while it runs."""
    there, status = os.waitpid(process, os.WNOHANG)
    return None if there == 0 else os.waitstatus_to_exitcode(status)


def completed(arguments: list[str], log: Path) -> None:
    process = start(arguments, log)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code == 0, f"{' '.join(arguments)} ended with {code}: {log.read_text(encoding='utf-8')}"


def kill_once(arguments: list[str], out: Path, log: Path, pause: float, at_writing: bool) -> bool:
    """Start a process and kill it after ``pause`` seconds, counted from a checkpoint's file on if ``at_writing``.

    Returns:
        Whether it was alive until then.
    """
    written = out / "checkpoints" / ".last.safetensors.tmp"
    written.unlink(missing_ok=True)  # of the last kill, so that a new one is seen
    process = start(arguments, log)
    begin = time.monotonic()
    while at_writing and not written.exists() and time.monotonic() - begin < 20.0:
        if ended(process) is not None:
            return False
        time.sleep(0.0005)
    time.sleep(pause)
    os.kill(process, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL


def look_at(out: Path, test: Path, count: Count) -> None:
    """The folder of a killed run: its log reads, its checkpoint loads and evaluates."""
    count.kills += 1
    count.while_writing += (out / "checkpoints" / ".last.safetensors.tmp").exists()
    read_metrics(out / "metrics.jsonl")
    if not (out / "checkpoints" / "last.safetensors").exists():
        count.before_the_first += 1
        return
    run = Run.open(out)
    assert all(np.isfinite(value) for value in run.evaluate(test, at_most=100).values())
    count.loaded += 1
    count.steps.append(run.step)


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every number, text and tensor of a checkpoint with its path."""
    if isinstance(tree, dict | list | tuple):
        for name, node in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(node, f"{path}.{name}")
    else:
        yield path, tree


def differences(whole: Path, parts: Path, test: Path) -> list[str]:
    """What of two finished runs is not the same, times left out."""
    found = []
    one, two = (dict(leaves(load_checkpoint(out / "checkpoints" / "last.safetensors"))) for out in (whole, parts))
    for path in sorted(one.keys() | two.keys()):
        a, b = one.get(path), two.get(path)
        same = torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a == b
        if not same and "seconds" not in path and "span" not in path:
            found.append(f"checkpoint{path}")
    logs = [
        [{k: v for k, v in r.items() if k not in TIMES} for r in read_metrics(o / "metrics.jsonl")]
        for o in (whole, parts)
    ]
    found += ["metrics.jsonl"] * (logs[0] != logs[1])
    found += ["evaluate"] * (Run.open(whole).evaluate(test) != Run.open(parts).evaluate(test))
    return found


def log_without_times(out: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if k not in TIMES} for record in read_metrics(out / "metrics.jsonl")]


def tried(name: str, kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """One row of the results."""
    case, rng, count = CASES[name], random.Random(seed), Count()
    case.data(folder)
    whole, parts, log, test = folder / "whole", folder / "parts", folder / "log", folder / "test.txt"
    completed(case.arguments(folder, whole, "1000 steps"), log)
    while count.kills < kills:
        begun = (parts / "config.json").exists()
        arguments = case.again(parts, "2 steps") if begun else case.arguments(folder, parts, "2 steps")
        early, at_writing = count.kills < 5, count.kills >= 5 and count.kills % 2 == 1
        pause = rng.uniform(0.0, 0.3 if early else 0.01 if at_writing else 1.5)
        if not kill_once(arguments, parts, log, pause, at_writing):
            raise AssertionError(f"{name}: ended before it was killed: {log.read_text(encoding='utf-8')}")
        look_at(parts, test, count)
    completed(case.again(parts, "1000 steps"), log)
    left = sorted(str(p.relative_to(parts)) for p in parts.rglob(".*"))
    return {
        "recipe": "faults",
        "run": name,
        "steps": Run.open(parts).step,
        "kills": count.kills,
        "killed_while_a_checkpoint_was_written": count.while_writing,
        "killed_before_the_first_checkpoint": count.before_the_first,
        "checkpoints_loaded_after_a_kill": count.loaded,
        "steps_at_the_kills": count.steps,
        "differences": differences(whole, parts, test),
        "left_behind": left,
        "seed": seed,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--only", choices=CASES)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)  # a process that has started threads should not be forked
    failed = False
    for name in [options.only] if options.only else CASES:
        with tempfile.TemporaryDirectory() as folder:
            record = tried(name, options.kills, options.seed, Path(folder))
        print(json.dumps({k: v for k, v in record.items() if k != "steps_at_the_kills"}, indent=2), flush=True)
        append("faults", record)
        failed |= bool(record["differences"] or record["left_behind"])
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
