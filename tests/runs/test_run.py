"""Run: data are read once, a failure at the start leaves nothing, and what was trained is used by the same object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.job_files import config_of

import widehead as wh
from widehead.errors import CheckpointError, NonFiniteError
from widehead.jobs.recommender import Recommender
from widehead.runs.lock import locked


def test_the_package_has_it_when_it_is_asked_for() -> None:
    from widehead.runs import Run

    assert wh.Run is Run
    with pytest.raises(AttributeError, match="no attribute 'Runs'"):
        wh.Runs  # noqa: B018


def test_data_are_read_once_and_the_same_object_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, times = Recommender.read, []

    def counted(config: Any) -> Any:
        times.append(config.out)
        return read(config)

    monkeypatch.setattr(Recommender, "read", counted)
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
        run.export("onnx")


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
