"""What training makes of the start of word embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.job_files import config_of

from widehead.data import CooccurrenceExamples
from widehead.jobs import configure
from widehead.jobs.judging import WordTest
from widehead.jobs.word_embeddings import WordEmbeddings
from widehead.models import word_inputs
from widehead.runs import Run


def rows_of(examples: CooccurrenceExamples) -> torch.Tensor:
    """(n, D) float64 targets of all examples."""
    assert examples.sided is not None
    return torch.from_numpy(np.vstack([examples.near.toarray(), examples.sided.toarray()])).double()


def test_training_is_the_least_squares_fit_of_all_pairs(tmp_path: Path) -> None:
    config = config_of("word-embeddings", tmp_path, head_lr=1.0, encoder_lr=0.0, epochs=1, batch_size=22, width=4)
    Run.new(config).train(quiet=True)
    run = Run.open(config.out)
    examples = WordEmbeddings.read(config).examples
    assert isinstance(examples, CooccurrenceExamples)
    hidden = run.network.encoder.state_dict()["embeddings.weight"].double()
    wanted = torch.linalg.lstsq(hidden, rows_of(examples)).solution.T
    torch.testing.assert_close(run.network.head.weight().double(), wanted, rtol=1e-4, atol=1e-5)


def some_text(folder: Path, lines: int = 400) -> Path:
    """Forty words, of which some follow others more often; no two alike, so that axes are determined."""
    rng = np.random.default_rng(3)
    chances = rng.dirichlet(np.full(40, 0.2), 40)
    text = []
    for _ in range(lines):
        line = [int(rng.integers(40))]
        for _ in range(9):
            line.append(int(rng.choice(40, p=chances[line[-1]])))
        text.append(" ".join(f"w{word}" for word in line))
    path = folder / "some.txt"
    path.write_text("\n".join(text))
    return path


@pytest.mark.parametrize("batch_size", [512, 63, 6])
def test_the_pass_in_float64_ends_at_the_joined_vectors(tmp_path: Path, batch_size: int) -> None:
    """Of 126 examples; those of a last batch that is smaller would count for more."""
    options = {"width": 6, "minimum_count": 1, "dtype": "float64", "at": (1,), "subsample": 0.05}
    options["batch_size"] = batch_size
    config = configure("word-embeddings", train=str(some_text(tmp_path)), out=str(tmp_path / "run"), **options)
    Run.new(config).train(quiet=True)
    examples = WordEmbeddings.read(config).examples
    assert isinstance(examples, CooccurrenceExamples)
    hidden = word_inputs(examples.near, examples.sided, 6, config.seed).double()
    wanted = rows_of(examples).T @ hidden @ torch.linalg.inv(hidden.T @ hidden)
    found = Run.open(config.out).network.head.weight()
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9 * float(wanted.abs().max()))


def test_what_stands_beside_words_is_counted_in_all_of_the_text(tmp_path: Path) -> None:
    """While words near one another are counted in text that is thinned."""
    made = []
    for subsample in (1.0, 0.02):
        options = {"width": 4, "minimum_count": 1, "at": (1,), "subsample": subsample}
        config = configure("word-embeddings", train=str(some_text(tmp_path)), out="none", **options)
        made.append(WordEmbeddings.read(config).examples)
    whole, thinned = made
    assert isinstance(whole, CooccurrenceExamples)
    assert isinstance(thinned, CooccurrenceExamples)
    assert (whole.sided != thinned.sided).nnz == 0
    assert (whole.near != thinned.near).nnz > 0


def test_trained_vectors_know_words_near_one_another_alone(tmp_path: Path) -> None:
    config = config_of("word-embeddings", tmp_path, preset="trained", width=4)
    data = WordEmbeddings.read(config)
    assert isinstance(data.examples, CooccurrenceExamples)
    assert data.examples.sided is None
    encoder: Any = data.job.encoder(config)
    assert len(encoder.embeddings.weight) == len(data.examples) == len(data.job.class_names)


def test_words_alone_are_judged(tmp_path: Path) -> None:
    path = str(some_text(tmp_path))
    config = configure("word-embeddings", train=path, test=path, out="none", minimum_count=1, width=4, at=(1,))
    data = WordEmbeddings.read(config)
    assert isinstance(data.test, WordTest)
    assert len(data.examples) == 3 * len(data.test.examples)


@pytest.mark.parametrize("text", ["a", "a a a", "a b", "a\n\n\nb\n", "a b c\na c b\n"])
@pytest.mark.parametrize("width", [1, 3, 384])
def test_texts_of_few_words(tmp_path: Path, text: str, width: int) -> None:
    """Fewer words than axes among them, and words that stand beside none."""
    (tmp_path / "text").write_text(text)
    options = {"width": width, "minimum_count": 1, "subsample": 1.0}
    config = configure("word-embeddings", train=str(tmp_path / "text"), out=str(tmp_path / "run"), **options)
    Run.new(config).train(quiet=True)
    run = Run.open(config.out)
    assert run.network.head.weight().shape == (len(set(text.split())) + 2, width)
    assert bool(torch.isfinite(run.network.head.weight()).all())
    assert [answer.name for answer in run.predict(["a"], 1)] == ["a"]
