"""A run folder that another process trains in, and data that are finite but too large to compute with."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from support.cli_runs import FILES, assert_refused, call, tree
from support.processes import start, wait_for_steps

from widehead.jobs.recommender import Recommender
from widehead.runs.lock import LOCK


@pytest.mark.long
def test_one_process_a_run_folder(tmp_path: Path) -> None:
    options = [*FILES["recommender"](tmp_path), "--epochs", "1000000", "--evaluate-every", "1000 epochs"]
    out, data = tmp_path / "run", tmp_path / "train.txt"
    process = start("train", "recommender", data, "--out", out, "--checkpoint-every", "1 seconds", "--quiet", *options)
    wait_for_steps(out, process)
    in_use = f"{out} is in use by process {process.pid} on "
    assert_refused(call("train", "recommender", "--out", out, "--resume"), in_use, "wait until that one ends")
    assert_refused(call("train", "recommender", data, "--out", out), "Found files in it")
    while not (out / "checkpoints" / "last.safetensors").exists():
        time.sleep(0.05)
    assert call("evaluate", out, "--test", tmp_path / "test.txt").code == 0  # looking on is allowed
    assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert (out / LOCK).exists()
    ended = call("train", "recommender", "--out", out, "--resume", "--quiet", "--minutes", "0.001", "--json")
    assert json.loads(ended.out)["status"] == "finished"
    assert not list(out.rglob(".*"))


def ratings(folder: Path, worst: str) -> list[str]:
    """200 users; one of the last ones has a rating that float32 can hold, but not square."""
    rng = np.random.default_rng(0)
    rows = [f"u{u},i{i},{rng.integers(1, 6)}" for u in range(200) for i in rng.choice(30, 5, replace=False)]
    rows[-1] = f"{rows[-1].rsplit(',', 1)[0]},{worst}"
    (folder / "train.csv").write_text("user,item,rating\n" + "\n".join(rows) + "\n")
    sizes = ["--width", "8", "--batch-size", "10", "--epochs", "2", "--at", "5", "--checkpoint-every", "1 steps"]
    return ["train", "recommender", str(folder / "train.csv"), "--ratings", "--quiet", *sizes]


def test_numbers_too_large_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    """The step is named, the checkpoint before it stays and is usable, and going on meets the same step again."""
    arguments = [*ratings(tmp_path, "3e38"), "--encoder-init", "random", "--out", str(tmp_path / "run")]
    called = call(*arguments)
    assert_refused(called, "Training stopped at step ", "the loss is", "last good checkpoint is", "learning rates")
    step = int(called.err.split("at step ")[1].split(":")[0])
    assert 1 < step <= 20
    before = tree(tmp_path)
    again = call("train", "recommender", "--out", tmp_path / "run", "--resume", "--quiet")
    assert_refused(again, f"Training stopped at step {step}: ")
    after = tree(tmp_path)
    assert after == before
    (tmp_path / "test.txt").write_text("u1 i1 i2\n")
    assert call("evaluate", tmp_path / "run", "--test", tmp_path / "test.txt").code == 0


def test_an_encoder_that_is_not_finite_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a job made it of."""

    def start_with_nan(job: Recommender, encoder: torch.nn.Module, *_: object) -> None:
        with torch.no_grad():
            next(encoder.parameters())[0, 0] = torch.nan

    monkeypatch.setattr(Recommender, "start", start_with_nan)
    called = call(*ratings(tmp_path, "3"), "--out", tmp_path / "run")
    assert_refused(called, "made from the training data should be finite", "--encoder-init random")


def test_ratings_of_which_there_are_no_singular_vectors_are_refused(tmp_path: Path) -> None:
    arguments = ratings(tmp_path, "0")
    data = tmp_path / "train.csv"
    data.write_text(re.sub(r",[0-9]+$", ",0", data.read_text(), flags=re.MULTILINE))
    called = call(*arguments, "--out", tmp_path / "run")
    assert_refused(called, "Expected ratings of which some are not 0")


def test_numbers_beyond_float32_are_refused_by_the_reader(tmp_path: Path) -> None:
    for worst in ("1e39", "nan", "inf", "-inf", "1e400"):
        called = call(*ratings(tmp_path, worst), "--out", tmp_path / "run")
        assert_refused(called, "train.csv, line 1001: expected a rating that is a finite number", worst)
        assert not (tmp_path / "run").exists()
