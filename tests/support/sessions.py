"""Sessions of which votes know more than a small network, and runs on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from support.chosen import trained
from widehead.runs import Run


def walks(count: int = 2_400, seed: int = 0) -> list[list[str]]:
    """Walks through one of 150 small rooms each, which are far more than a network of four units can hold."""
    rng = np.random.default_rng(seed)
    rooms = rng.integers(150, size=count)
    return [[f"{room}.{i}" for i in rng.permutation(5)[: rng.integers(3, 6)]] for room in rooms]


def write_walks(folder: Path, count: int = 2_400) -> None:
    lines = [" ".join(row) + "\n" for row in walks(count)]
    (folder / "train.txt").write_text("".join(lines[:-200]))
    (folder / "test.txt").write_text("".join(lines[-200:]))


def run_in(folder: Path, out: str = "run", **options: Any) -> Run:
    return trained("next-item", folder, out, **{"width": 4, "at": (1, 5), "epochs": 1, "head": "full", **options})
