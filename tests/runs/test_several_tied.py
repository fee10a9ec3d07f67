"""Runs of several processes whose embeddings are the rows of the output layer: those of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from runs.test_several import CASES, assert_near, state_of
from support import several_runs
from support.several import Several

pytestmark = pytest.mark.long

FULL: dict[str, Any] = {"tied": True, "head": "full", "head_options": {}, "loss": None, "input_dropout": 0.0}


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize(
    ("job", "more"),
    [
        ("next-item", {"preset": "sampled", "neighbours": 0, "head_max_grad_norm": 0.5}),
        ("language-model", {"preset": "places", "encoder": "gru", "encoder_max_grad_norm": 0.1}),
        ("language-model", {"preset": "places", "encoder": "transformer", "width": 8, "context": 6}),
    ],
)
def test_tied_embeddings(several: Several, tmp_path: Path, job: str, more: dict[str, Any], size: int) -> None:
    more = {**CASES[job], **FULL, **more}
    several_runs.make_files(job, tmp_path)
    several_runs.begin(None, job, tmp_path, "one", more)
    answers = several.run(size, several_runs.begin, job, tmp_path, "several", more)
    assert all(answer == answers[0] for answer in answers)  # the encoders too, to the last bit
    assert_near(tmp_path / "several", tmp_path / "one")


@pytest.mark.parametrize("job", ["next-item", "language-model"])
def test_the_sampled_softmax_of_a_run_that_died_is_that_which_did_not(
    several: Several, tmp_path: Path, job: str
) -> None:
    """With dropout; it goes on in three processes and in one."""
    more: dict[str, Any] = {"preset": "places" if job == "language-model" else "sampled", "loss": None, "tied": True}
    more |= {"head": "sampled", "head_options": {"negatives": 5}, "schedule": "constant"}
    more |= {"epochs": 2, "log_every": 1, "checkpoint_every": "2 steps", "encoder_lr": 0.02, "batch_size": 4}
    several_runs.make_files(job, tmp_path)
    several.run(2, several_runs.begin, job, tmp_path, "whole", more)
    outcome, _ = several.run(2, several_runs.begin, job, tmp_path, "dies", more, 5)[0]
    assert outcome is None  # it died
    several.run(2, several_runs.go_on, tmp_path, "dies", {})
    assert all(map(torch.equal, state_of(tmp_path / "dies"), state_of(tmp_path / "whole")))
    assert several_runs.log_of(tmp_path / "dies") == several_runs.log_of(tmp_path / "whole")
    several.run(3, several_runs.go_on, tmp_path, "dies", {"epochs": 3})
    several_runs.go_on(None, tmp_path, "dies", {"epochs": 4})
    losses = [record["loss"] for record in several_runs.log_of(tmp_path / "dies") if record["kind"] == "train"]
    assert sum(losses[-8:]) < sum(losses[:8])  # of few draws, each of which says little
