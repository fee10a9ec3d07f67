"""Training data in memory: the same run as from a file of the same content, and how it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
import torch
from support.cli_runs import assert_refused, call
from support.job_files import config_of

import widehead as wh
from widehead.data import read_interactions, read_multilabel
from widehead.errors import CheckpointError, DataError
from widehead.jobs import configure
from widehead.training.checkpoint import load_checkpoint


def in_memory(job: str, folder: Path) -> list[Any]:
    """The training file of a job as data in memory, in the forms that have all that it has."""
    path = folder / "train.txt"
    lines = path.read_text().splitlines()
    if job == "recommender":
        pairs = [(u, item) for u, *items in map(str.split, lines) for item in items]
        return [polars.DataFrame(pairs, schema=["user", "item"], orient="row")]
    if job == "multilabel":
        texts, labels = [line.partition("\t")[2] for line in lines], [line.split("\t")[0].split() for line in lines]
        return [(texts, labels), (np.array(texts), [np.array(row) for row in labels])]
    return [lines, [line.split() for line in lines]]


def weights(run: wh.Run) -> dict[str, torch.Tensor]:
    tree = load_checkpoint(run.folder.last_checkpoint)
    return {f"{part}.{k}": v for part in ("encoder", "head") for k, v in tree[part].items() if torch.is_tensor(v)}


@pytest.mark.parametrize("job", ["recommender", "multilabel", "language-model", "word-embeddings"])
@pytest.mark.parametrize("holdout", [0.0, 0.2])
def test_the_same_run_as_from_a_file(tmp_path: Path, job: str, holdout: float) -> None:
    options: dict[str, Any] = {"epochs": 2, "test": None, "holdout": holdout}
    expected = wh.Run.new(config_of(job, tmp_path, **options))
    outcome = expected.train(quiet=True)
    for n, data in enumerate(in_memory(job, tmp_path)):
        run = wh.Run.new(config_of(job, tmp_path, **options, train=None, out=str(tmp_path / f"run{n}")), data)
        assert run.train(quiet=True).metrics == outcome.metrics
        assert json.loads(run.folder.config_path.read_text())["train"] is None
        found, known = weights(run), weights(expected)
        assert all(torch.equal(found[name], known[name]) for name in known)
        assert run.evaluate(tmp_path / "test.txt") == expected.evaluate(tmp_path / "test.txt")


def test_matrices_are_their_files(tmp_path: Path) -> None:
    """Of items and users, or features and labels, that are called by their numbers."""
    rng = np.random.default_rng(0)
    ones = (rng.random((80, 40)) < 0.3).astype(int)
    ones[:, 0] = 1
    (tmp_path / "lists.txt").write_text(
        "".join(f"{u} {' '.join(map(str, np.flatnonzero(row)))}\n" for u, row in enumerate(ones))
    )
    matrix = read_interactions(tmp_path / "lists.txt").matrix
    rows = [
        f"{','.join(map(str, np.flatnonzero(row[:8])))} {' '.join(f'{f}:1' for f in np.flatnonzero(row))}"
        for row in ones
    ]
    (tmp_path / "xc.txt").write_text("80 40 8\n" + "\n".join(rows) + "\n")
    documents = read_multilabel(tmp_path / "xc.txt")
    for job, name, data in [
        ("recommender", "lists.txt", matrix),
        ("recommender", "lists.txt", ones),
        ("multilabel", "xc.txt", (documents.features, documents.labels)),
        ("multilabel", "xc.txt", (ones, ones[:, :8])),
    ]:
        shared = {"width": 16, "epochs": 1, "at": (3,)}
        runs = []
        for train in (str(tmp_path / name), None):
            out = str(tmp_path / f"run{len(list(tmp_path.iterdir()))}")
            run = wh.Run.new(configure(job, train=train, out=out, **shared), None if train else data)
            run.train(quiet=True)
            runs.append(run)
        one, two = map(weights, runs)
        assert all(torch.equal(one[part], two[part]) for part in one)
        assert runs[0].job.class_names == runs[1].job.class_names


def test_it_goes_on_with_the_data_given_again_or_kept(tmp_path: Path) -> None:
    for job in ("recommender", "multilabel"):
        (tmp_path / job).mkdir()
        config = config_of(job, tmp_path / job, epochs=1, train=None, test=None, schedule="constant")
        data = in_memory(job, tmp_path / job)[0]
        more: dict[str, Any] = {"test": None, "schedule": "constant", "out": str(tmp_path / job / "whole")}
        whole = wh.Run.new(config_of(job, tmp_path / job, epochs=2, **more))
        whole.train(quiet=True)
        wh.Run.new(config, data).train(quiet=True)
        if job == "recommender":  # whose folder holds the pairs
            call("train", job, "--out", config.out, "--resume", "--epochs", "2", "--quiet")
        else:
            with pytest.raises(CheckpointError, match=r"data in memory, which its folder does not hold.*Run\.open"):
                wh.Run.open(config.out).train(quiet=True, epochs=2)
            result = call("train", job, "--out", config.out, "--resume", "--epochs", "2", "--quiet")
            assert_refused(result, "was trained on data in memory")
            wh.Run.open(config.out, data=data).train(quiet=True, epochs=2)
        one, two = weights(wh.Run.open(config.out)), weights(whole)
        assert all(torch.equal(one[part], two[part]) for part in one)


def test_other_data_are_noticed(tmp_path: Path) -> None:
    config = config_of("multilabel", tmp_path, epochs=1, train=None, test=None)
    texts, labels = in_memory("multilabel", tmp_path)[0]
    wh.Run.new(config, (texts, labels)).train(quiet=True)
    with pytest.raises(CheckpointError, match="data changed"):
        wh.Run.open(config.out, data=(texts[:-1], labels[:-1])).train(quiet=True, epochs=2)


@pytest.mark.parametrize(
    ("job", "data", "message"),
    [
        ("recommender", np.zeros((3, 4)), "pairs of users and items. Found none"),
        ("recommender", [["a"], "b"], "lists of items"),
        ("multilabel", (["a b"], [["x"], ["y"]]), "labels of 1 documents. Found those of 2"),
        ("multilabel", (np.ones((2, 3)), np.full((2, 2), 2)), "zeros and ones for the labels"),
        ("multilabel", (np.ones((2, 3)), [[0, 1, 0], [1, 1, 0]]), "Found lists of zeros and ones"),
        ("multilabel", (["", ""], [["x"], ["y"]]), "Found no word"),
        ("multilabel", ([1, 2], [["x"], ["y"]]), "Expected texts"),
        ("word-embeddings", ["...", ""], "expected words"),
        ("word-embeddings", [["a", 1]], "lists of words"),
    ],
)
def test_data_that_do_not_fit_leave_nothing(tmp_path: Path, job: str, data: Any, message: str) -> None:
    config = configure(job, out=str(tmp_path / "run"))
    with pytest.raises(DataError, match=message):
        wh.Run.new(config, data)
    assert not (tmp_path / "run").exists()


def test_there_is_one_source_of_data(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`train` should be a file, or data in memory be given. Found neither"):
        wh.Run.new(configure("recommender", out=str(tmp_path / "run")))
    with pytest.raises(ValueError, match="Found both"):
        wh.Run.new(config_of("recommender", tmp_path), [["a", "b"]])
    with pytest.raises(ValueError, match=r"no data for the job demo, which brings its own. Found list"):
        wh.Run.new(configure("demo", out=str(tmp_path / "run")), [["a", "b"]])
    with pytest.raises(DataError, match="Expected a pair, documents and their labels"):
        wh.Run.new(configure("multilabel", out=str(tmp_path / "run")), np.ones((2, 3)))


def test_ratings_count_if_they_should(tmp_path: Path) -> None:
    ratings = np.array([[5, 1, 0], [0, 2, 4], [3, 3, 1]] * 10)
    small = {"width": 2, "at": (1,)}
    runs = [
        wh.Run.new(configure("recommender", out=str(tmp_path / f"r{on}"), ratings=on, **small), ratings)
        for on in (False, True)
    ]
    for run in runs:
        run.train(quiet=True)
    assert not torch.equal(*(run.network.head.weight() for run in runs))
    with pytest.raises(DataError, match="--ratings needs a column of ratings"):
        wh.Run.new(configure("recommender", out=str(tmp_path / "no"), ratings=True, **small), [["a", "b"], ["a"]])


def test_ratings_are_in_the_folder_too(tmp_path: Path) -> None:
    ratings = np.array([[5, 1, 0], [0, 2, 4], [3, 3, 1]] * 10)
    options: dict[str, Any] = {"ratings": True, "width": 2, "at": (1,), "encoder_lr": 0.01, "schedule": "constant"}
    runs = []
    for name, epochs in (("parts", 1), ("whole", 2)):
        runs.append(wh.Run.new(configure("recommender", out=str(tmp_path / name), epochs=epochs, **options), ratings))
        runs[-1].train(quiet=True)
    wh.Run.open(tmp_path / "parts").train(quiet=True, epochs=2)
    one, two = map(weights, runs)
    assert all(torch.equal(one[part], two[part]) for part in one)
    held = configure("recommender", out=str(tmp_path / "held"), epochs=1, holdout=0.3, **options)
    wh.Run.new(held, ratings).train(quiet=True)
    with pytest.raises(CheckpointError, match="data in memory"):  # what was held out is nowhere
        wh.Run.open(tmp_path / "held").train(quiet=True, epochs=2)


def test_cutoffs_that_nobody_asked_for_fit_the_classes(tmp_path: Path) -> None:
    (tmp_path / "few.txt").write_text("".join(f"u{n} i{n % 5} i{(n + 1) % 5}\n" for n in range(20)))
    files: dict[str, Any] = {"train": str(tmp_path / "few.txt"), "width": 2}
    assert wh.Run.new(configure("recommender", out=str(tmp_path / "a"), **files)).config.at == (5,)
    with pytest.raises(ValueError, match=r"number of classes, 5. Found 6"):
        wh.Run.new(configure("recommender", out=str(tmp_path / "b"), at=(2, 6), **files))
    texts = ["a b", "b c", "c a"] * 4
    assert wh.Run.new(configure("multilabel", out=str(tmp_path / "c")), (texts, ["x", "y", "z"] * 4)).config.at == (
        1,
        3,
    )


def test_the_log_is_told_and_may_end_the_training(tmp_path: Path) -> None:
    told: list[dict[str, Any]] = []

    def on_log(network: Any, record: dict[str, Any]) -> bool:
        assert isinstance(network.head, wh.ExactHead)
        told.append(record)
        return record["kind"] == "evaluation" and record["epoch"] == 3.0

    run = wh.Run.new(config_of("recommender", tmp_path, epochs=10, evaluate_every="1 epoch"))
    outcome = run.train(quiet=True, on_log=on_log)
    assert (outcome.status, outcome.epoch) == ("finished", 3.0)
    assert told == [json.loads(line) for line in run.folder.metrics_path.read_text().splitlines()]
    assert wh.Run.open(run.folder.path).step == outcome.step
    assert run.train(quiet=True).epoch == 10.0  # it goes on to its limit
