"""Options out of range and wrong command lines: one line that says what was expected, exit code 2, nothing made."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from support.cli_runs import FILES, Called, assert_refused, call, tree

Trained = dict[str, tuple[Path, Called]]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--width", "-1"], "Option --width should be a whole number, at least 0 and below 2^31. Found -1"),
        (["--width", "0", "--encoder-init", "random"], "Option --width should be at least 1 but for"),
        (["--batch-size", "0"], "Option --batch-size should be at least 1 but for the job next-item"),
        (["--width", "wide"], "--width"),
        (["--hidden", "12,x"], "expected whole numbers with commas between them. Found '12,x'"),
        (["--hidden", "12,0"], "Option --hidden should be a list of positive whole numbers"),
        (["--dropout", "1"], "Option --dropout should be a number in [0, 1). Found 1"),
        (["--dropout", "nan"], "Option --dropout"),
        (["--input-dropout", "-0.1"], "Option --input-dropout"),
        (["--holdout", "2"], "Option --holdout"),
        (["--activation", "sine"], "Option --activation should be one of none, tanh, relu, gelu. Found 'sine'"),
        (["--loss", "mse"], "Option --loss should be one of squared-error"),
        (["--loss-options", "eps"], "expected NAME=VALUE. Found 'eps'"),
        (
            ["--loss", "squared-error", "--loss-options", "eps=1"],
            "Option --loss-options should hold what the loss squared-error takes",
        ),
        (["--loss", "spherical-softmax", "--loss-options", "eps=-1"], "eps"),
        (["--head-lr", "0"], "Option --head-lr should be a number above 0"),
        (["--head-lr", "inf"], "Option --head-lr"),
        (["--head-weight-decay", "-1"], "Option --head-weight-decay"),
        (["--head-max-grad-norm", "0"], "Option --head-max-grad-norm"),
        (["--encoder-lr", "-1"], "Option --encoder-lr"),
        (["--epochs", "0"], "Option --epochs"),
        (["--minutes", "0"], "Option --minutes"),
        (["--schedule", "sawtooth"], "Option --schedule"),
        (["--warmup-steps", "-1"], "Option --warmup-steps"),
        (["--evaluate-every", "now and then"], "Option --evaluate-every should be an interval such as"),
        (["--checkpoint-every", "0 steps"], "Option --checkpoint-every"),
        (["--at", "0"], "Option --at"),
        (["--at", ""], "Option --at"),
        (["--at", "61"], "Option --at should not exceed the number of classes, 60. Found 61"),
        (["--log-every", "0"], "Option --log-every"),
        (["--seed", "-1"], "Option --seed"),
        (["--seed", "99999999999999999999999999"], "seed"),
        (["--dtype", "float16"], "Option --dtype should be one of float32, float64"),
        (["--device", "abacus"], "abacus"),
        (["--device", "cuda:99"], "this machine has no usable device 'cuda:99'"),
        (["--width", "2000000000", "--hidden", "2000000000"], "not enough memory"),
        (["--width", "9" * 30], "Option --width should be a whole number, at least 0 and below 2^31"),
        (["--hidden", "9" * 30], "Option --hidden"),
        (["--context", "4"], "No such option: --context"),
        (["--wdith", "4"], "No such option: --wdith"),
        (["another.txt"], "another.txt"),
    ],
)
def test_options_out_of_range(options: list[str], what: str, tmp_path: Path) -> None:
    FILES["recommender"](tmp_path)
    before = tree(tmp_path)
    called = call("train", "recommender", tmp_path / "train.txt", "--out", tmp_path / "run", *options)
    assert_refused(called, what)
    assert tree(tmp_path) == before


def test_options_of_the_other_task(tmp_path: Path) -> None:
    data = ["train", "language-model", tmp_path / "train.txt", "--out", tmp_path / "run"]
    assert_refused(call(*data, "--window", "3"), "--window", "this is an option of word-embeddings")
    embeddings = [*data, "--task", "word-embeddings"]
    assert_refused(call(*embeddings, "--context", "3"), "--context", "this is an option of language-model")
    assert_refused(call(*data, "--task", "translation"), "--task", "next-word, word-embeddings", "translation")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["paint"], "No such command 'paint'"),
        (["train", "painter", "x.txt"], "the job should be one of recommender, "),
        (["train", "recommender"], "a training file is needed"),
        (["evaluate"], "RUN"),
        (["evaluate", "RUN", "--at", "0"], "Option --at"),
        (["evaluate", "RUN", "--at", "6,"], "expected whole numbers"),
        (["evaluate", "RUN", "--at", "1000"], "should not exceed the number of classes"),
        (["evaluate", "RUN", "--rank-at-most", "0"], "--rank-at-most"),
        (["evaluate", "RUN", "--device", "abacus"], "no usable device 'abacus'"),
        (["predict", "RUN"], "FILE"),
        (["predict", "RUN", "x.txt", "--top", "0"], "--top"),
        (["export", "RUN"], "--format"),
        (["export", "RUN", "--format", "pickle"], "pickle"),
        (["demo", "--epochs", "0"], "--epochs"),
        (["--loud"], "No such option: --loud"),
    ],
)
def test_wrong_command_lines(arguments: list[str], what: str, trained: Trained) -> None:
    run = str(trained["recommender"][0] / "run")
    assert_refused(call(*(run if word == "RUN" else word for word in arguments)), what)


def test_a_run_resumed_with_other_options(trained: Trained, tmp_path: Path) -> None:
    data = trained["recommender"][0]
    run = tmp_path / "run"
    shutil.copytree(data / "run", run)
    before = tree(run)
    again = ["train", "recommender", "--out", run, "--resume"]
    assert_refused(call(*again, "--width", "9"), "A resumed run may change", "'width'")
    assert_refused(call("train", "multilabel", "--out", run, "--resume"), "is of the job recommender")
    other = ["train", "recommender", tmp_path / "other.txt", "--out", run, "--resume"]
    assert_refused(call(*other), "other.txt")
    assert tree(run) == before


def test_faiss_is_asked_for_by_a_head_that_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    FILES["recommender"](tmp_path)
    head = ["--head", "retrieved", "--head-options", "index=ivf"]
    called = call("train", "recommender", tmp_path / "train.txt", "--out", tmp_path / "run", *head)
    assert_refused(called, 'pip install "widehead[retrieval]"')
    assert not (tmp_path / "run").exists()
