"""``widehead train``: options from a file, a rehearsal, a run that is replaced, and a training file that was moved."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from support.cli_runs import FILES, JOBS, Called, assert_refused, call, tree
from support.processes import ENVIRONMENT, PROGRAM, start, wait_for_steps

from widehead.cli.options import _use_threads
from widehead.runs import rehearsal

Trained = dict[str, tuple[Path, Called]]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    FILES["recommender"](tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trained(*more: str, out: str = "run") -> Called:
    return call("train", "recommender", "train.txt", "--at", "5", "--out", out, "--quiet", "--json", *more)


def config_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "config.json").read_text())
    return found


# Options from a file.


@pytest.mark.parametrize("job", FILES)
def test_a_runs_own_options_make_the_same_run(job: str, trained: Trained, tmp_path: Path) -> None:
    first, again = trained[job][0] / "run", tmp_path / "again"
    told = call("train", JOBS[job][0], "--config", first / "config.json", "--out", again, "--quiet", "--json")
    assert told.code == 0, told.err
    ours, before = config_of(again), config_of(first)
    assert {n: v for n, v in ours.items() if n not in ("out", "because")} == {
        n: v for n, v in before.items() if n not in ("out", "because")
    }
    assert json.loads(told.out)["metrics"] == json.loads(trained[job][1].out)["metrics"]


def test_toml_is_read_and_the_command_line_wins(data: Path) -> None:
    (data / "o.toml").write_text(
        'train = "train.txt"\nwidth = 16\nencoder-lr = 0.02\nhidden = [12]\nat = [3, 5]\nout = "there"\nepochs = 4\n'
        "[loss_options]\nunobserved_weight = 0.3\n"
    )
    told = call("train", "recommender", "--config", "o.toml", "--width", "8", "--epochs", "2", "--quiet", "--json")
    assert told.code == 0, told.err
    config = config_of(data / "there")
    found = {name: config[name] for name in ("width", "encoder_lr", "hidden", "at", "epochs", "loss_options")}
    expected = {"width": 8, "encoder_lr": 0.02, "hidden": [12], "at": [3, 5], "epochs": 2}
    assert found == {**expected, "loss_options": {"unobserved_weight": 0.3}}
    assert config["preset"] == "trained"


def test_what_belongs_to_another_head_gives_way(data: Path) -> None:
    assert trained("--head-optimizer", "sgd", "--head-momentum", "0.5").code == 0
    told = trained("--config", "run/config.json", "--head", "sampled", out="other")
    assert told.code == 0, told.err
    config = config_of(data / "other")
    assert (config["head"], config["loss"], config["head_momentum"]) == ("sampled", None, 0.0)
    told = trained("--config", "run/config.json", "--loss", "spherical-softmax", "--minutes", "0.001", out="third")
    assert told.code == 0, told.err
    assert config_of(data / "third")["epochs"] is None


@pytest.mark.parametrize(
    ("text", "given", "expected"),
    [
        (
            "head-lr = 0.25\n[loss_options]\nunobserved_weight = 0.3",
            ["--head-optimizer", "sgd", "--loss", "weighted-squared-error"],
            {"head_lr": 0.25, "loss_options": {"unobserved_weight": 0.3}},
        ),
        ("head_momentum = 0.5", ["--head-optimizer", "sgd"], {"head_momentum": 0.5}),
        ("[head_options]\nnegatives = 7", ["--head", "sampled"], {"head_options": {"negatives": 7}}),
        ("head_momentum = 0.5\nhead_optimizer = 'sgd'", ["--head", "full"], {"head_momentum": 0.0}),
        ("epochs = 3\nout = 'there'\nkeep_best = true", ["--no-keep-best"], {"epochs": 3, "keep_best": False}),
        ("head_bias = true", [], {"head_bias": True}),
    ],
)
def test_a_file_speaks_of_the_head_loss_and_optimiser_that_are_given(
    text: str, given: list[str], expected: dict[str, Any], data: Path
) -> None:
    (data / "o.toml").write_text(text)
    told = trained("--config", "o.toml", *given)
    assert told.code == 0, told.err
    config = config_of(data / "run")
    assert {name: config[name] for name in expected} == expected


def test_what_does_not_fit_the_head_that_is_given_is_refused_not_dropped(data: Path) -> None:
    (data / "o.toml").write_text("[head_options]\nnegatives = 7")
    assert_refused(trained("--config", "o.toml", "--head", "full"), "--head-options", "negatives")


def test_a_flag_is_taken_back_when_a_run_goes_on(data: Path) -> None:
    assert trained("--keep-best").code == 0
    more = ["--resume", "--epochs", "2", "--quiet"]
    assert call("train", "recommender", "--out", "run", *more).code == 0
    assert config_of(data / "run")["keep_best"] is True
    assert call("train", "recommender", "--out", "run", *more, "--no-keep-best").code == 0
    assert config_of(data / "run")["keep_best"] is False


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("widht = 3", ["o.toml", "width", "'widht'"]),
        ("head_optimiser = 'sgd'", ["head_optimizer", "'head_optimiser'"]),
        ("width = 'wide'", ["--width", "'wide'"]),
        ("window = 3", ["job recommender", "'window'"]),
        ("job = 'multilabel'", ["job recommender", "'multilabel'"]),
        ("width = ", ["o.toml", "TOML"]),
        ("out = 3", ["--out", "a path", "3"]),
        ("out = ''", ["--out", "a path"]),
        ("job = [1]", ["--job", "a name"]),
        ("preset = ['svd']", ["--preset", "a name"]),
        ("device = 3", ["--device", "cuda:N"]),
        ("head-lr = 1.0\nhead_lr = 2.0", ["o.toml", "once"]),
        ("\xff", ["o.toml", "UTF-8"]),
    ],
)
def test_a_wrong_file_is_refused(text: str, parts: list[str], data: Path) -> None:
    (data / "o.toml").write_bytes(text.encode("latin-1"))
    before = tree(data)
    assert_refused(call("train", "recommender", "train.txt", "--config", "o.toml"), *parts)
    assert tree(data) == before


def test_a_file_that_is_not_there_and_one_for_a_resumed_run(data: Path) -> None:
    assert_refused(call("train", "recommender", "train.txt", "--config", "no.toml"), "no.toml")
    (data / "o.json").write_text("[1]")
    assert_refused(call("train", "recommender", "train.txt", "--config", "o.json"), "o.json", "list")
    assert_refused(call("train", "recommender", "--resume", "--config", "o.json"), "--resume", "--config")


# A rehearsal.


@pytest.mark.parametrize("job", FILES)
def test_a_rehearsal_says_what_a_run_would_take_and_writes_nothing(
    job: str, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal, "_SECONDS", 0.1)
    folder = trained[job][0]
    before = tree(folder)
    asked = [*JOBS[job], folder / "train.txt", "--out", folder / "new", "--at", "2", "--seed", "3", "--dry-run"]
    asked += [] if job == "recommender" else ["--width", "8"]
    told = call("train", *asked, "--json")
    assert told.code == 0, told.err
    found = json.loads(told.out)
    assert tree(folder) == before
    options = {name: option["value"] for name, option in found["options"].items()}
    assert found["steps"] == options["epochs"] * math.ceil(found["examples"] / options["batch_size"])
    assert found["step_seconds"] > 0.0
    assert found["memory"] is None or found["memory"] > 1e7
    reasons = {name: option["because"] for name, option in found["options"].items()}
    assert (reasons["at"], reasons["seed"], reasons["log_every"]) == ("given", "given", "default")
    assert reasons["head_optimizer"].startswith("preset ")
    assert reasons["width"] == ("the data" if job == "recommender" else "given")
    shown = call("train", *asked)
    assert "Nothing was written" in shown.err
    assert "What the run would take" in shown.out


def test_a_rehearsal_says_who_asked_for_what(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for values of 0, flags that are taken back, and what time alone ends."""
    monkeypatch.setattr(rehearsal, "_SECONDS", 0.1)
    (data / "o.toml").write_text("keep_best = true\nseed = 0\nlog_every = 7\nepochs = 4")
    asked = ["--encoder-lr", "0", "--minutes", "1", "--no-keep-best", "--config", "o.toml"]
    options = json.loads(trained("--dry-run", *asked).out)["options"]
    reasons = {name: option["because"] for name, option in options.items()}
    given = dict.fromkeys(("encoder_lr", "minutes", "keep_best", "at"), "given")
    expected = {**given, "seed": "o.toml", "log_every": "o.toml", "epochs": "minutes alone", "batch_size": "preset svd"}
    assert {name: reasons[name] for name in expected} == expected
    assert (options["epochs"]["value"], options["keep_best"]["value"]) == (None, False)


