"""Output layers beside each other at equal minutes of one thread, in CPU time, so that other work counts not.

    python recipes/equal_minutes.py language-model TRAIN TEST [--encoders ngram,lstm] [--minutes 2] [--first 500]
    python recipes/equal_minutes.py next-item TRAIN TEST [--minutes 1] [--at-most 20000] [--options '{"tied": false}']

Every pair of encoder and head has the job's defaults for it (those in OWN were chosen on validation parts), the same
seed and a process of its own. Minutes are those of training; reading and judging come besides. Neighbours, which rank
beside the network of next-item by default, are left out. TEST is judged by its first lines, if `--first` says so, and
ranks are of so many of its examples; perplexity is over all classes, whatever a head estimated.

Prints a line a run, and appends rows to results/equal-minutes.jsonl.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from provenance import append

from widehead.data import open_text
from widehead.jobs import configure
from widehead.names import HEADS
from widehead.runs import Run

# Options of all runs of a job, of those with an encoder, and of those with an encoder and a head.
OF_JOB: dict[str, dict[str, Any]] = {
    "language-model": {"tokens": "whitespace", "minimum_count": 1},
    "next-item": {"neighbours": 0},
}
OWN: dict[tuple[str, ...], dict[str, Any]] = {
    ("language-model", "ngram"): {"encoder_lr": 3e-3},
    ("language-model", "ngram", "exact"): {"encoder_lr": 1e-3},
}
ENCODERS = {"language-model": "ngram,lstm", "next-item": "gru"}
NEVER = "1000000 epochs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=OF_JOB)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--encoders")
    parser.add_argument("--heads", default=",".join(HEADS))
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--first", type=int, help="lines of TEST that are judged; all by default")
    parser.add_argument("--at-most", type=int, default=2_000, help="examples that are ranked")
    parser.add_argument("--options", type=json.loads, default={}, help="options of all runs, as JSON")
    given = parser.parse_args()
    encoders = (given.encoders or ENCODERS[given.job]).split(",")
    with tempfile.TemporaryDirectory() as folder:
        test = beginning(given.test, Path(folder) / "test.txt", given.first)
        for encoder, head in itertools.product(encoders, given.heads.split(",")):
            options = {
                **OF_JOB[given.job],
                **OWN.get((given.job, encoder), {}),
                **OWN.get((given.job, encoder, head), {}),
            }
            options |= {"train": str(given.train), "test": str(test), "minutes": given.minutes}
            options |= {"rank_at_most": given.at_most, "out": f"{folder}/{encoder}-{head}", **given.options}
            found = in_a_process(given.job, {**options, "encoder": encoder, "head": head})
            chosen = {"first": given.first, "at_most": given.at_most, "minutes": given.minutes}
            chosen |= {"file": given.test.name, "options": given.options}
            data = given.train.resolve().parent.name
            append("equal-minutes", {"recipe": "equal_minutes", "job": given.job, "set": data, **chosen, **found})
            show(found)


def beginning(test: Path, out: Path, lines: int | None) -> Path:
    """The file, or one of its first lines."""
    if lines is None:
        return test
    with open_text(test) as text:
        out.write_text("".join(f"{line}\n" for line in itertools.islice(text, lines)), encoding="utf-8")
    return out


def in_a_process(job: str, options: dict[str, Any]) -> dict[str, Any]:
    """What `trained` finds. Spawned, as a forked child would inherit threads."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(trained, (job, options))


def trained(job: str, options: dict[str, Any]) -> dict[str, Any]:
    """A run's metrics on the test file, and what it took."""
    torch.set_num_threads(1)
    time.perf_counter = time.process_time  # so that the minutes of a run, and its log, are of CPU
    config = configure(job, **{"epochs": None, "evaluate_every": NEVER, "checkpoint_every": NEVER, **options})
    run = Run.new(config)
    end, config = run.train(quiet=True), run.config
    names = ("encoder", "head", "loss", "width", "context", "batch_size", "dropout", "encoder_lr", "head_optimizer")
    spent = {"seconds": end.seconds, "steps": end.step, "epochs": end.epoch, "cpu_seconds": time.process_time()}
    return {**{name: getattr(config, name) for name in names}, **spent, "metrics": dict(end.metrics)}


def show(found: dict[str, Any]) -> None:
    figures = "  ".join(f"{name} {value:.4g}" for name, value in found["metrics"].items() if math.isfinite(value))
    step = 1000.0 * found["seconds"] / found["steps"]
    print(f"{found['encoder']:6s} {found['head']:18s} {figures}  {found['steps']:,} steps of {step:.0f} ms", flush=True)


if __name__ == "__main__":
    main()
