"""The next item from data in memory: figures of the command line, names of all kinds, tables, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars
import pytest
from support.cli_runs import call
from support.memory_data import DATA, fitted, made

import widehead as wh
from widehead.errors import DataError


def test_what_is_learnt_and_asked() -> None:
    model = fitted(wh.NextItem)
    ids, scores = model.recommend([["i3", "i4"], ["i19"], [], ["unheard"]], 2)
    assert ids[:2, 0].tolist() == ["i5", "i0"]
    assert ids[2:].tolist() == [[None, None], [None, None]]
    assert np.all(np.diff(scores[:2], axis=1) <= 0)
    assert np.isneginf(scores[2:]).all()
    assert sorted(model.items_) == sorted(f"i{i}" for i in range(20))
    many, _ = model.recommend([["i3"]], 50)
    assert many.shape == (1, 50)
    assert many[0, 20:].tolist() == [None] * 30
    assert model.score(DATA[wh.NextItem][0]) == 1.0
    assert model.evaluate([["i3", "i4"], ["i4", "i3"]], (1,)) == {"recall@1": 0.5, "mrr@1": 0.5}


def test_figures_are_those_of_the_command_line(tmp_path: Path) -> None:
    sessions = DATA[wh.NextItem][0]
    for name, part in (("train", sessions[:120]), ("test", sessions[120:])):
        (tmp_path / f"{name}.txt").write_text("".join(" ".join(row) + "\n" for row in part))
    files = ["train", "next-item", tmp_path / "train.txt", "--test", tmp_path / "test.txt", "--out", tmp_path / "run"]
    called = call(*files, "--width", "8", "--epochs", "2", "--at", "1,3", "--encoder", "lstm", "--quiet", "--json")
    assert called.code == 0, called.err
    model = wh.NextItem(width=8, epochs=2, at=(1, 3), encoder="lstm", quiet=True).fit(sessions[:120])
    assert model.evaluate(sessions[120:]) == pytest.approx(json.loads(called.out)["metrics"], rel=1e-6)
    loaded = wh.NextItem.load(tmp_path / "run")
    assert np.array_equal(loaded.recommend(sessions[:3], 5)[0], model.recommend(sessions[:3], 5)[0])


def test_tables_and_numbers() -> None:
    rows = [(u, 10 * ((u + t) % 7), -t) for u in range(60) for t in range(5)]
    table = polars.DataFrame(rows, schema=["session", "item", "time"], orient="row")
    model = made(wh.NextItem, epochs=12).fit(table)
    ids, _ = model.recommend([[30], [0, 60]], 1)
    assert ids.dtype.kind == "i"
    assert ids.tolist() == [[20], [50]]  # times fall
    assert model.recommend(table.head(5), 1)[0].tolist() == [[60]]
    assert model.recommend([[5]], 1)[0].tolist() == [[-1]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("sessions.txt", "Found 'sessions.txt'; read the file first"),
        ([1, 2], "Expected lists of items, one for each sequence"),
        (3, "Expected a list of lists of items, one for each sequence. Found int"),
        ([["a"], ["b"]], "expected sequences of two items or more. Found none among 2"),
        ([[]], "expected sequences of two items or more"),
        (polars.DataFrame({"item": [1]}), "expected 2 or 3 columns"),
        (np.eye(3), "Found a matrix; do matrix.tolist"),
    ],
)
def test_other_data_are_refused(data: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        made(wh.NextItem).fit(data)
    with pytest.raises(ValueError, match="`n` should be"):
        fitted(wh.NextItem).recommend([["i1"]], 0)
