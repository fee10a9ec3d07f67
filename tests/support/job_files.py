"""Small files of every job in which there is something to learn, and options that learn it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from widehead.jobs import configure
from widehead.options import TrainingConfig


def recommender_files(folder: Path) -> dict[str, Any]:
    """100 users in 5 groups, each group with 12 items of its own: 6 of a user to train on, 3 to test."""
    rng = np.random.default_rng(0)
    lines = [[f"u{u}", *(f"i{12 * (u % 5) + i}" for i in rng.choice(12, 9, replace=False))] for u in range(100)]
    (folder / "train.txt").write_text("".join(" ".join(line[:7]) + "\n" for line in lines))
    (folder / "test.txt").write_text("".join(" ".join([line[0], *line[7:]]) + "\n" for line in lines))
    return {"width": 8, "batch_size": 16, "epochs": 25, "encoder_lr": 0.02, "at": (6,)}


def text_files(folder: Path) -> dict[str, Any]:
    """Twenty words that always follow one another in one circle."""
    rng = np.random.default_rng(0)
    lines = [" ".join(f"w{(start + j) % 20}" for j in range(15)) for start in rng.integers(0, 20, 150)]
    (folder / "train.txt").write_text("\n".join(lines))
    (folder / "test.txt").write_text("\n".join(lines[:20]))
    return {
        "width": 16,
        "context": 5,
        "epochs": 3,
        "batch_size": 128,
        "encoder_lr": 0.02,
        "head_lr": 0.1,
        "at": (1, 10),
    }


def embeddings_files(folder: Path) -> dict[str, Any]:
    """The same text, whose few words are all frequent; the job's own optimisers have no learning rate to choose."""
    chosen = ("width", "epochs", "batch_size", "at")
    return {name: value for name, value in text_files(folder).items() if name in chosen} | {"subsample": 1.0}


def multilabel_files(folder: Path) -> dict[str, Any]:
    """Texts whose words tell both labels."""
    rng = np.random.default_rng(0)
    lines = [f"L{g} M{g // 2}\t" + " ".join(f"t{g}x{k}" for k in rng.choice(6, 4)) for g in rng.integers(0, 12, 300)]
    (folder / "train.txt").write_text("\n".join(lines))
    (folder / "test.txt").write_text("\n".join([*lines[:40], "L1 never\tt1x1 unseen"]))
    options = {"width": 12, "hidden": (16,), "epochs": 15, "batch_size": 32, "encoder_lr": 0.02, "at": (1, 2)}
    return {**options, "head_lr": 1.0, "head_damping": 0.1}  # few steps, and nothing to overfit


def sessions_files(folder: Path) -> dict[str, Any]:
    """Sessions that follow a rule of thirty items, three times in four, else another."""
    rng = np.random.default_rng(0)

    def session() -> str:
        items = [int(rng.integers(30))]
        for _ in range(int(rng.integers(1, 9))):
            items.append((7 * items[-1] + 1) % 30 if rng.random() < 0.75 else (11 * items[-1] + 2) % 30)
        return " ".join(f"i{item}" for item in items)

    (folder / "train.txt").write_text("\n".join(session() for _ in range(400)))
    (folder / "test.txt").write_text("\n".join(session() for _ in range(300)))
    sizes = {"width": 16, "batch_size": 32, "epochs": 15, "warmup_steps": 0, "at": (1, 2)}
    return {**sizes, "head_options": {}, "encoder_lr": 0.02}


FILES = {
    "recommender": recommender_files,
    "language-model": text_files,
    "word-embeddings": embeddings_files,
    "multilabel": multilabel_files,
    "next-item": sessions_files,
}


def config_of(job: str, folder: Path, **options: Any) -> TrainingConfig:
    made = FILES[job](folder)
    made |= {"out": str(folder / "run"), "train": str(folder / "train.txt"), "test": str(folder / "test.txt")}
    return configure(job, **{**made, **options})
