"""The recommender's own start: singular vectors in the encoder, and the least-squares output layer in one pass."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

from widehead.data import Batches, Interactions, Vocabulary
from widehead.jobs import build_network, configure
from widehead.jobs.recommender import Recommender, factors, scaled
from widehead.jobs.widths import affordable_width
from widehead.options import TrainingConfig
from widehead.runs import Run
from widehead.runs.onnx_file import BestOfBags
from widehead.targets import SparseTargets


def files(folder: Path) -> dict[str, Any]:
    """150 users with 5 to 20 of 60 items, those of their group more often than others."""
    rng = np.random.default_rng(0)
    lines = []
    for u in range(150):
        p = np.where(np.arange(60) % 5 == u % 5, 8.0, 1.0)
        lines.append([f"u{u}", *(f"i{i}" for i in rng.choice(60, rng.integers(5, 20), replace=False, p=p / p.sum()))])
    (folder / "train.txt").write_text("".join(" ".join(line[:-2]) + "\n" for line in lines))
    (folder / "test.txt").write_text("".join(" ".join([line[0], *line[-2:]]) + "\n" for line in lines))
    return {part: str(folder / f"{part}.txt") for part in ("train", "test")}


def config_of(folder: Path, **options: Any) -> TrainingConfig:
    small = {**files(folder), "out": str(folder / "run"), "width": 12, "batch_size": 16, "at": (10,)}
    return configure("recommender", **{**small, **options})


def rows_of(matrix: Any) -> np.ndarray:
    """(users, items) each row divided by its norm: what the encoder sums up."""
    dense = matrix.toarray().astype(np.float64)
    return dense / np.linalg.norm(dense, axis=1, keepdims=True)


def test_encodings_are_the_left_singular_vectors_each_user_with_a_factor(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    data = Recommender.read(config)
    job = data.job
    network = build_network(job, config)
    job.start(network.encoder, data.examples, config)
    table = network.encoder.embeddings.weight.detach().double().numpy()
    assert np.sqrt((table**2).sum(1).mean()) == pytest.approx(1.0, rel=1e-4)
    hidden = rows_of(job.train.matrix) @ table
    users = np.maximum(job.train.matrix.getnnz(axis=1), 1.0)
    left, values, _ = np.linalg.svd(scaled(job.train.matrix, 0.3, 0.4).toarray().astype(np.float64))
    ours = hidden * (users**0.2)[:, None]
    lengths = np.linalg.norm(ours, axis=0)
    np.testing.assert_allclose(lengths / lengths[0], values[:12] / values[0], rtol=0.01)
    ours /= lengths
    np.testing.assert_allclose(ours.T @ ours, np.eye(12), atol=0.02)
    assert values[11] > values[12]
    assert np.linalg.norm(left[:, :12].T @ ours) ** 2 / 12 > 0.95


def test_rare_items_count_as_zeros_and_have_no_rows_unless_too_few_are_left(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    lines = Path(str(config.train)).read_text().splitlines()
    Path(str(config.train)).write_text("\n".join(f"{line} rare{n // 4}" for n, line in enumerate(lines)))
    data = Recommender.read(config)
    job = data.job
    rare = np.array([job.train.items[i].startswith("rare") for i in range(len(job.train.items))])
    assert (job.train.matrix.getnnz(axis=0)[rare] <= 4).all()
    alone = SparseTargets.from_ids(np.arange(len(rare)))
    for width, kept in ((12, ~rare), (80, rare | ~rare)):  # there are 60 others
        found = []
        for encoder_lr in (0.0, 1e-3):  # an encoder that is trained has rows for all
            wide = dataclasses.replace(config, width=width, encoder_lr=encoder_lr)
            network = build_network(job, wide)
            torch.manual_seed(0)
            job.start(network.encoder, data.examples, wide)
            assert len(network.encoder.embeddings.weight) == (61 if width == 12 and encoder_lr == 0.0 else len(rare))
            found.append(network.encoder(alone).detach())
        assert np.array_equal(found[0].numpy().any(axis=1), kept)
        assert torch.equal(*found)


def test_a_run_without_rows_of_rare_items_is_exported_and_explained_as_it_predicts(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    lines = Path(str(config.train)).read_text().splitlines()
    Path(str(config.train)).write_text(
        "\n".join(line.replace(" ", f" rare{n // 4} ", 1) for n, line in enumerate(lines))
    )
    run = Run.new(config)
    run.train(quiet=True)
    ids = torch.tensor(
        [[run.class_ids[name] for name in row] for row in (["i5", "rare7", "i8"], ["rare2", "i0", "i9"])]
    )
    alone = SparseTargets.from_ids(torch.arange(len(run.class_ids)))
    encoder = run.network.encoder.eval()
    assert len(encoder.embeddings.weight) < len(run.class_ids)
    assert torch.equal(encoder.rows(alone.class_ids), encoder(alone))
    classes, _ = BestOfBags(run, 5)(ids, torch.ones(ids.shape))
    names = run.job.class_names
    expected = run.predict([[names[i] for i in row] for row in ids.tolist()], 5)
    assert [[names[i] for i in row] for row in classes.tolist()] == [one.classes for one in expected]


@pytest.mark.parametrize("ridge", [0.0, 0.6])
def test_one_pass_gives_the_output_layer_of_ridge_regression(tmp_path: Path, ridge: float) -> None:
    # All batches alike, as each is a mean.
    config = config_of(tmp_path, head_damping=1e-5, head_ridge=ridge, target_item_power=0.1, batch_size=15)
    outcome = Run.new(config).train(quiet=True)
    assert outcome.epoch == 1.0
    run = Run.open(tmp_path / "run")
    matrix = run.job.train.matrix
    hidden = rows_of(matrix) @ run.network.encoder.embeddings.weight.detach().double().numpy()
    targets = scaled(matrix, 0.2, 0.1).toarray().astype(np.float64)
    data = Recommender.read(config)
    examples = data.examples
    begin = build_network(data.job, config).head.weight().double().numpy()
    first = run.network.hidden(next(iter(Batches(examples, 15, config.seed).epoch(0)))[0]).detach().double()
    steps = math.ceil(len(examples) / 15)
    prior = ridge * steps * float(first.square().sum()) / 12 * np.eye(12)
    solution = np.linalg.solve(hidden.T @ hidden + prior, hidden.T @ targets + prior @ begin.T).T
    found = run.network.head.weight().double().numpy()
    assert np.linalg.norm(found - solution) < 0.05 * np.linalg.norm(solution)


def test_the_encoder_stays_as_it_was_made(tmp_path: Path) -> None:
    config = config_of(tmp_path, epochs=2)
    data = Recommender.read(config)
    job = data.job
    network = build_network(job, config)
    job.start(network.encoder, data.examples, config)
    Run.new(config).train(quiet=True)
    trained = Run.open(tmp_path / "run").network.encoder
    assert torch.equal(trained.embeddings.weight, network.encoder.embeddings.weight)


def test_it_can_train_on_from_there(tmp_path: Path) -> None:
    still = Run.new(config_of(tmp_path)).train(quiet=True).metrics["recall@10"]
    options = {"encoder_init": "svd", "encoder_lr": 1e-3, "epochs": 3, "out": str(tmp_path / "moved")}
    outcome = Run.new(config_of(tmp_path, **options)).train(quiet=True)
    one, two = (Run.open(tmp_path / out).network.encoder.embeddings.weight.detach() for out in ("run", "moved"))
    assert 0.0 < float((one - two).abs().max()) < 0.5
    assert outcome.metrics["recall@10"] > 0.5 * still > 0.2


def test_resuming_does_not_start_again(tmp_path: Path) -> None:
    Run.new(config_of(tmp_path)).train(quiet=True)
    before = Run.open(tmp_path / "run").network.encoder.embeddings.weight.clone()
    outcome = Run.open(tmp_path / "run").train(quiet=True, epochs=2)
    assert outcome.epoch == 2.0
    assert torch.equal(Run.open(tmp_path / "run").network.encoder.embeddings.weight, before)


def test_units_beyond_the_rank_are_zero_and_harmless(tmp_path: Path) -> None:
    outcome = Run.new(config_of(tmp_path, width=100)).train(quiet=True)  # 60 items
    table = Run.open(tmp_path / "run").network.encoder.embeddings.weight
    assert not table[:, 60:].any()
    assert table[:, :60].any(dim=0).all()
    assert np.isfinite(outcome.metrics["recall@10"])


def test_factors_and_scaled_against_loops() -> None:
    dense = np.array([[2.0, 0.0, 1.0], [0.0, 0.0, 3.0], [0.0, 0.0, 0.0]], dtype=np.float32)
    matrix = scipy.sparse.csr_matrix(dense)
    np.testing.assert_allclose(factors(matrix.getnnz(axis=0), 0.5), [1.0, 1.0, 2**-0.5], rtol=1e-6)
    np.testing.assert_allclose(factors(matrix.getnnz(axis=1), 1.0), [0.5, 1.0, 1.0], rtol=1e-6)
    expected = [[2.0 / 2, 0.0, 1.0 / 2 * 2**-0.5], [0.0, 0.0, 3.0 * 2**-0.5], [0.0, 0.0, 0.0]]
    np.testing.assert_allclose(scaled(matrix, 1.0, 0.5).toarray(), expected, rtol=1e-6)


def test_the_data_decide_how_wide_the_network_is(tmp_path: Path) -> None:
    for pairs_of, items, width in ((4, 60_000, 64), (5, 20_000, 128), (80, 2_500, 256), (70, 40_000, 1_024)):
        # Every item has so many users, those of fewer than 5 do not count: 0, 100,000, 200,000 and 2,500,000 pairs.
        users = np.tile(np.arange(pairs_of), items)
        matrix = scipy.sparse.csr_matrix(
            (np.ones(len(users), dtype=np.float32), (users, np.repeat(np.arange(items), pairs_of)))
        )
        job = Recommender(Interactions(matrix, [], Vocabulary([]), np.zeros(0, dtype=np.int64)), ratings=False)
        config = configure("recommender", train="a", out="b", neighbours=0, direct=0.0)
        assert config.width == 0
        assert job.settled(config) == dataclasses.replace(config, width=width)
        assert job.settled(config).because == ""  # what is as wide as wanted needs no reason
        assert job.settled(dataclasses.replace(config, width=7)).width == 7


GB = 10**9


@pytest.mark.parametrize(
    ("users", "items", "lasting", "pairs", "memory", "width"),
    [
        (29_858, 40_981, 40_981, 810_128, 16 * GB, 1_280),  # gowalla: more than is wanted
        (300_000, 1_000_000, 340_000, 10_000_000, 16 * GB, 384),  # time
        (50_000, 1_000_000, 340_000, 10_000_000, 16 * GB, 832),  # memory for W and the rows of items
        (50_000, 1_000_000, 340_000, 10_000_000, 4 * GB, 384),  # a machine that has less
        (1_000_000, 1_000_000, 1_000_000, 10_000_000, 16 * GB, 192),  # memory for singular vectors
        (3_000_000, 10_000_000, 3_400_000, 100_000_000, 32 * GB, 160),
        (3_000_000, 10_000_000, 3_400_000, 100_000_000, 8 * GB, 0),
        (0, 0, 0, 0, 16 * GB, 223_584),
    ],
)
def test_memory_and_time_bound_the_width(
    users: int, items: int, lasting: int, pairs: int, memory: int, width: int
) -> None:
    assert affordable_width(users, items, lasting, pairs, memory) == width


@pytest.fixture
def much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("widehead.jobs.widths.told", lambda *_: 64 * GB)


@pytest.mark.parametrize(
    ("users", "items", "width"),
    [
        (50_000, 800, 96),  # an eighth of the items
        (1_000_000, 20_000, 192),  # 10⁶ · 192² products
        (100_000, 800_000, 640),  # 2.3 million rows of 640 numbers at once
        (100_000, 100, 64),
    ],
)
@pytest.mark.usefixtures("much_memory")
def test_few_items_or_many_rows_bound_the_width_and_the_run_says_so(users: int, items: int, width: int) -> None:
    places = np.arange(max(users, 5 * items, 1_000_000))
    entries = np.ones(len(places), dtype=np.float32), (places % users, (places + places // users) % items)
    matrix = scipy.sparse.csr_matrix(entries, shape=(users, items))
    job = Recommender(Interactions(matrix, [], Vocabulary([]), np.zeros(0, dtype=np.int64)), ratings=False)
    config = job.settled(configure("recommender", train="a", out="b", neighbours=0))
    assert config.width == width
    assert config.because.startswith(f"the default; width {width} and not ")
    assert config.because.endswith(f"because of {users:,} users and {items:,} items")


def test_a_run_knows_how_wide_it_is(tmp_path: Path) -> None:
    Run.new(config_of(tmp_path, width=0)).train(quiet=True)
    assert TrainingConfig.load(tmp_path / "run" / "config.json").width == 64
    Run.open(tmp_path / "run").train(quiet=True, epochs=2)
    assert Run.open(tmp_path / "run").network.head.in_features == 64


@pytest.mark.parametrize(
    "asked",
    [
        {"encoder_lr": 1e-3},
        {"encoder_init": "random"},
        {"loss": "spherical-softmax"},
        {"head_optimizer": "sgd"},
        {"head": "full"},
        {"hidden": [20]},
        {"activation": "tanh"},
    ],
)
def test_who_asks_for_training_gets_the_defaults_of_training(asked: dict[str, Any]) -> None:
    config = configure("recommender", train="a", out="b", **asked)
    assert (config.encoder_init, config.epochs, config.input_dropout, config.target_power) == ("random", 15, 0.5, 0.0)
    assert config.encoder_lr == asked.get("encoder_lr", 3e-3)
    assert config.head_decay is None


def test_other_options_leave_the_defaults_as_they_are() -> None:
    options = {"width": 64, "hidden": [], "encoder_lr": 0.0, "encoder_init": "svd", "head": "exact"}
    config = configure("recommender", train="a", out="b", **options)
    expected = {**Recommender.presets[0].values, **options, "hidden": ()}
    assert {name: getattr(config, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("job", "options", "message"),
    [
        ("language-model", {}, "`encoder_init` should be random for the job language-model. Found 'svd'"),
        ("multilabel", {"hidden": (8,)}, r"svd for a linear encoder only. Found hidden = \[8\]"),
        ("recommender", {"hidden": [8]}, r"svd for a linear encoder only. Found hidden = \[8\]"),
        ("recommender", {"activation": "tanh"}, "svd for a linear encoder only.*'tanh'"),
    ],
)
def test_where_singular_vectors_make_no_sense(job: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        configure(job, train="a", out="b", encoder_init="svd", **options)
