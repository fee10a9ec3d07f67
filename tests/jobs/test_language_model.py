"""Language models of sequences: every word is predicted and judged once, and lines are answered by their last words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.job_files import config_of

from widehead.data import END
from widehead.jobs import configure
from widehead.runs import Run

KINDS = ("gru", "lstm", "transformer", "bag")


def trained(folder: Path, encoder: str, **options: Any) -> Run:
    small = {"context": 8, "batch_size": 8, "epochs": 4, "encoder": encoder, "head_lr": None, "encoder_lr": 0.01}
    run = Run.new(config_of("language-model", folder, **{**small, **options}))
    run.train(quiet=True)
    return run


@pytest.mark.parametrize("encoder", KINDS)
def test_each_encoder_learns_what_follows(encoder: str, tmp_path: Path) -> None:
    """The circle of words tells all but where a line starts, one word in sixteen, of twenty, and ends."""
    run = trained(tmp_path, encoder)
    found = run.evaluate(tmp_path / "test.txt")
    assert 20 ** (1 / 16) < found["perplexity"] < (12.0 if encoder == "bag" else 2.0)
    assert found["recall@1"] > (0.1 if encoder == "bag" else 0.7)
    again = Run.open(tmp_path / "run").evaluate(tmp_path / "test.txt")
    assert again == pytest.approx(found, rel=1e-6)


def test_words_are_trained_and_judged_once(tmp_path: Path) -> None:
    run = trained(tmp_path, "gru", epochs=1)
    job, words = run.job, run.data.job.words  # type: ignore[attr-defined]
    text = np.random.default_rng(0).integers(0, len(words), 101)
    train, test = job.examples(text), job.judged_part(len(text)).made(text)  # type: ignore[attr-defined]
    for examples in (train, test):
        inputs, targets = examples.batch(np.arange(len(examples)))
        assert targets.class_ids.tolist() == text.tolist()
        assert int(inputs.counts.max()) == 8
    asked = test.batch(np.arange(len(test)))[0]
    assert asked.values is not None
    before = np.cumsum([0, *asked.values.tolist()])
    assert asked.to_lists()[0] == [words.id(END), *text[:3]]
    assert all(len(row) == 8 for row in asked.to_lists()[2:-1])
    assert before[-1] == 101


def test_lines_are_answered_by_their_last_words(tmp_path: Path) -> None:
    run = trained(tmp_path, "lstm")
    asked = ["w3 w4 w5", "", "unheard", "w18", " ".join(f"w{i % 20}" for i in range(14)), "unheard w7 w8"]
    answers = list(run.predict(asked, 1))
    assert [answer.classes for answer in answers] == [["w6"], [], [], ["w19"], ["w14"], ["w9"]]
    for line, answer in zip(asked, answers, strict=True):
        assert next(run.predict([line], 1)).classes == answer.classes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tied": True, "head": "sampled"}, "`tied` should be left out with the encoder ngram. Found True"),
        ({"hidden_norm": 16.0}, "`hidden_norm` should be left out"),
        ({"input_dropout": 0.1}, "`input_dropout` should be left out"),
        ({"layers": 2}, "`layers` should be 1 with the encoder ngram, which takes hidden. Found 2"),
        ({"layers": 2, "encoder": "bag"}, "`layers` should be 1 with the encoder bag"),
        ({"hidden": (8,), "encoder": "lstm"}, r"`hidden` should be empty with the encoder lstm.*Found \[8\]"),
        ({"activation": "tanh", "encoder": "transformer"}, "`activation` should be none with the encoder transformer"),
        ({"embedding": 300, "encoder": "gru"}, "`embedding` should be left out with tied embeddings.*Found 300"),
    ],
)
def test_options_that_an_encoder_has_no_use_for_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        configure("language-model", train="f", out="o", **options)
    used = {"embedding": 300, "hidden": (8,), "activation": "tanh", "encoder": "bag", "tied": False, "hidden_norm": 1.0}
    assert configure("language-model", train="f", out="o", **used).embedding == 300


@pytest.mark.parametrize(
    ("options", "preset"),
    [
        ({"encoder": "lstm"}, "places"),
        ({"encoder": "ngram"}, "sampled"),
        ({"encoder": "gru", "head": "full"}, "places"),
        ({"encoder": "gru", "head": "exact"}, "places-exact"),
        ({"encoder": "bag", "loss": "z-loss"}, "places-exact"),
        ({"head": "exact"}, "exact"),
    ],
)
def test_an_encoder_brings_its_defaults(options: dict[str, Any], preset: str) -> None:
    config = configure("language-model", train="f", out="o", **options)
    assert config.preset == preset
    if preset.startswith("places"):
        assert configure("language-model", train="f", out="o", preset=preset).encoder == "lstm"
    assert config.tied == (preset == "places")
    assert (config.context == 64) == preset.startswith("places")
