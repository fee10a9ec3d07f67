"""Every head in real runs: it learns, its folder alone is enough to use it, and it goes on from a checkpoint."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from support.job_files import config_of

from widehead.data import RowExamples
from widehead.data.sparse import csr_from_pairs
from widehead.errors import DataError
from widehead.jobs import configure
from widehead.jobs.network import class_frequencies
from widehead.names import HEADS
from widehead.options import TrainingConfig
from widehead.options.heads import head_parameters, needs_frequencies
from widehead.report import write_report
from widehead.runs import Run
from widehead.training import read_metrics
from widehead.training.checkpoint import load_checkpoint

OTHERS = [name for name in HEADS if name != "exact"]
# Small numbers of negatives, so that estimators are estimators on 60 classes.
OPTIONS = {
    "sampled": {"negatives": 20},
    "noise-contrastive": {"negatives": 20},
    "blackout": {"negatives": 20},
    "retrieved": {"retrieved": 4, "tail": 4},
    "adaptive": {"div_value": 1.0},  # narrower clusters could not tell 20 words apart
}
LR = {"head_lr": 0.05, "encoder_lr": 0.02}


def config(job: str, head: str, folder: Path, **options: object) -> TrainingConfig:
    own = {"head": head, "head_options": OPTIONS.get(head, {}), "head_damping": None, **LR}
    if job != "recommender":
        own["epochs"] = 20 if job == "multilabel" else 6
    return config_of(job, folder, **{**own, **options})


@pytest.mark.parametrize(
    ("job", "metric", "least"),
    [("recommender", "recall@6", 0.8), ("language-model", "recall@1", 0.8), ("multilabel", "precision@1", 0.8)],
)
@pytest.mark.parametrize("head", OTHERS)
def test_every_head_learns_every_job(head: str, job: str, metric: str, least: float, tmp_path: Path) -> None:
    outcome = Run.new(config(job, head, tmp_path)).train(quiet=True)
    assert outcome.metrics[metric] >= least
    run = Run.open(tmp_path / "run")
    assert run.evaluate(tmp_path / "test.txt") == pytest.approx(dict(outcome.metrics), rel=1e-4)
    if job == "language-model":
        assert ("perplexity" in outcome.metrics) == (head != "negative-sampling")


@pytest.mark.parametrize("head", OTHERS)
@pytest.mark.parametrize("optimizer", ["adam", "adagrad"])
def test_runs_of_every_head_go_on_from_their_checkpoint(head: str, optimizer: str, tmp_path: Path) -> None:
    """To the bit, except where an index is built anew."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    settings = {"head_optimizer": optimizer, "epochs": 4, "head_max_grad_norm": 1.0, "schedule": "constant"}
    Run.new(config("recommender", head, tmp_path / "a", **settings)).train(quiet=True)
    Run.new(config("recommender", head, tmp_path / "b", **{**settings, "epochs": 2})).train(quiet=True)
    Run.open(tmp_path / "b" / "run").train(quiet=True, epochs=4)
    one, two = (load_checkpoint(tmp_path / n / "run" / "checkpoints" / "last.safetensors")["head"] for n in "ab")
    assert set(one) == set(two)
    if head != "retrieved":
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_noise_of_the_retrieved_head_is_logged(tmp_path: Path) -> None:
    Run.new(config("recommender", "retrieved", tmp_path, epochs=2, log_every=5)).train(quiet=True)
    found = [r["relative_std"] for r in read_metrics(tmp_path / "run" / "metrics.jsonl") if r["kind"] == "train"]
    assert len(found) >= 2
    assert all(0.0 < value < 10.0 for value in found)
    assert "Relative deviation" in write_report(tmp_path / "run").read_text()


def test_frequencies_are_counted_and_kept(tmp_path: Path) -> None:
    matrix = csr_from_pairs([0, 0, 1, 2], [1, 3, 1, 1], None, (3, 5))
    assert class_frequencies(RowExamples(matrix), 5).tolist() == [0.0, 3.0, 0.0, 1.0, 0.0]
    Run.new(config("recommender", "negative-sampling", tmp_path, epochs=1)).train(quiet=True)
    kept = tmp_path / "run" / "vocabularies" / "frequencies.safetensors"
    assert int(load_checkpoint(kept)["frequencies"].sum()) == 600  # 100 users with 6 items each


