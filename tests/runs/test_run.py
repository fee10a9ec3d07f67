"""Run: data are read once, a failure at the start leaves nothing, and what was trained is used by the same object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
import scipy.sparse
import torch
from support.job_files import config_of

import widehead as wh
from widehead.errors import CheckpointError, DataError, NonFiniteError
from widehead.jobs.recommender import Recommender
from widehead.runs.lock import locked


def test_the_package_has_it_when_it_is_asked_for() -> None:
    from widehead.runs import Run

    assert wh.Run is Run
    with pytest.raises(AttributeError, match="no attribute 'Runs'"):
        wh.Runs  # noqa: B018


def test_data_are_read_once_and_the_same_object_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, times = Recommender.of, []

    def counted(config: Any, train: Any, share: Any) -> Any:
        times.append(config.out)
        return read(config, train, share)

    monkeypatch.setattr(Recommender, "of", counted)
    run = wh.Run.new(config_of("recommender", tmp_path, epochs=1))
    first = run.train(quiet=True)
    assert run.step == first.step
    assert run.evaluate() == pytest.approx(dict(first.metrics), rel=1e-5)
    second = run.train(quiet=True, epochs=2)
    assert (second.epoch, run.step) == (2.0, second.step)
    assert run.evaluate() == pytest.approx(dict(second.metrics), rel=1e-5)
    assert len(times) == 1
    assert run.report() == tmp_path / "run" / "report.html"
    assert run.export("torch", tmp_path / "run.pt").stat().st_size > 0
    with pytest.raises(ValueError, match="`format` should be one of torch"):
        run.export("pickle")


def test_a_failure_before_the_first_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    options = {"head_optimizer": "sgd", "head_lr": 1e30, "out": str(tmp_path / "deep" / "run")}
    run = wh.Run.new(config_of("recommender", tmp_path, **options))
    assert (tmp_path / "deep" / "run" / "config.json").exists()
    with pytest.raises(NonFiniteError):
        run.train(quiet=True)
    assert not (tmp_path / "deep").exists()


def test_config_json_says_which_preset_and_why(tmp_path: Path) -> None:
    wh.Run.new(config_of("recommender", tmp_path))
    kept = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (kept["preset"], kept["because"]) == ("trained", "encoder_lr = 0.02")


def test_another_process_can_look_on_but_not_train(tmp_path: Path) -> None:
    run = wh.Run.new(config_of("recommender", tmp_path, epochs=1))
    run.train(quiet=True)
    with locked(run.folder.path):
        assert wh.Run.open(run.folder.path).evaluate()
        with pytest.raises(CheckpointError, match="in use"):
            run.train(quiet=True, epochs=2)


def test_a_job_that_is_not_there_is_named(tmp_path: Path) -> None:
    wh.Run.new(config_of("recommender", tmp_path))
    path = tmp_path / "run" / "config.json"
    path.write_text(path.read_text().replace('"recommender"', '"painter"'))
    with pytest.raises(CheckpointError, match=r"config\.json: Option `job` should be one of .*'painter'"):
        wh.Run.open(tmp_path / "run")


def test_the_rows_of_a_run_that_is_read_are_up_to_date(tmp_path: Path) -> None:
    wh.Run.new(config_of("recommender", tmp_path, epochs=1, test=None)).train(quiet=True)  # nobody evaluated it
    weights = wh.Run.open(tmp_path / "run").network.head.weights
    assert weights.versions.live == [weights.versions.newest]
    assert weights.segment_steps == 0


def test_data_in_memory_are_answered_as_files_are(tmp_path: Path) -> None:
    wh.Run.new(config_of("recommender", tmp_path, epochs=2)).train(quiet=True)
    run = wh.Run.open(tmp_path / "run")
    users = [["i0", "i1", "i2", "unheard"], ["i12", "i13"], ["nothing", "known"], []]
    (tmp_path / "in.txt").write_text("".join(f"{u} {' '.join(items)}\n" for u, items in enumerate(users)))
    pairs = [(f"{u}", item) for u, items in enumerate(users) for item in items]
    ones = scipy.sparse.lil_matrix((4, len(run.job.class_names)))
    for user, item in pairs:
        if item in run.job.class_names:
            ones[int(user), list(run.job.class_names).index(item)] = 3.0
    expected = list(run.predict(tmp_path / "in.txt", 5))
    assert [len(answer.classes) for answer in expected] == [5, 5, 0, 0]
    table = polars.DataFrame(pairs, schema=["user", "item"], orient="row")
    for data in (users, ones.tocsr(), ones.toarray()):
        assert list(run.predict(data, 5)) == expected
    # A table says nothing of a user without items, and three rows are summed in another order than four.
    assert [answer.classes for answer in run.predict(table, 5)] == [answer.classes for answer in expected[:3]]
    with pytest.raises(DataError, match=r"Expected 60 items. Found a matrix with 61 columns"):
        run.predict(np.ones((1, 61)))
    with pytest.raises(ValueError, match="`k` should be a whole number of at least 1"):
        run.predict(users, 0)


@pytest.mark.parametrize(
    ("job", "lines"),
    [
        ("multilabel", ["t3x1 t3x2 t3x3", "t8x0 t8x4", "unheard"]),
        ("language-model", ["w3 w4 w5 w6 w7", "", "w18", "unheard"]),
        ("word-embeddings", ["w3", "w18 w4"]),
    ],
)
def test_texts_in_memory_are_answered_as_files_are(tmp_path: Path, job: str, lines: list[str]) -> None:
    wh.Run.new(config_of(job, tmp_path, epochs=1)).train(quiet=True)
    run = wh.Run.open(tmp_path / "run")
    (tmp_path / "in.txt").write_text("".join(("\t" if job == "multilabel" else "") + line + "\n" for line in lines))
    expected = [(answer.classes, answer.scores) for answer in run.predict(tmp_path / "in.txt", 3)]
    assert [(answer.classes, answer.scores) for answer in run.predict(lines, 3)] == expected
    again: Any = [line.split() for line in lines]
    if job == "multilabel":
        again = run.job.schema.text.transform(lines)  # type: ignore[attr-defined]
    assert [(answer.classes, answer.scores) for answer in run.predict(again, 3)] == expected
    assert list(run.predict([], 3)) == []


def test_what_is_opened_has_all_rows_up_to_date(tmp_path: Path) -> None:
    """A reader then copies none of them."""
    wh.Run.new(config_of("recommender", tmp_path, epochs=1)).train(quiet=True)
    weights = wh.Run.open(tmp_path / "run").network.head.weights
    (found,) = (outputs for _, outputs in weights.outputs(torch.eye(8)))
    assert weights.segment_steps == 0
    assert weights.versions.live == [weights.versions.newest]
    torch.testing.assert_close(found, weights.dense().T)
