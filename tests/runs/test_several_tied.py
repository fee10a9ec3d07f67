"""Runs of several processes whose embeddings are the rows of the output layer: those of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from runs.test_several import CASES, assert_near, losses_of_one_that_died
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
    more |= {"encoder_lr": 0.02, "batch_size": 4}
    losses = losses_of_one_that_died(several, job, tmp_path, more)
    assert sum(losses[-8:]) < sum(losses[:8])  # of few draws, each of which says little
