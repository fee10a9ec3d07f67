"""Optimisers of the output layer against wall-clock: loss and test metric of each, on gowalla or on a language model.

    python recipes/optimizers.py recommender TRAIN TEST [--seconds 20] [--rounds 2]
    python recipes/optimizers.py language-model TRAIN TEST [--seconds 40] [--rounds 2]

All runs share data, encoder, seed and training time (evaluations are not counted); only the output layer's optimiser
differs. SGD runs at every lr of a grid; the others run untuned, as `widehead train --head-optimizer` does. Prints a
table, and writes the curves to recipes/results/optimizers-JOB.jsonl and .png.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import matplotlib
import torch
from provenance import commit

from widehead.bench.measure import hardware
from widehead.jobs import configure
from widehead.runs import Run
from widehead.training import read_metrics

matplotlib.use("Agg")
from matplotlib import pyplot

RESULTS = Path(__file__).resolve().parent / "results"
GRID = {"recommender": (1.0, 2.0, 4.0, 8.0, 16.0, 32.0), "language-model": (1.0, 3.0, 10.0, 30.0, 100.0)}
JOB_OPTIONS: dict[str, dict[str, Any]] = {
    "recommender": {"width": 256, "rank_at_most": 5_000, "encoder_init": "random"},  # to be trained
    "language-model": {"tokens": "whitespace", "minimum_count": 1, "context": 5},
}
METRIC = {"recommender": "recall@20", "language-model": "perplexity"}
SECONDS = {"recommender": 20.0, "language-model": 40.0}


def methods(job: str) -> dict[str, dict[str, Any]]:
    """Options of each run, by the name it has in table and plot."""
    made: dict[str, dict[str, Any]] = {f"sgd, lr {lr:g}": {"head_optimizer": "sgd", "head_lr": lr} for lr in GRID[job]}
    made["sgd, default lr"] = {"head_optimizer": "sgd", "head_lr": None}
    made["sgd, momentum 0.9"] = {"head_optimizer": "sgd", "head_lr": None, "head_momentum": 0.9}
    for name in ("newton", "shampoo", "muon"):
        made[name] = {"head_optimizer": name, "head_lr": None}
    return made


def run(job: str, files: tuple[Path, Path], options: dict[str, Any], seconds: float) -> dict[str, Any]:
    """One run: its curves and its last metrics."""
    out = Path(tempfile.mkdtemp()) / "run"
    config = configure(
        job,
        train=str(files[0]),
        test=str(files[1]),
        out=str(out),
        epochs=None,
        minutes=seconds / 60.0,
        evaluate_every=f"{max(1, round(seconds / 4))} seconds",
        **JOB_OPTIONS[job],
        **options,
    )
    outcome = Run.new(config).train(quiet=True)
    if outcome.status == "interrupted":
        raise SystemExit(130)
    records = read_metrics(out / "metrics.jsonl")
    shutil.rmtree(out.parent)
    losses = [(r["seconds"], r["loss"]) for r in records if r["kind"] == "train"]
    metrics = [(r["seconds"], r[METRIC[job]]) for r in records if r["kind"] == "evaluation"]
    return {"steps": outcome.step, "loss": losses, METRIC[job]: metrics, "metrics": dict(outcome.metrics)}


def plot(job: str, runs: list[dict[str, Any]]) -> None:
    """Curves of the first round: SGD at all rates in grey, the best of them in black, the others in colour."""
    metric = METRIC[job]
    first = [r for r in runs if r["round"] == 0]
    best = best_of_grid(job, runs)
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    colours = iter(("#0072b2", "#c55a00", "#00805c", "#a0508a", "#5b6b00"))
    for record in first:
        name = record["method"]
        in_grid = name.startswith("sgd, lr")
        colour = "black" if name == best else "#b8b8b8" if in_grid else next(colours)
        for axis, what in zip(axes, ("loss", metric), strict=True):
            x, y = zip(*record[what], strict=True)
            axis.plot(x, y, color=colour, linewidth=1.0 if colour == "#b8b8b8" else 1.8, label=name)
    for axis, what in zip(axes, ("training loss", metric), strict=True):
        axis.set_xlabel("seconds of training")
        axis.set_ylabel(what)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.2)
    if metric == "perplexity":
        axes[1].set_yscale("log")
    axes[1].legend(frameon=False, fontsize=8)
    figure.suptitle(f"Optimisers of the output layer, {job}")
    figure.savefig(RESULTS / f"optimizers-{job}.png", dpi=110)


def final(job: str, runs: list[dict[str, Any]], method: str) -> float:
    """Median over the rounds of the last metric of a method."""
    return statistics.median(r["metrics"][METRIC[job]] for r in runs if r["method"] == method)


def best_of_grid(job: str, runs: list[dict[str, Any]]) -> str:
    """The lr of SGD that ended best."""
    sign = 1.0 if METRIC[job] == "perplexity" else -1.0
    return min((f"sgd, lr {lr:g}" for lr in GRID[job]), key=lambda name: sign * final(job, runs, name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=GRID)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    job, seconds = options.job, options.seconds or SECONDS[options.job]
    common = {"recipe": "optimizers", "job": job, "commit": commit(), **hardware(torch.device("cpu"))}
    runs: list[dict[str, Any]] = []
    for turn in range(options.rounds):
        for name, chosen in methods(job).items():
            record = run(job, (options.train, options.test), chosen, seconds)
            runs.append({"method": name, "round": turn, "seconds": seconds, **record})
            print(f"round {turn + 1}, {name}: {record['steps']} steps, {record['metrics']}", flush=True)
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"optimizers-{job}.jsonl").open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps({**common, **record}) + "\n" for record in runs)
    plot(job, runs)
    best = best_of_grid(job, runs)
    print(f"\n{METRIC[job]} after {seconds:g} seconds of training, median of {options.rounds} rounds")
    for name in methods(job):
        mark = "  best of the grid" if name == best else ""
        print(f"  {name:20s} {final(job, runs, name):.4f}{mark}")


if __name__ == "__main__":
    main()
