"""A job is one file: one of a made-up kind is there for every command once its file is imported."""

from __future__ import annotations

import ast
import importlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cli_runs import call

import widehead
from widehead.jobs import JOBS


@pytest.fixture(scope="module", autouse=True)
def made_up() -> Iterator[None]:
    """Registered for this file alone, as other tests go through all jobs."""
    job = importlib.import_module("support.made_up_job").LastLetters
    JOBS[job.name] = job
    yield
    del JOBS[job.name]


def words(path: Path, n: int, seed: int) -> Path:
    """Words of one letter, so that their last letter is the one seen."""
    rng = random.Random(seed)
    path.write_text("".join(rng.choice("bdfhjl") * rng.randint(2, 4) + "\n" for _ in range(n)))
    return path


def test_it_goes_through_every_command(tmp_path: Path) -> None:
    train, test = words(tmp_path / "train.txt", 300, 0), words(tmp_path / "test.txt", 40, 1)
    run = tmp_path / "run"
    began = call("train", "last-letters", train, "--test", test, "--out", run, "--epochs", "2", "--json", "--quiet")
    assert began.code == 0, began.err
    resumed = call("train", "last-letters", "--out", run, "--resume", "--epochs", "20", "--json", "--quiet")
    told = json.loads(resumed.out)
    assert (told["status"], told["epoch"]) == ("finished", 20.0)
    assert told["metrics"]["recall@1"] > 0.95
    assert json.loads(call("evaluate", run, "--json").out) == pytest.approx(told["metrics"])
    assert "A guesser of last letters" in (run / "report.html").read_text()
    (tmp_path / "new.txt").write_text("dd\njjj\n")
    assert call("predict", run, tmp_path / "new.txt", "--top", "1").out == "dd: d\njjj: j\n"
    assert call("export", run, "--format", "word2vec", "--output", tmp_path / "rows.txt").code == 0
    assert (tmp_path / "rows.txt").read_text().splitlines()[0] == "26 16"


@pytest.mark.long
def test_it_is_compared(tmp_path: Path) -> None:
    train, test = words(tmp_path / "train.txt", 200, 0), words(tmp_path / "test.txt", 40, 1)
    place = ["--test", test, "--out", tmp_path / "out", "--epochs", "2", "--heads", "full"]
    called = call("compare", "last-letters", train, *place, "--quiet", "--json")
    assert called.code == 0, called.err
    assert {result["status"] for result in json.loads(called.out)["results"]} == {"finished"}


def test_the_help_knows_it() -> None:
    assert "last-letters" in call("train", "--help").out
    assert "--input-dropout" in call("train", "last-letters", "--help").out
    assert "--ratings" not in call("train", "last-letters", "--help").out


def test_a_jobs_name_is_spelt_in_its_own_file_alone() -> None:
    """The command `demo` has the name of its job."""
    package = Path(widehead.__file__).parent
    kinds = {name: next(base for base in job.__mro__ if "name" in vars(base)) for name, job in JOBS.items()}
    names = {name: kind.__module__ for name, kind in kinds.items()}
    for path in package.rglob("*.py"):
        module = ".".join(("widehead", *path.relative_to(package).with_suffix("").parts))
        found = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        for name in found & set(names):
            assert names[name] == module or (name, module.split(".")[1]) == ("demo", "cli"), (name, module)