def test_a_rehearsal_refuses_what_a_run_refuses(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "_SECONDS", 0.1)
    for more, what in (("--at", "61"), "--at"), (("--head-options", "x=1", "--head", "full"), "head-options"):
        assert_refused(call("train", "recommender", "train.txt", "--dry-run", *more), what)
    assert trained().code == 0
    assert_refused(trained("--dry-run"), "Found files in it")
    assert trained("--dry-run", "--overwrite").code == 0
    assert not list(data.rglob("*.before"))


# A run that is replaced.


def test_a_run_is_replaced_when_the_new_one_is_done(data: Path) -> None:
    assert trained("--seed", "1").code == 0
    assert_refused(trained("--seed", "2"), "Found files in it")
    assert trained("--seed", "2", "--overwrite").code == 0
    assert config_of(data / "run")["seed"] == 2
    assert [path.name for path in data.glob("*run*")] == ["run"]
    assert not list(data.glob(".*"))


@pytest.mark.parametrize(
    "bad",
    [
        ["--at", "61"],
        ["--head", "exakt"],
        ["--width", "2000000000"],
        ["--encoder-lr", "1e30", "--loss", "squared-error", "--head-optimizer", "sgd", "--head-lr", "1e30"],
        ["--test", "no.txt"],
        ["--head-storage", "train.txt"],
    ],
)
def test_a_run_survives_bad_options(bad: list[str], data: Path) -> None:
    assert trained("--seed", "1").code == 0
    before = tree(data)
    told = trained("--overwrite", *bad)
    assert told.code == 2, told
    assert tree(data) == before


