"""What the recipes of recommenders share: this library, implicit's ALS and popularity, judged by the same code."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
from peers import python_of, run
from provenance import append

from widehead.data.sparse import CSR, split_rows
from widehead.jobs import configure
from widehead.metrics import Evaluation
from widehead.options import TrainingConfig
from widehead.runs import Run
from widehead.targets import SparseTargets

METRICS = ("recall@20", "ndcg@20", "precision@20")
FACTORS, ITERATIONS = 256, 10
# What somebody who tunes ALS would try. Its confidence in a pair is alpha (times its weight), that in all others 1.
GRID: tuple[dict[str, Any], ...] = (
    {"alpha": 1.0, "regularization": 0.01},
    {"alpha": 5.0, "regularization": 0.01},
    {"alpha": 20.0, "regularization": 0.01},
    {"alpha": 5.0, "regularization": 5.0},
    {"alpha": 20.0, "regularization": 20.0},
    {"alpha": 1.0, "regularization": 0.01, "bm25": True},
    {"alpha": 1.0, "regularization": 20.0, "bm25": True},
)


@dataclass(frozen=True)
class Split:
    """Training and test pairs in the same rows and columns (scipy CSR), and what each user's test part has besides."""

    train: CSR
    test: CSR
    unreachable: np.ndarray

    @classmethod
    def of(cls, matrix: CSR, seed: int) -> Split:
        """A fifth of each user's pairs held out."""
        return cls(*split_rows(matrix, 0.2, seed), np.zeros(matrix.shape[0], dtype=np.int64))

    def judged(self, top: np.ndarray) -> dict[str, float]:
        """Metrics of (users, 20) items, best first."""
        evaluation = Evaluation(METRICS)
        rows = np.flatnonzero(np.diff(self.test.indptr) + self.unreachable)
        relevant = SparseTargets.from_csr(self.test[rows])
        evaluation.add_ranked(torch.from_numpy(top[rows]), relevant, torch.from_numpy(self.unreachable[rows]))
        return evaluation.result()


def popularity(split: Split) -> dict[str, Any]:
    """The items with the most users, without those that a user has."""
    order = np.argsort(-split.train.getnnz(axis=0), kind="stable")
    most = order[: 20 + int(np.diff(split.train.indptr).max())]
    rows = (split.train[u].indices for u in range(split.train.shape[0]))
    top = np.stack([most[~np.isin(most, taken)][:20] for taken in rows])
    return {"method": "popularity", **split.judged(top)}


def widehead(config: TrainingConfig) -> dict[str, Any]:
    """This library's run of a config, which names the same split."""
    begin = time.perf_counter()
    outcome = Run.new(config).train()
    width = Run.open(config.out).config.width  # the data may have decided
    shown = {"width": width, "epochs": config.epochs, "seconds": round(outcome.seconds, 1)}
    return {
        "method": "widehead",
        **shown,
        "seconds_in_all": round(time.perf_counter() - begin, 1),
        **{name: outcome.metrics[name] for name in METRICS},
    }


def als(split: Split, folder: Path, options: Mapping[str, Any], **limits: float) -> dict[str, Any]:
    """implicit's ALS with 256 factors, for so many ``iterations`` or ``seconds``."""
    python = python_of("implicit", "implicit==0.7.3", "scipy", "numpy", "threadpoolctl")
    folder.mkdir(parents=True, exist_ok=True)
    matrix, top = folder / "train.npz", folder / "top.npy"
    scipy.sparse.save_npz(matrix, split.train)
    given: list[str | Path] = [matrix, top, "--factors", str(FACTORS), "--threads", str(torch.get_num_threads())]
    for name, value in {**options, **limits}.items():
        given += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    found = run(python, "peer_implicit.py", *given)
    return {"method": "implicit ALS", "factors": FACTORS, **options, **found, **split.judged(np.load(top))}


def tuned(name: str, split: Split, folder: Path) -> dict[str, Any]:
    """The options of ALS that are best on a fifth of the training pairs, which is held out for that."""
    inner = Split.of(split.train, seed=1)
    rows = [{**als(inner, folder, options, iterations=ITERATIONS), "part": "validation"} for options in GRID]
    report(name, rows)
    best = max(range(len(GRID)), key=lambda i: rows[i]["recall@20"])
    return GRID[best]


def side_by_side(
    name: str, split: Split, config: TrainingConfig, folder: Path, options: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Popularity, this library, and ALS: ten iterations, and as many as fit into this library's training time."""
    ours = widehead(config)
    rows = [
        popularity(split),
        ours,
        als(split, folder, options, iterations=ITERATIONS),
        als(split, folder, options, seconds=ours["seconds"]),
    ]
    report(name, rows)
    return rows


def options_of(name: str, doc: str | None, argument: str) -> argparse.Namespace:
    """What a recipe's command line says: the path that ``argument`` names, and what all recommenders' recipes take."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(argument, type=Path)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--width", type=int)
    parser.add_argument("--out", type=Path, default=Path("runs") / name)
    return parser.parse_args()


def compared(
    name: str, split: Split, data: Mapping[str, Any], options: argparse.Namespace, als_options: Mapping[str, Any]
) -> None:
    """Run the recipe: ``data`` are settings of a config that give the split, ``als_options`` those without --tune."""
    peer = options.out.with_name(f"{options.out.name}-als")
    found = tuned(name, split, peer) if options.tune else als_options
    width = {} if options.width is None else {"width": options.width}
    config = configure("recommender", **data, out=str(options.out), **width)
    side_by_side(name, split, config, peer, found)


def report(name: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Print a table, and append a line a row to results/NAME.jsonl."""
    print(f"{'method':14}{'recall@20':>10}{'ndcg@20':>10}{'seconds':>9}  options")
    for row in rows:
        shown = {k: v for k, v in row.items() if k not in ("method", "seconds", "part", *METRICS)}
        options = ", ".join(f"{k} {v}" for k, v in shown.items())
        print(
            f"{row['method']:14}{row['recall@20']:10.4f}{row['ndcg@20']:10.4f}{row.get('seconds', 0.0):9.1f}  {options}"
        )
        append(name, {**row, "recipe": name})
