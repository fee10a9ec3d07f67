"""What the tests of the command line share: small data for every job, a call of the program, a snapshot of a folder."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from widehead.cli import main

JOBS: dict[str, list[str]] = {
    "recommender": ["recommender"],
    "language-model": ["language-model"],
    "word-embeddings": ["language-model", "--task", "word-embeddings"],
    "multilabel": ["multilabel"],
    "next-item": ["next-item"],
}


# Said in full, so that other defaults change nothing here.
PLAIN = ["--schedule", "constant", "--evaluate-every", "1 epoch", "--encoder-lr", "0.02"]


@dataclass(frozen=True)
class Called:
    """How a call of the program ended."""

    code: int
    out: str
    err: str


@contextlib.contextmanager
def without_curves() -> Iterator[None]:
    """Reports have no curves: to draw them takes longer than small runs do.

    tests/report, `test_the_default_folder`, which is of every job, and the demo draw them.
    """
    from widehead.report import curves  # not before a run trains: it brings matplotlib

    drawn = curves.svg_pair
    curves.svg_pair = lambda _: ("", "")
    try:
        yield
    finally:
        curves.svg_pair = drawn


def call(*arguments: str | Path, draws: bool = False) -> Called:
    """Run the program in this process; a bug of it is raised here. Reports of training have curves if it ``draws``."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        without_curves() if arguments[:1] in (("train",), ("demo",)) and not draws else contextlib.nullcontext(),
        pytest.raises(SystemExit) as ended,
    ):
        main([str(argument) for argument in arguments])
    code = ended.value.code
    assert isinstance(code, int)
    return Called(code, out.getvalue(), err.getvalue())


def recommender_files(folder: Path) -> list[str]:
    """100 users in 5 groups with 12 items each: 6 of a user to train on, 3 to test."""
    rng = np.random.default_rng(0)
    lines = [[f"u{u}", *(f"i{12 * (u % 5) + i}" for i in rng.choice(12, 9, replace=False))] for u in range(100)]
    (folder / "train.txt").write_text("".join(" ".join(line[:7]) + "\n" for line in lines))
    (folder / "test.txt").write_text("".join(" ".join([line[0], *line[7:]]) + "\n" for line in lines))
    (folder / "input.txt").write_text("alice i0 i1 i2 i3 unheard\nbob i12 i13\n")
    sizes = ["--width", "8", "--batch-size", "16", "--epochs", "12", "--at", "6"]
    return [*PLAIN, "--loss", "squared-error", "--head-lr", "0.0625", *sizes]


def text_files(folder: Path) -> list[str]:
    """Twenty words that always follow one another in one circle."""
    rng = np.random.default_rng(0)
    lines = [" ".join(f"w{(start + j) % 20}" for j in range(15)) for start in rng.integers(0, 20, 150)]
    (folder / "train.txt").write_text("\n".join(lines))
    (folder / "test.txt").write_text("\n".join(lines[:20]))
    (folder / "input.txt").write_text("w3 w4 w5 w6 w7\nw18\n")
    sizes = ["--width", "16", "--batch-size", "128", "--epochs", "3", "--at", "1,10"]
    return [*PLAIN, "--loss", "spherical-softmax", "--head-lr", "1", *sizes]


def embeddings_files(folder: Path) -> list[str]:
    """The same text, whose few words are all frequent, and the optimisers of the job."""
    text_files(folder)
    return ["--subsample", "1", "--width", "16", "--epochs", "2", "--at", "1,10"]


def multilabel_files(folder: Path) -> list[str]:
    """Texts whose words tell both labels."""
    rng = np.random.default_rng(0)
    lines = [f"L{g} M{g // 2}\t" + " ".join(f"t{g}x{k}" for k in rng.choice(6, 4)) for g in rng.integers(0, 12, 300)]
    (folder / "train.txt").write_text("\n".join(lines))
    (folder / "test.txt").write_text("\n".join(lines[:40]))
    (folder / "input.txt").write_text("L0 L5\tt3x1 t3x2 t3x3\nt8x0 t8x4\n")
    sizes = ["--width", "12", "--hidden", "16", "--batch-size", "128", "--epochs", "12", "--at", "1,2"]
    return [*PLAIN, "--loss", "spherical-softmax", "--head-lr", "1", *sizes]


def sessions_files(folder: Path) -> list[str]:
    """Sessions that go round a circle of twenty items."""
    rng = np.random.default_rng(0)
    lines = [" ".join(f"i{(start + j) % 20}" for j in range(2 + start % 5)) for start in rng.integers(0, 20, 150)]
    (folder / "train.txt").write_text("\n".join(lines))
    (folder / "test.txt").write_text("\n".join(lines[:40]))
    (folder / "input.txt").write_text("i3 i4 i5\nunheard i18\n")
    sizes = ["--width", "16", "--batch-size", "16", "--epochs", "4", "--at", "1,2"]
    return [*PLAIN, "--head", "full", "--warmup-steps", "0", *sizes]


FILES: dict[str, Callable[[Path], list[str]]] = {
    "recommender": recommender_files,
    "language-model": text_files,
    "word-embeddings": embeddings_files,
    "multilabel": multilabel_files,
    "next-item": sessions_files,
}


def train(job: str, folder: Path, *more: str | Path) -> Called:
    """Train a job on its small data in ``folder``; the run is ``folder / "run"``."""
    options = FILES[job](folder)
    data = [folder / "train.txt", "--test", folder / "test.txt", "--out", folder / "run", "--quiet"]
    return call("train", *JOBS[job], *data, *options, *more)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder and its content; folders with nothing in them as b""."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
        elif path.is_dir():
            found[str(path.relative_to(folder)) + "/"] = b""
    return found


def assert_refused(called: Called, *parts: str) -> None:
    """One line on standard error that holds some texts, nothing on standard output, exit code 2."""
    assert called.code == 2, called
    assert called.out == ""
    assert called.err.startswith("widehead: error: ")
    assert called.err.count("\n") == 1, called.err
    for part in parts:
        assert part in called.err