def test_what_is_no_run_is_not_replaced(data: Path) -> None:
    (data / "run").mkdir()
    (data / "run" / "thesis.txt").write_text("mine")
    assert_refused(trained("--overwrite"), "Found files in it")
    assert trained(out="other").code == 0
    (data / "other" / "thesis.txt").write_text("mine")
    assert_refused(trained("--overwrite", out="other"), "thesis.txt")
    (data / "link").symlink_to("other")
    assert_refused(trained("--overwrite", out="link"), "Found files in it")
    assert trained("--overwrite", out="new").code == 0  # there is nothing to replace


@pytest.mark.long
def test_a_run_in_use_is_not_replaced_and_an_interrupted_one_keeps_what_it_replaces(data: Path) -> None:
    assert trained("--seed", "1").code == 0
    first = tree(data / "run")
    more = ["--encoder-lr", "0.01", "--epochs", "1000000", "--evaluate-every", "1000 epochs", "--at", "5"]
    process = start("train", "recommender", "train.txt", "--out", "run", "--overwrite", "--quiet", *more)
    while not (data / ".run.before").exists():
        assert process.poll() is None
        time.sleep(0.02)
    wait_for_steps(data / "run", process)
    assert_refused(trained("--overwrite"), "run.before")
    assert_refused(trained("--resume", "--epochs", "2"), "in use")
    process.send_signal(2)
    assert process.wait(timeout=60) == 130
    assert tree(data / ".run.before") == first
    assert_refused(trained("--overwrite"), "run.before", "--resume")
    done = call("train", "recommender", "--out", "run", "--resume", "--minutes", "0.0001", "--quiet")
    assert done.code == 0, done.err
    assert not (data / ".run.before").exists()


def test_a_kill_between_two_renames_loses_nothing(data: Path) -> None:
    assert trained("--seed", "1").code == 0
    (data / "run").rename(data / ".run.before")
    assert_refused(trained("--overwrite", "--at", "61"), "--at")
    assert config_of(data / "run")["seed"] == 1


# A training file that was moved.


@pytest.mark.parametrize("job", FILES)
def test_a_moved_file_is_taken_if_its_content_is_the_same(job: str, trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained[job][0], tmp_path / "there")
    run, moved = tmp_path / "there" / "run", tmp_path / "elsewhere.txt"
    config = config_of(run)
    config["train"], config["test"] = str(tmp_path / "gone.txt"), str(tmp_path / "gone-too.txt")
    (run / "config.json").write_text(json.dumps(config))
    (tmp_path / "there" / "train.txt").rename(moved)
    again = ["train", *JOBS[job], "--out", run, "--resume", "--quiet", "--epochs", str(config["epochs"] + 1)]
    test = ["--test", tmp_path / "there" / "test.txt"]
    assert_refused(call(*again), "gone.txt")

    other, before = tmp_path / "other.txt", tree(run)
    for content in (moved.read_text() + "\n", moved.read_text().replace("1", "2", 1)):
        other.write_text(content)
        assert_refused(call(*again, other, *test), "gone.txt", "other.txt", "content")
        assert tree(run) == before
    done = call(*again, moved, *test)
    assert done.code == 0, done.err
    assert config_of(run)["train"] == str(moved)
    assert call(*again[:-1], str(config["epochs"] + 2)).code == 0  # it is known now


def test_a_file_that_changed_in_its_place_is_refused(data: Path) -> None:
    assert trained().code == 0
    (data / "train.txt").write_text((data / "train.txt").read_text() + "\n")
    assert_refused(call("train", "recommender", "--out", "run", "--resume", "--epochs", "2"), "changed since the run")


@pytest.mark.long
@pytest.mark.skipif(os.cpu_count() == 1, reason="needs two cores")
def test_threads_are_those_asked_for(data: Path) -> None:
    code = (
        "import atexit, sys\n"
        "def told(): import torch; print(torch.get_num_threads())\n"
        "atexit.register(told)\n"
        "from widehead.cli import main\nmain()"
    )
    assert trained().code == 0
    command = ["evaluate", "run", "--test", "test.txt", "--json", "--threads", "2"]
    done = subprocess.run([PROGRAM[0], "-c", code, *command], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.stdout.split()[-1] == "2", done.stderr
    assert_refused(call("evaluate", "run", "--threads", "0"), "--threads")


def test_threads_are_set_before_libraries_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.delitem(__import__("sys").modules, "torch")
    _use_threads(3)
    assert set(os.environ.values()) == {"3"}
    assert {"OMP_NUM_THREADS", "POLARS_MAX_THREADS"} <= set(os.environ)
