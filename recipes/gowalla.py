"""Recommender on gowalla (the split of the LightGCN papers): recall@20 on the test part within five minutes.

    python recipes/gowalla.py FOLDER [--width 512] [--out runs/gowalla]

FOLDER holds train.txt and test.txt, one user a line. Appends one line to recipes/results/gowalla.jsonl.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from pathlib import Path

import torch

from widehead.bench.measure import hardware
from widehead.training import TrainingConfig, train

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--out", default="runs/gowalla")
    options = parser.parse_args()
    begin = time.perf_counter()
    config = TrainingConfig.for_job(
        "recommender",
        train=str(options.folder / "train.txt"),
        test=str(options.folder / "test.txt"),
        out=options.out,
        width=options.width,
        epochs=options.epochs,
        evaluate_every=f"{options.epochs} epochs",
    )
    outcome = train(config)
    record = {
        "recipe": "gowalla",
        "width": options.width,
        "epochs": options.epochs,
        "seconds_training": round(outcome.seconds, 1),
        "seconds_in_all": round(time.perf_counter() - begin, 1),
        **outcome.metrics,
        "commit": commit(),
        **hardware(torch.device("cpu")),
    }
    print(json.dumps(record, indent=2))
    with (HERE / "results" / "gowalla.jsonl").open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(record) + "\n")


def commit() -> str:
    """The commit that was measured; marked where the tree had changes."""
    found = subprocess.run(
        ["git", "-C", str(HERE), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
