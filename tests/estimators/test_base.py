"""Parameters, folders, pickles and what is shown: alike for all estimators."""

from __future__ import annotations

import copy
import inspect
import io
import json
import pickle
import shutil
import signal
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from support.job_files import config_of
from support.memory_data import DATA, SMALL, answers, fitted, made

import widehead as wh
from widehead.errors import CheckpointError
from widehead.estimators import Estimator
from widehead.kinds import JOBS, configure
from widehead.options import OPTIONS

ESTIMATORS = list(DATA)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_every_option_of_the_job_is_a_keyword(kind: type[Estimator]) -> None:
    takes = JOBS[kind.job].takes
    options = {name for name, row in OPTIONS.items() if row.shared or name in takes}
    left = {"job", "out", "train", "train_checksum", "because", "test", "labels", "head_storage"}
    params = kind().get_params()
    assert set(params) == (options - left) | {"quiet", "callbacks", "on_log"}
    signature = inspect.signature(kind)
    assert {name for name, p in signature.parameters.items() if p.kind is p.KEYWORD_ONLY} == set(params)
    assert {name: p.default for name, p in signature.parameters.items() if name in params} == params
    with pytest.raises(TypeError, match="widht"):
        kind(widht=3)


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_parameters_are_set_and_shown(kind: type[Estimator]) -> None:
    model = kind(width=12, at=(1, 2))
    assert repr(model) == f"{kind.__name__}(width=12, at=(1, 2))"
    assert model.set_params(width=None, seed=3) is model
    assert (model.get_params()["width"], model.get_params()["seed"]) == (None, 3)
    with pytest.raises(ValueError, match=r"Parameters are: preset, .*Found 'colour'"):
        model.set_params(colour="red")
    with pytest.raises(ValueError, match="`width` should be"):
        kind(width=-1).fit(*DATA[kind])


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_nothing_is_answered_before_fit(kind: type[Estimator]) -> None:
    for name in ("save", "evaluate"):
        with pytest.raises(ValueError, match="should be fitted first"):
            getattr(kind(), name)("x")
    with pytest.raises(ValueError, match="should be fitted first"):
        answers(kind())


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_it_comes_back_from_its_folder_and_from_pickles(kind: type[Estimator], tmp_path: Path) -> None:
    model = fitted(kind)
    expected = answers(model)
    saved = model.save(tmp_path / "run")
    loaded = kind.load(saved)
    assert loaded.get_params() == model.get_params()
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    for again in (loaded, pickle.loads(pickle.dumps(model)), joblib.load(file), pickle.loads(pickle.dumps(loaded))):  # noqa: S301
        assert answers(again) == expected
        assert repr(again) == repr(model)
    assert str(saved) not in str(pickle.loads(pickle.dumps(loaded)).run_.folder.path)  # noqa: S301
    with pytest.raises(CheckpointError, match="should be empty"):
        model.save(saved)
    unfitted = pickle.loads(pickle.dumps(kind(width=5)))  # noqa: S301
    assert unfitted.get_params()["width"] == 5


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_the_folder_is_a_run_like_any_other(kind: type[Estimator], tmp_path: Path) -> None:
    run = wh.Run.open(fitted(kind).save(tmp_path / "run"))
    assert run.config.job == kind.job
    assert json.loads(run.folder.config_path.read_text())["out"] == str(tmp_path / "run")
    shutil.move(tmp_path / "run", tmp_path / "moved")
    assert answers(kind.load(tmp_path / "moved")) == answers(fitted(kind))


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_a_run_of_the_command_line_is_taken(kind: type[Estimator], tmp_path: Path) -> None:
    run = wh.Run.new(config_of(kind.job, tmp_path, epochs=1, test=None))
    run.train(quiet=True)
    model = kind.load(tmp_path / "run")
    assert model.evaluate(tmp_path / "test.txt") == run.evaluate(tmp_path / "test.txt")
    params = model.get_params()
    asked = {name: value for name, value in params.items() if name in OPTIONS and value is not None}
    config = configure(kind.job, out="x", **asked)
    assert {n: getattr(config, n) for n in params if n in OPTIONS} == {
        n: getattr(run.config, n) for n in params if n in OPTIONS
    }
    copied = model.save(tmp_path / "copy")
    assert kind.load(copied).get_params() == params
    others = [other for other in ESTIMATORS if other is not kind]
    with pytest.raises(CheckpointError, match=f"a run of the job {others[0].job}. Found one of {kind.job}"):
        others[0].load(tmp_path / "run")


