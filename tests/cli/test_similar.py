"""``widehead similar``: what the library says of the same run, and one line for names that are not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.cli_runs import FILES, Called, assert_refused, call

from widehead.runs import Run

Trained = dict[str, tuple[Path, Called]]
NAMED = {
    "recommender": ["i3", "i17"],
    "language-model": ["w3"],
    "word-embeddings": ["w3", "w19"],
    "multilabel": ["L4"],
    "next-item": ["i3"],
}


@pytest.mark.parametrize("job", FILES)
def test_it_names_what_the_library_names(job: str, trained: Trained) -> None:
    run = trained[job][0] / "run"
    expected = [vars(found) for found in Run.open(run).similar(NAMED[job], 3)]
    told = call("similar", run, *NAMED[job], "--top", "3", "--json")
    assert (told.code, json.loads(told.out), told.err) == (0, {"similar": expected}, "")
    lines = "".join(f"{found['name']}: {', '.join(found['classes'])}\n" for found in expected)
    assert call("similar", run, *NAMED[job], "--top", "3").out == lines


def test_items_of_a_group_are_near_one_another(trained: Trained) -> None:
    told = json.loads(call("similar", trained["recommender"][0] / "run", "i14", "--json").out)["similar"][0]
    assert sum(12 <= int(name[1:]) < 24 for name in told["classes"]) >= 7  # by chance it is 2


@pytest.mark.parametrize(
    ("asked", "what"), [(["i1", "I2"], "I2"), (["nothing"], "nothing"), ([], "NAME"), (["i1", "--top", "0"], "--top")]
)
def test_what_is_not_there(asked: list[str], what: str, trained: Trained) -> None:
    assert_refused(call("similar", trained["recommender"][0] / "run", *asked), what)


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    assert_refused(call("similar", tmp_path, "i1"), "should be a run folder")