@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
def test_frequencies_are_counted_a_chunk_at_a_time(chunk: int) -> None:
    matrix = csr_from_pairs([0, 0, 1, 2, 4], [1, 3, 1, 1, 0], None, (5, 5))
    assert class_frequencies(RowExamples(matrix), 5, chunk).tolist() == [1.0, 3.0, 0.0, 1.0, 0.0]


def test_heads_that_need_frequencies() -> None:
    without = {"exact", "full", "retrieved"}
    assert {head for head in HEADS if not needs_frequencies(head, {})} == without
    assert not any("frequencies" in head_parameters(head) for head in HEADS)
    samplers = ["log-uniform", "uniform", "quadratic", "unigram", "in-batch"]
    drawn = [needs_frequencies("sampled", {"sampler": sampler}) for sampler in samplers]
    assert drawn == [False, False, False, True, True]
    assert not needs_frequencies("full", {"sampler": "unigram"})


def test_the_gradient_of_other_heads_is_clipped(tmp_path: Path) -> None:
    """With Adagrad's first step of lr·g/|g| a limit cannot be seen, so look at the sum of squares it keeps."""
    sums = []
    for name, limit in (("free", None), ("clipped", 1e-3)):
        (tmp_path / name).mkdir()
        options = {"head_optimizer": "adagrad", "epochs": 1, "batch_size": 100, "head_max_grad_norm": limit}
        Run.new(config("recommender", "full", tmp_path / name, **options)).train(quiet=True)
        tree = load_checkpoint(tmp_path / name / "run" / "checkpoints" / "last.safetensors")
        sums.append(float(tree["head_optimizer"]["state"][0]["sum"].sum()))
    assert sums[0] > 1e-4
    assert sums[1] == pytest.approx(1e-6, rel=1e-3)


def options(**given: object) -> TrainingConfig:
    return configure("recommender", train="x", out="y", **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"head": "dense"}, "`head` should be one of exact, full"),
        ({"head": "full", "loss": "z-loss"}, "`loss` should come with the head exact"),
        ({"head": "full", "head_optimizer": "newton"}, "`head_optimizer` should be one of adam, adagrad"),
        ({"head_optimizer": "adam"}, "`head_optimizer` should be one of sgd, newton"),
        ({"head": "sampled", "head_options": {"negative": 3}}, "what the head sampled takes: negatives"),
        ({"head": "full", "head_options": {"bias": 1}}, "takes: nothing. Found 'bias'"),
        ({"head": "full", "head_weight_decay": 0.1}, "`head_weight_decay` should come with head_optimizer sgd"),
        ({"head": "full", "head_momentum": 0.9}, "`head_momentum` should come with head_optimizer sgd"),
        ({"head_optimizer": "sgd", "head_damping": 0.0}, "`head_damping` should come with head_optimizer newton"),
        ({"head": "full", "loss_options": {"eps": 1.0}}, "`loss_options` should come with a loss"),
    ],
)
def test_options_that_do_not_go_together_are_named(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        options(**given)


def test_defaults_measured_with_the_exact_head_are_its_own() -> None:
    made = options(head="full")
    assert (made.loss, made.loss_options, made.head_optimizer, made.head_lr) == (None, {}, "adam", None)
    assert TrainingConfig.from_json(made.to_json()) == dataclasses.replace(made)
    assert set(head_parameters("full")) == set()


def test_heads_that_are_no_linear_layer_are_not_exported(tmp_path: Path) -> None:
    Run.new(config("recommender", "hierarchical", tmp_path, epochs=1)).train(quiet=True)
    with pytest.raises(DataError, match="Found the head hierarchical"):
        Run.open(tmp_path / "run").export("word2vec", tmp_path / "words.txt")
    Run.new(config("recommender", "sampled", tmp_path, epochs=1, out=str(tmp_path / "other"))).train(quiet=True)
    run = Run.open(tmp_path / "other")
    run.export("torch", tmp_path / "head.pt")
    written = torch.load(tmp_path / "head.pt", weights_only=True)
    assert np.array_equal(written["head.weight"].numpy(), run.network.head.weight().numpy())
