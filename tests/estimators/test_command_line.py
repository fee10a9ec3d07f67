"""The command line's figures, to the last digit: a file through its door, the same data through the estimator's."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from support.cli_runs import call
from support.memory_data import DATA

import widehead as wh
from widehead.kinds import JOBS


def trained(job: str, folder: Path, *options: str) -> dict[str, float]:
    kind = JOBS[job]
    task = [] if kind.command == job else ["--task", kind.task]
    command = [
        "train",
        kind.command,
        *task,
        folder / "train.txt",
        "--test",
        folder / "test.txt",
        "--out",
        folder / "run",
    ]
    result = call(*command, "--quiet", "--json", *options)
    assert result.code == 0, result.err
    return json.loads(result.out)["metrics"]


def test_recommender(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    likes = (rng.random((90, 50)) < 0.05 + 0.5 * (np.arange(50) % 5 == np.arange(90)[:, None] % 5)).astype(int)
    likes[:, :] |= np.eye(90, 50, dtype=int)
    hidden = (rng.random(likes.shape) < 0.3) & (likes == 1) & (np.arange(50) != np.arange(90)[:, None])
    for name, rows in (("train", likes * ~hidden), ("test", likes * hidden)):
        lines = "".join(f"{u} {' '.join(map(str, np.flatnonzero(row)))}\n" for u, row in enumerate(rows))
        (tmp_path / f"{name}.txt").write_text(lines)
    expected = trained("recommender", tmp_path, "--width", "16")
    model = wh.Recommender(width=16).fit(scipy.sparse.csr_matrix(likes * ~hidden))
    assert model.evaluate(scipy.sparse.csr_matrix(likes * hidden)) == expected
    loaded = wh.Recommender.load(tmp_path / "run")
    ids, scores = loaded.recommend([3, 4], 7)
    assert np.array_equal(ids, model.recommend([3, 4], 7)[0])
    assert np.array_equal(scores, model.recommend([3, 4], 7)[1])


def test_multilabel(tmp_path: Path) -> None:
    texts, labels = DATA[wh.MultiLabel]
    for name, part in (("train", slice(0, 240)), ("test", slice(240, None))):
        lines = [f"{' '.join(row)}\t{text}\n" for text, row in zip(texts[part], labels[part], strict=True)]
        (tmp_path / f"{name}.txt").write_text("".join(lines))
    expected = trained("multilabel", tmp_path, "--width", "10")
    model = wh.MultiLabel(width=10, holdout=0.0).fit(texts[:240], labels[:240])
    assert model.evaluate((texts[240:], labels[240:])) == expected


def test_word_vectors(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sentences = [[f"w{min(39, int(w))}" for w in rng.zipf(1.3, 12)] for _ in range(300)]
    for name, part in (("train", sentences[:250]), ("test", sentences[250:])):
        (tmp_path / f"{name}.txt").write_text("".join(" ".join(words) + "\n" for words in part))
    expected = trained("word-embeddings", tmp_path, "--width", "6", "--subsample", "1")
    model = wh.WordVectors(sentences[:250], width=6, subsample=1.0)
    assert model.evaluate(sentences[250:]) == expected


@pytest.mark.slow
def test_gowalla(tmp_path: Path) -> None:
    root = Path(os.environ.get("WIDEHEAD_DATA", "no such folder"), "recommender", "gowalla")
    if not root.exists():
        pytest.skip("gowalla is not here; set WIDEHEAD_DATA to the folder of data sets")
    for name in ("train.txt", "test.txt"):
        (tmp_path / name).symlink_to(root / name)
    train, test = (_matrix(root / name) for name in ("train.txt", "test.txt"))
    test.resize(train.shape)
    expected = trained("recommender", tmp_path)
    assert wh.Recommender().fit(train).evaluate(test) == expected
    assert expected["recall@20"] > 0.185


def _matrix(path: Path) -> Any:
    rows = [list(map(int, line.split())) for line in path.read_text().splitlines()]
    users = np.repeat([row[0] for row in rows], [len(row) - 1 for row in rows])
    items = np.concatenate([row[1:] for row in rows]).astype(int)
    return scipy.sparse.csr_matrix((np.ones(len(items)), (users, items)))
