"""Steps of many targets and large batches by this checkout and by another one, in turns.

    git worktree add ../before 2fb81e6
    python recipes/before_and_now.py ../before [--rows 0,1,2] [--busy 2] [--rounds 3] [--seconds 1.0]

Two processes, one for each checkout, make the same steps; one works while the other waits. With --busy so many programs
that do nothing but count run beside them. Targets are drawn by 1/rank^0.8; hidden layers are normal numbers + ½; a step
is forward, backward and the exact update. Appends a line for each row to recipes/results/before-and-now.jsonl: the
median and the mean of a step in seconds, and how many times faster the mean of this checkout is.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from provenance import append

import widehead as wh

# (D, d, m, K, optimiser)
ROWS = [
    (102_428, 256, 512, 67, "sgd"),
    (102_428, 256, 512, 67, "newton"),
    (40_981, 512, 1_024, 27, "newton"),
    (40_981, 256, 512, 27, "newton"),
    (1_000_000, 256, 512, 27, "newton"),
    (52_946, 512, 256, 40, "newton"),
    (1_000_000, 128, 512, 1, "newton"),
    (1_000_000, 256, 1_024, 1, "newton"),
    (1_000_000, 256, 4_096, 1, "newton"),
]
HERE = Path(__file__).resolve()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("--rows", default=",".join(map(str, range(len(ROWS)))))
    parser.add_argument("--busy", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    for row in map(int, options.rows.split(",")):
        print(compared(row, options.before, options.busy, options.rounds, options.seconds), flush=True)


def compared(row: int, before: Path, busy: int, rounds: int, seconds: float) -> str:
    """Time one row, store it, and say it in a line."""
    workers = {name: _worker(folder, row) for name, folder in (("before", before), ("now", HERE.parents[1]))}
    for worker in workers.values():
        _said(worker)  # that it is ready
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        took: dict[str, list[float]] = {name: [] for name in workers}
        for turn in range(1 + rounds):
            for name, worker in workers.items():
                found = json.loads(_said(worker, f"{seconds}\n"))
                took[name] += found if turn else []  # the first turn warms up
    finally:
        started: list[subprocess.Popen[Any]] = [*others, *workers.values()]
        for process in started:
            process.kill()
            process.wait()
    figures = {f"{name}_median": statistics.median(steps) for name, steps in took.items()}
    figures |= {f"{name}_mean": statistics.mean(steps) for name, steps in took.items()}
    names = ("classes", "width", "batch", "targets_per_example", "optimizer")
    sizes = dict(zip(names, ROWS[row], strict=True))
    other = subprocess.run(
        ["git", "-C", str(before), "describe", "--always", "--dirty"], capture_output=True, text=True, check=True
    ).stdout.strip()
    times = figures["before_mean"] / figures["now_mean"]
    append("before-and-now", {**sizes, "busy": busy, "before": other, **figures, "times": times, "rounds": rounds})
    return f"{sizes} beside {busy}: {times:.2f} times, " + ", ".join(f"{k} {1e3 * v:.1f}" for k, v in figures.items())


def _worker(folder: Path, row: int) -> subprocess.Popen[str]:
    given = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder / "src"), str(HERE.parent)])}
    command = [sys.executable, "-c", f"from {HERE.stem} import work; work({row})"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=given)


def _said(worker: subprocess.Popen[str], asked: str = "") -> str:
    """The next line of a worker, once it was asked."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(asked)
    worker.stdin.flush()
    return worker.stdout.readline()


def work(row: int) -> None:
    """Build, say so, and make steps for so many seconds as each line of standard input says."""
    classes, width, batch, targets, optimizer = ROWS[row]
    generator = torch.Generator().manual_seed(0)
    head = wh.ExactHead(width, classes, wh.losses.SquaredError())
    changes = wh.optim.SGD(head, lr=1e-4) if optimizer == "sgd" else wh.optim.Newton(head)
    batches = []
    for _ in range(8):
        level = torch.rand(batch, targets, generator=generator, dtype=torch.float64)
        ranks = (level * (classes**0.2 - 1.0) + 1.0).pow(5).long().clamp_(1, classes)
        hidden = torch.randn(batch, width, generator=generator) + 0.5
        batches.append((hidden, wh.SparseTargets.from_ids(ranks - 1)))
    made = 0

    def step() -> float:
        nonlocal made
        hidden, ids = batches[made % len(batches)]
        begin, made = time.perf_counter(), made + 1
        loss = head(hidden.detach().requires_grad_(), ids)
        changes.zero_grad()
        loss.backward()
        changes.step()
        return time.perf_counter() - begin

    for _ in range(10):
        step()
    print("ready", flush=True)
    for line in sys.stdin:
        begin, took = time.perf_counter(), list[float]()
        while time.perf_counter() - begin < float(line):
            took.append(step())
        print(json.dumps(took), flush=True)


if __name__ == "__main__":
    main()
