"""The multi-label job by its defaults: one step of it is ridge regression on the axes of the features."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.job_files import multilabel_files

from widehead.data import LabelSchema, read_multilabel
from widehead.errors import CheckpointError
from widehead.jobs import build_network, configure
from widehead.jobs.multilabel import Multilabel
from widehead.metrics import Propensities, best_psp_at_k, psp_at_k
from widehead.models import principal_axes
from widehead.options import TrainingConfig
from widehead.runs import Run
from widehead.targets import SparseTargets
from widehead.training.checkpoint import load_checkpoint, save_checkpoint


def config(folder: Path, **options: Any) -> TrainingConfig:
    """The defaults of the job but for its sizes, which would be too much for so few texts."""
    multilabel_files(folder)
    made = {"out": str(folder / "run"), "train": str(folder / "train.txt"), "test": str(folder / "test.txt")}
    return configure("multilabel", **{**made, "width": 40, "at": (1, 2), **options})


def test_one_step_over_all_examples_is_ridge_regression(tmp_path: Path) -> None:
    chosen = config(tmp_path, batch_size=300, dtype="float64")
    data = read_multilabel(tmp_path / "train.txt")
    before = build_network(Multilabel.read(chosen).job, chosen).head.weight()
    assert Run.new(chosen).train(quiet=True).step == 1

    hidden = torch.from_numpy(data.features @ principal_axes(data.features, 40, seed=0)).double()
    labels = torch.from_numpy(data.labels.toarray()).double()
    gram = hidden.T @ hidden
    ridge = 0.15 * gram.trace() / 40
    # Least squares that is drawn to the weights before, not to zero.
    expected = torch.linalg.solve(gram + ridge * torch.eye(40), hidden.T @ labels + ridge * before.T).T
    assert torch.allclose(Run.open(tmp_path / "run").network.head.weight(), expected, atol=1e-5)


def test_the_number_of_documents_decides(tmp_path: Path) -> None:
    default = configure("multilabel", train="a", out="b")
    assert default.width == 0
    job = Multilabel.read(config(tmp_path)).job
    few, many = (Multilabel(job.schema, job.counts, n) for n in (100_000, 100_001))
    assert few.settled(default) == dataclasses.replace(default, width=512)
    assert few.settled(dataclasses.replace(default, neighbours=0)).width == 1_024
    assert Multilabel(job.schema, job.counts, 999).settled(default).width == 1_024  # too few for neighbours
    options = {"head": "sampled", "head_options": {"negatives": 1_000}}
    trained = configure("multilabel", train="a", out="b", **options)
    assert (trained.encoder_init, trained.head_optimizer, trained.encoder_optimizer) == ("random", "adagrad", "adagrad")
    assert many.settled(default) == trained
    # What the user asked for stays.
    changed = dataclasses.replace(default, epochs=2, seed=3, minimum_count=7)
    assert many.settled(changed) == dataclasses.replace(trained, epochs=2, seed=3, minimum_count=7)
    for job in (few, many):
        assert job.settled(dataclasses.replace(default, width=300)).width == 300


@pytest.mark.parametrize(("columns", "width"), [(1_024, 1_024), (1_000, 992), (100, 96), (3, 64)])
def test_the_output_layer_of_very_many_labels_is_narrower(
    columns: int, width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Multilabel.read(config(tmp_path)).job
    monkeypatch.setattr("widehead.jobs.multilabel._ROOM", columns * job.schema.num_labels)
    assert job.settled(configure("multilabel", train="a", out="b")).width == width
    assert job.settled(configure("multilabel", train="a", out="b", width=300)).width == 300


@pytest.mark.parametrize(("labels", "width"), [(131_072, 1_024), (131_073, 992), (500_000, 256), (10**7, 64)])
def test_the_output_layer_takes_half_a_gigabyte_at_most(labels: int, width: int) -> None:
    job = Multilabel(LabelSchema(5, labels), np.zeros(labels, dtype=np.int64), 10)
    assert job.settled(configure("multilabel", train="a", out="b")).width == width


@pytest.mark.parametrize(("labels", "width"), [(65_536, 1_024), (65_537, 992), (147_806, 448), (10**7, 64)])
def test_a_layer_that_is_trained_takes_a_quarter_of_a_gigabyte_at_most(labels: int, width: int) -> None:
    job = Multilabel(LabelSchema(5, labels), np.zeros(labels, dtype=np.int64), 100_001)
    made = job.settled(configure("multilabel", train="a", out="b"))
    assert (made.head, made.width) == ("sampled", width)
    assert job.settled(configure("multilabel", train="a", out="b", width=1_024)).width == 1_024


def test_a_run_knows_what_the_data_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("widehead.kinds.multilabel.MANY", 10)
    outcome = Run.new(config(tmp_path, width=0, epochs=8)).train(quiet=True)
    assert outcome.metrics["precision@1"] > 0.8
    assert Run.open(tmp_path / "run").train(quiet=True, epochs=9).epoch == 9.0
    run = Run.open(tmp_path / "run")
    assert (run.config.head, run.config.width, run.network.head.in_features) == ("sampled", 1_024, 1_024)


def test_a_pass_by_defaults_learns_what_texts_tell(tmp_path: Path) -> None:
    outcome = Run.new(config(tmp_path, batch_size=32)).train(quiet=True)
    assert outcome.metrics["precision@1"] > 0.9
    assert Run.open(tmp_path / "run").evaluate(tmp_path / "test.txt") == pytest.approx(dict(outcome.metrics), rel=1e-5)


def test_more_axes_than_the_data_have_do_no_harm(tmp_path: Path) -> None:
    outcome = Run.new(config(tmp_path, width=100, batch_size=32)).train(quiet=True)
    assert outcome.metrics["precision@1"] > 0.9
    assert not Run.open(tmp_path / "run").network.encoder.embeddings.weight[:, 72:].any()


def test_an_encoder_of_lr_0_stays_as_it_began_and_the_run_resumes(tmp_path: Path) -> None:
    Run.new(config(tmp_path, batch_size=32)).train(quiet=True)
    axes = principal_axes(read_multilabel(tmp_path / "train.txt").features, 40, seed=0)
    kept = Run.open(tmp_path / "run").network.encoder.embeddings.weight
    assert np.array_equal(kept.detach().numpy(), axes)
    assert Run.open(tmp_path / "run").train(quiet=True, epochs=2).epoch == 2.0
    assert torch.equal(Run.open(tmp_path / "run").network.encoder.embeddings.weight, kept)


def test_an_encoder_that_begins_with_axes_can_be_trained(tmp_path: Path) -> None:
    Run.new(config(tmp_path, batch_size=32, encoder_init="svd", encoder_lr=0.01)).train(quiet=True)
    axes = principal_axes(read_multilabel(tmp_path / "train.txt").features, 40, seed=0)
    moved = Run.open(tmp_path / "run").network.encoder.embeddings.weight.detach().numpy() - axes
    assert 0.0 < np.abs(moved).max() < 0.5


def test_psp_counts_labels_of_the_training_data(tmp_path: Path) -> None:
    outcome = Run.new(config(tmp_path, batch_size=32)).train(quiet=True)
    data = read_multilabel(tmp_path / "train.txt")
    test = read_multilabel(tmp_path / "test.txt", schema=data.schema)
    counts = torch.from_numpy(np.asarray(data.labels.sum(axis=0)).ravel())
    propensities = Propensities.from_counts(counts, 300)
    (tmp_path / "train.txt").unlink()
    run = Run.open(tmp_path / "run")
    rows = SparseTargets.from_lists([row.indices.tolist() for row in test.features])
    bags = SparseTargets(rows.class_ids, rows.offsets, torch.from_numpy(test.features.data))
    ranked = run.network.top_k(bags, 2)[1]
    relevant = SparseTargets.from_lists([row.indices.tolist() for row in test.labels])
    unreachable = torch.from_numpy(test.unreachable)
    found = psp_at_k(ranked, relevant, 2, propensities, unreachable).nansum()
    best = best_psp_at_k(relevant, 2, propensities, unreachable).nansum()
    assert outcome.metrics["psp@2"] == pytest.approx(float(found / best), rel=1e-6)
    assert 0.5 < outcome.metrics["psp@2"] < 1.0


def test_counts_of_other_labels_are_refused(tmp_path: Path) -> None:
    Run.new(config(tmp_path, batch_size=32)).train(quiet=True)
    path = tmp_path / "run" / "vocabularies" / "label_counts.safetensors"
    tree = load_checkpoint(path)
    path.unlink()
    save_checkpoint(path, {**tree, "counts": tree["counts"][1:]})
    with pytest.raises(CheckpointError, match=r"each of the 18 labels of labels\.json.*\(17,\)"):
        Run.open(tmp_path / "run").network  # noqa: B018


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    "lines",
    [
        ["a0\tw0 w0", "a1\t", "a2\tw2 w2", "a3\t"] * 5,  # documents without words
        ["20 3 4", *["0 0:1 1:2", "1 ", "2 2:1", "3 1:0 2:0"] * 5],  # of no features, and of some that are 0
        ["20 3 4", *["0 0:0 1:0", "1,2 1:0"] * 10],
    ],
)
def test_documents_that_say_nothing_do_no_harm(tmp_path: Path, lines: list[str], seed: int) -> None:
    (tmp_path / "words.txt").write_text("\n".join(lines) + "\n")
    files = {"train": str(tmp_path / "words.txt"), "out": str(tmp_path / "run")}
    small = {"minimum_count": 1, "batch_size": 1, "width": 4, "seed": seed, "holdout": 0.0, "at": (1,)}
    Run.new(configure("multilabel", **files, **small)).train(quiet=True)
    assert bool(torch.isfinite(Run.open(tmp_path / "run").network.head.weight()).all())
