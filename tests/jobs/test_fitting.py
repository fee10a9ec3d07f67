"""Data that do not fit: test files, options and ratings. What is left out is counted aloud; nobody left is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
from support.cli_runs import assert_refused, call, tree
from support.job_files import config_of

from widehead.errors import DataError
from widehead.jobs import JOBS, JobData, configure
from widehead.jobs.judging import RankingTest


def read(folder: Path, job: str, train: str | bytes, test: str | None = None, **options: Any) -> JobData:
    (folder / "train").write_bytes(train if isinstance(train, bytes) else train.encode())
    if test is not None:
        (folder / "test").write_text(test)
        options["test"] = str(folder / "test")
    config = configure(job, train=str(folder / "train"), out=str(folder / "run"), **options)
    return JOBS[job].read(config)


def judged(data: JobData) -> tuple[list[int], str]:
    """How many items are to be found for each example, and what is said of the test file unless it fits."""
    test = data.test
    assert isinstance(test, RankingTest)
    _, relevant = test.examples.batch(np.arange(len(test.examples)))
    return (relevant.counts + test.unreachable).tolist(), "" if test.fits else test.reading


TRAIN = "u1 a b c\nu2 a b d\n"


@pytest.mark.parametrize(
    ("test", "counts", "said"),
    [
        ("u1 d\n", [1], ""),
        ("u1 d a b\nu2 c\n", [1, 1], "2 pairs are in both files (left out)."),
        ("u1 d\nu2 a\n", [1], "1 pairs are in both files (left out)."),
        ("u1 d\nnew a\nU2 a\n", [1], "2 users (left out)"),
        ("u1 d x y\nu2 x\n", [3, 1], "2 items (3 pairs count as missed)"),
        ("u1 d d\n", [1], "1 test pairs are repeats"),
        ("u1,d,0\nu1,a,0\n", [1], "1 pairs are in both files (left out)."),
    ],
)
def test_pairs_that_do_not_fit_are_left_out_and_counted(
    tmp_path: Path, test: str, counts: list[int], said: str
) -> None:
    found, reading = judged(read(tmp_path, "recommender", TRAIN, test))
    assert found == counts
    assert said in reading
    assert bool(said) == bool(reading)


@pytest.mark.parametrize("test", ["u1 a b\n", "U1 d\n", TRAIN, "1.0,d\n2.0,c\n"])
def test_nobody_left_is_an_error(tmp_path: Path, test: str) -> None:
    with pytest.raises(DataError, match=r"expected users of the training data, such as u1, u2, with new items\. Found"):
        read(tmp_path, "recommender", TRAIN, test)


def test_pairs_of_training_in_the_test_file_change_no_figure(tmp_path: Path) -> None:
    """The same test file with and without the training lines; said by `train` and by `evaluate`."""
    config_of("recommender", tmp_path)
    clean, mixed = tmp_path / "test.txt", tmp_path / "mixed.txt"
    mixed.write_text(clean.read_text() + (tmp_path / "train.txt").read_text() + "stranger i1\nu0 i59x\n")
    options = ["--out", tmp_path / "run", "--width", "8", "--at", "6"]
    trained = call("train", "recommender", tmp_path / "train.txt", "--test", mixed, *options)
    assert "Read train.txt: 100 users × 60 items, 600 pairs, no ratings; first users u0, u1, u2; " in trained.err
    said = (
        "Read mixed.txt: 100 users × 60 items; 600 training and 900 test pairs. In the test file alone: 1 users "
        "(left out) and 1 items (1 pairs count as missed). 600 pairs are in both files (left out). 0 test pairs "
        "are repeats.\n"
    )
    assert said in trained.err
    assert call("evaluate", tmp_path / "run", "--json").err == said
    mixed.write_text(clean.read_text() + (tmp_path / "train.txt").read_text())
    both = [call("evaluate", tmp_path / "run", "--test", path, "--json") for path in (clean, mixed)]
    assert both[0].out == both[1].out
    assert (both[0].err, "600 pairs are in both files" in both[1].err) == ("", True)
    refused = call("evaluate", tmp_path / "run", "--test", tmp_path / "train.txt")
    assert_refused(refused, "train.txt: expected users of the training data, such as u0, u1, u2, with new items")


def test_quiet_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "train").write_text(TRAIN)
    (tmp_path / "test").write_text("u1 d x\n")
    files = [tmp_path / "train", "--test", tmp_path / "test", "--out", tmp_path / "run"]
    assert call("train", "recommender", *files, "--width", "2", "--at", "1", "--quiet", "--json").err == ""


def test_documents_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    train = "a b\tx y\na\tx z\nb\ty\n"
    counts, said = judged(read(tmp_path, "multilabel", train, "a q q\tx\n\tx\nb\tunheard\n", minimum_count=1))
    assert counts == [2, 1]
    assert said == (
        "3 documents to judge by, with 3 labels; 1 of these are not in the training data and count as missed. "
        "1 documents have no label (left out), 1 no known feature."
    )
    assert judged(read(tmp_path, "multilabel", train, "a\ty\n", minimum_count=1)) == ([1], "")
    with pytest.raises(DataError, match=r"test: expected documents with labels. Found none"):
        read(tmp_path, "multilabel", train, "\tx\n", minimum_count=1)


def test_unknown_words_of_a_test_file_are_counted(tmp_path: Path) -> None:
    train = "w1 w2 w3 w1\n" * 5
    test = read(tmp_path, "language-model", train, "w1 q w2\n", minimum_count=1).test
    assert test is not None
    assert (test.reading, test.fits) == ("3 words to judge by, of which 1 are unknown.", False)
    fitting = read(tmp_path, "language-model", train, "w1 w2\n", minimum_count=1).test
    assert fitting is not None
    assert fitting.fits
    with pytest.raises(DataError, match=r"test: expected words of the training data. Found none among 2."):
        read(tmp_path, "word-embeddings", train, "q r\n", minimum_count=1)


def test_a_holdout_that_holds_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Option `holdout` should be 0, as no user has two items. Found 0.3"):
        read(tmp_path, "recommender", "u1 a\nu2 b\nu3 a\n", holdout=0.3)
    assert judged(read(tmp_path, "recommender", "u1 a b\nu2 b\n", holdout=0.3))[0] == [1]
    with pytest.raises(ValueError, match=r"Option `holdout` should hold out at least one of 3 documents. Found 0.1"):
        read(tmp_path, "multilabel", "a\tx\nb\tx\na\tx\n", holdout=0.1)


def _parquet(folder: Path) -> bytes:
    polars.DataFrame({"userId": ["u"], "asin": ["a"], "plays_2024": [3]}).write_parquet(folder / "made")
    return (folder / "made").read_bytes()


@pytest.mark.parametrize(
    ("train", "found"),
    [
        ("user_id,track_id,play_count\nu,a,5\n", "user_id, track_id, play_count"),
        ("userId\tbook\nu\ta\n", "userId, book"),
        ("u,a\nv,b\n", "2 columns without a header"),
        ("u a 5\nv b 3\n", "lists of items, which have none"),
        (None, "userId, asin, plays_2024"),
    ],
)
def test_ratings_that_are_not_there(tmp_path: Path, train: str | None, found: str) -> None:
    (tmp_path / "train").write_bytes(_parquet(tmp_path) if train is None else train.encode())
    before = tree(tmp_path)
    called = call("train", "recommender", tmp_path / "train", "--ratings", "--out", tmp_path / "run")
    assert_refused(called, f"--ratings needs a column of ratings (rating, score, …). Found {found}.")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("users", [3, 1_001])
def test_ratings_that_are_all_zero(tmp_path: Path, users: int) -> None:
    """Where a small network is tried before the run, too."""
    rows = (f"u{u},{item},0\n" for u in range(users) for item in "abc")
    (tmp_path / "train.csv").write_text("user,item,rating\n" + "".join(rows))
    before = tree(tmp_path)
    called = call("train", "recommender", tmp_path / "train.csv", "--ratings", "--quiet", "--out", tmp_path / "run")
    assert_refused(called, "Expected ratings of which some are not 0, to make an encoder from. Found 0 for all pairs.")
    assert tree(tmp_path) == before


def test_ratings_that_are_there(tmp_path: Path) -> None:
    rated = read(tmp_path, "recommender", "u,a,5\nv,b,4\n", ratings=True)
    assert "2 pairs, ratings 4 to 5; " in rated.reading
    assert "--ratings" not in rated.reading
    assert read(tmp_path, "recommender", "u,a,5\nv,b,4\n").reading.endswith("; ratings count with --ratings only")


def test_old_mac_line_ends_are_line_ends(tmp_path: Path) -> None:
    lists = read(tmp_path, "recommender", b"ann fox hen\rbob hen cow\r").reading
    assert lists.startswith("2 users × 3 items, 4 pairs, no ratings; first users ann, bob; first items hen, cow, fox")
    table = read(tmp_path, "recommender", b"user,item\rann,fox\nbob,hen\r\r\nbob,fox").reading
    assert table.startswith("2 users × 2 items, 3 pairs, no ratings")
    documents = read(tmp_path, "multilabel", b"a\tx y\rb\tz\r", minimum_count=1)
    assert documents.reading.startswith("2 documents, 3 words, 2 labels")
    text = read(tmp_path, "language-model", b"the fox\rthe hen\r", minimum_count=1)
    assert text.reading == (
        "4 words on 2 lines, 3 different ones; 0 are rarer than --minimum-count 1 (unknown); first words the, fox, "
        "hen; none are held out, as there are too few"
    )