def test_what_is_damaged_is_told(tmp_path: Path) -> None:
    folder = fitted(wh.MultiLabel).save(tmp_path / "run")
    for text in ("{", "[]", '{"params": {"colour": 1}, "learnt": {}}', '{"params": {}, "learnt": {"calibration": {}}}'):
        (folder / "estimator.json").write_text(text)
        with pytest.raises(CheckpointError, match=r"estimator\.json should hold what an estimator saved"):
            wh.MultiLabel.load(folder)


def test_the_temporary_folder_goes_with_the_estimator() -> None:
    model = made(wh.Recommender).fit(*DATA[wh.Recommender])
    first = model.run_.folder.path
    model.fit(*DATA[wh.Recommender])
    assert not first.exists()
    second = model.run_.folder.path
    assert second.exists()
    del model
    assert not second.exists()


def test_a_failed_fit_leaves_the_last_one(tmp_path: Path) -> None:
    model = made(wh.Recommender).fit(*DATA[wh.Recommender])
    expected = answers(model)
    with pytest.raises(ValueError, match="users and items"):
        model.fit(np.zeros((3, 3)))
    assert answers(model) == expected


def test_torch_draws_on_as_if_nothing_had_been() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    made(wh.Recommender, encoder_lr=0.01, epochs=1).fit(*DATA[wh.Recommender])
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("quiet", [None, True, False])
def test_lines_are_shown_if_asked_for(quiet: bool | None, capsys: pytest.CaptureFixture[str]) -> None:
    """Standard error is no terminal here."""
    wh.Recommender(**{**SMALL, "quiet": quiet}).fit(*DATA[wh.Recommender])
    shown = capsys.readouterr()
    assert shown.out == ""
    assert ("Read: 100 users" in shown.err) == (quiet is False)


def test_a_terminal_sees_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", terminal)
    wh.Recommender(**{**SMALL, "quiet": None}).fit(*DATA[wh.Recommender])
    assert "Read: 100 users" in terminal.getvalue()


def test_callbacks_see_the_network_and_may_end_the_training() -> None:
    seen: list[Any] = []
    told: list[dict[str, Any]] = []

    def callback(network: Any, record: dict[str, Any]) -> bool:
        seen.append((network.head.num_classes, record["kind"]))
        return record["kind"] == "train"

    options = {"encoder_lr": 0.01, "epochs": 50, "batch_size": 20, "log_every": 3}
    callbacks = (callback, lambda *_: seen.append("both"))
    model = made(wh.Recommender, **options, callbacks=callbacks, on_log=told.append).fit(*DATA[wh.Recommender])
    assert model.run_.step == 3
    assert seen == [(60, "train"), "both"]
    assert [record["step"] for record in told] == [3]


def test_ctrl_c_leaves_what_was_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"encoder_lr": 0.01, "epochs": 50, "batch_size": 20, "log_every": 3}
    model = made(wh.Recommender, **options, on_log=lambda _: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        model.fit(*DATA[wh.Recommender])
    assert model.run_.step == 3
    assert model.recommend([["i0"]], 1)[0].shape == (1, 1)


def test_paths_are_no_data() -> None:
    with pytest.raises(ValueError, match="list"):
        wh.Recommender(quiet=True).fit("train.txt")


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_the_best_weights_stay_the_best(kind: type[Estimator], tmp_path: Path) -> None:
    """A copy of an estimator that uses the best checkpoint does so too."""
    options = {"encoder_lr": 0.02, "epochs": 1, "schedule": "constant", "holdout": 0.2, "keep_best": True}
    data = DATA[kind]
    folder = made(kind, **options).fit(*data).save(tmp_path / "run")
    shutil.copy(folder / "checkpoints" / "last.safetensors", tmp_path / "first")
    wh.Run.open(folder, data=data if len(data) > 1 else data[0]).train(quiet=True, epochs=3)
    shutil.copy(tmp_path / "first", folder / "checkpoints" / "best.safetensors")
    best, last = (kind.load(folder, best=which) for which in (True, False))
    assert best.run_.step < last.run_.step
    assert copy.deepcopy(best).run_.step == best.run_.step
    assert copy.deepcopy(last).run_.step == last.run_.step


def test_an_estimator_has_a_fit() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Estimator()
