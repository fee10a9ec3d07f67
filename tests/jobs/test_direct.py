"""The direct term of a recommender: a slow twin of what it ranks by, runs that have it, and what it refuses."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from support.chosen import random_pairs, rooms, trained, write_parts

import widehead as wh
from widehead.errors import RankingWarning
from widehead.heads.indexed import IndexedTopK
from widehead.jobs import configure, direct, recommender, trial
from widehead.jobs.direct import INPUT_POWER, OUTPUT_POWER, USER_POWER, DirectTerm
from widehead.jobs.probe import Probe
from widehead.jobs.recommender import Recommender
from widehead.jobs.trial import Trial
from widehead.jobs.user_votes import FEWEST
from widehead.report.tables import number
from widehead.runs import Run
from widehead.search import IVFIndex
from widehead.serving.service import Request, Service
from widehead.targets import SparseTargets

WEIGHT = 1.5


def head_of(width: int, items: int) -> wh.ExactHead:
    head = wh.ExactHead(width, items, loss=wh.losses.SquaredError(), dtype=torch.float64)
    head.load_weight(torch.randn(items, width, dtype=torch.float64))
    return head.eval()


def twin(pairs: np.ndarray, given: np.ndarray, outputs: np.ndarray, weight: float) -> list[float]:
    """Scores of all items for one user from the definition, an item at a time."""
    users, items = (np.maximum(pairs.sum(axis=axis), 1.0) for axis in (1, 0))
    direct = [
        sum(
            users[v] ** -USER_POWER * items[i] ** -INPUT_POWER * items[j] ** -OUTPUT_POWER
            for i in np.flatnonzero(given)
            for v in range(len(pairs))
            if pairs[v, i] and pairs[v, j]
        )
        for j in range(len(items))
    ]
    parts = [np.array(part) / (np.std(part) or 1.0) for part in (outputs, direct)]
    found: list[float] = (parts[0] + weight * parts[1]).tolist()
    return found


@pytest.mark.parametrize("excludes", [True, False])
@pytest.mark.parametrize("k", [1, 5, 30])
def test_what_ranks_is_a_slow_twin(k: int, excludes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Users that are known, a stranger, one with an item that nobody has and one with none; in several parts.

    Ratings do not count.
    """
    monkeypatch.setattr(direct, "_AT_ONCE", 60)
    rng = np.random.default_rng(k)
    torch.manual_seed(k)
    pairs = random_pairs(rng, (40, 30), 0.2).toarray()
    pairs[:, 29] = 0.0
    asked = np.vstack([pairs[:3], random_pairs(rng, (1, 30), 0.2).toarray(), np.zeros((2, 30))])
    asked[4, 29] = 1.0
    head, hidden = head_of(4, 30), torch.randn(6, 4, dtype=torch.float64)
    hidden[5] = 0.0
    rated, given = (part * rng.choice([-2.0, 0.5, 3.0], part.shape).astype(np.float32) for part in (pairs, asked))
    inputs = SparseTargets.from_csr(scipy.sparse.csr_matrix(given))
    term = DirectTerm(scipy.sparse.csr_matrix(rated), WEIGHT)
    scores, items = term.top_k(head, inputs, hidden, k, inputs if excludes else None)
    assert scores.shape == items.shape == (6, k)
    outputs = (hidden @ head.weight().T).numpy()
    for row in range(6):
        expected = twin(pairs, asked[row], outputs[row], WEIGHT)
        free = [j for j in range(30) if not (excludes and asked[row, j])]
        order = sorted(free, key=lambda j: -expected[j])[:k]
        there = items[row] >= 0
        assert there.sum() == len(order)
        assert bool((scores[row][~there] == -math.inf).all())
        assert scores[row][there].tolist() == pytest.approx([expected[j] for j in order], rel=1e-5, abs=1e-6)
        assert [expected[j] for j in items[row][there].tolist()] == pytest.approx(
            [expected[j] for j in order], abs=1e-6
        )


def test_items_that_are_first_of_neither_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is ranked are the first of both, which the network's scores and those of the term name."""
    monkeypatch.setattr(direct, "FIRST", 3)
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    pairs = random_pairs(rng, (40, 30), 0.2)
    head, hidden = head_of(4, 30), torch.randn(5, 4, dtype=torch.float64)
    inputs = SparseTargets.from_csr(pairs[:5])
    term = DirectTerm(pairs, WEIGHT)
    ((found,),) = term.candidates([(head, hidden)], inputs, 3, None)
    outputs, others = (hidden @ head.weight().T).numpy(), term.scores(pairs[:5]).toarray()
    for row in range(5):
        named = set(np.argsort(-outputs[row])[:3]) | set(np.argsort(-others[row])[:3])
        assert found.items[found.rows == row].tolist() == sorted(named)


def test_an_index_finds_what_the_network_names() -> None:
    rng = np.random.default_rng(1)
    torch.manual_seed(1)
    pairs = random_pairs(rng, (40, 30), 0.2)
    head = wh.ExactHead(4, 30, loss=wh.losses.SquaredError()).eval()
    head.load_weight(torch.randn(30, 4))
    index = IVFIndex(head.weight().detach().clone())
    index.probes = index.num_cells
    hidden, inputs = torch.randn(5, 4), SparseTargets.from_csr(pairs[:5])
    term = DirectTerm(pairs, WEIGHT)
    by_index = term.top_k(IndexedTopK(head, index), inputs, hidden, 4, inputs)
    directly = term.top_k(head, inputs, hidden, 4, inputs)
    assert torch.equal(by_index[1], directly[1])
    torch.testing.assert_close(by_index[0], directly[0])


def test_a_run_ranks_by_it_once_trained_opened_served_and_evaluated(tmp_path: Path) -> None:
    write_parts(tmp_path, rooms(400, 40))
    options = {"width": 2, "at": (1, 3), "holdout": 0.0}
    alone = trained("recommender", tmp_path, "alone", direct=0.0, neighbours=0, **options)
    run = trained("recommender", tmp_path, "run", direct=WEIGHT, **options)
    assert run.config.neighbours == 0
    assert run.network.beside.weight == WEIGHT
    test = tmp_path / "test.txt"
    assert run.evaluate(test, at=(3,))["recall@3"] > alone.evaluate(test, at=(3,))["recall@3"] + 0.5
    rows = [["0.0", "0.1"], ["1.0", "nothing"]]
    (tmp_path / "asked.txt").write_text("".join(f"{u} {' '.join(row)}\n" for u, row in enumerate(rows)))
    said = [(p.classes, p.scores) for p in run.predict(tmp_path / "asked.txt", 3)]
    assert [{name[:2] for name in names} for names, _ in said] == [{"0."}, {"1."}]
    assert not {"0.0", "0.1", "1.0"} & {name for names, _ in said for name in names}
    answers = Service(run).answer([Request("names", rows, 3)])[0]
    assert isinstance(answers, list)
    assert [answer.classes for answer in answers] == [classes for classes, _ in said]


@pytest.mark.parametrize(
    ("options", "weight"),
    [
        ({}, WEIGHT),
        ({"direct": 0.0}, 0.0),
        ({"direct": 0.5}, 0.5),
        ({"neighbours": 500}, 0.0),
        ({"loss": "spherical-softmax", "direct": -1.0}, 0.0),
        ({"head": "full"}, 0.0),
    ],
)
def test_it_ranks_by_default_where_neighbours_do_not(
    options: dict[str, Any], weight: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recommender, "probed", lambda *_: Probe(0, "tried elsewhere"))
    monkeypatch.setattr(trial, "tried", lambda *_: Trial(8, WEIGHT, "tried elsewhere"))
    write_parts(tmp_path, rooms(FEWEST, 100))
    config = configure("recommender", train=str(tmp_path / "train.txt"), out="run", **options)
    job = Recommender.of(config, config.train).job
    assert job.settled(config).direct == weight


@pytest.mark.parametrize(("ratings", "weight"), [(False, WEIGHT), (True, 0.0)])
def test_it_does_not_by_default_where_ratings_count(
    ratings: bool, weight: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may share items with a user because they dislike them as much."""
    monkeypatch.setattr(recommender, "probed", lambda *_: Probe(0, "tried elsewhere"))
    monkeypatch.setattr(trial, "tried", lambda *_: Trial(8, WEIGHT, "tried elsewhere"))
    pairs = random_pairs(np.random.default_rng(2), (FEWEST + 50, 40), 0.2)
    pairs.data[::3] = -1.0 if ratings else 1.0
    config = configure("recommender", out="run", ratings=ratings)
    assert Recommender.of(config, pairs).job.settled(config).direct == weight


@pytest.mark.parametrize(("count", "neighbours"), [(FEWEST, 500), (FEWEST - 10, 0)])
def test_it_does_not_where_the_data_say_neighbours_or_users_are_few(
    count: int, neighbours: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recommender, "probed", lambda *_: Probe(neighbours, "tried elsewhere"))
    write_parts(tmp_path, rooms(count, 100))
    config = configure("recommender", train=str(tmp_path / "train.txt"), out="run")
    settled = Recommender.of(config, config.train).job.settled(config)
    assert (settled.neighbours, settled.direct) == (neighbours, 0.0)


def test_it_does_not_by_default_where_it_costs_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound is of Σ over a user's items, and those who have them, of how many items they have: products of z."""
    rng = np.random.default_rng(0)
    pairs = random_pairs(rng, (50, 30), 0.2)
    held = pairs.toarray()
    mean = float(
        sum(held[v].sum() for u in range(50) for i in np.flatnonzero(held[u]) for v in np.flatnonzero(held[:, i])) / 50
    )
    monkeypatch.setattr(direct, "_ROWS", 7)  # several parts of the users
    for part, enough in ((1.001, True), (0.999, False)):
        monkeypatch.setattr(direct, "_PRODUCTS", part * mean)
        assert direct.affordable(direct.num_products(pairs, pairs.getnnz(axis=0)), 50) is enough
    monkeypatch.setattr(direct, "_PRODUCTS", 1)
    monkeypatch.setattr(recommender, "probed", lambda *_: Probe(0, "tried elsewhere"))
    write_parts(tmp_path, rooms(FEWEST, 100))
    config = configure("recommender", train=str(tmp_path / "train.txt"), out="run")
    assert Recommender.of(config, config.train).job.settled(config).direct == 0.0


def test_a_run_says_that_its_metrics_are_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_parts(tmp_path, rooms(400, 40))
    options = {"width": 2, "at": (3,), "direct": WEIGHT, "test": str(tmp_path / "test.txt")}
    run = Run.new(configure("recommender", train=str(tmp_path / "train.txt"), out=str(tmp_path / "run"), **options))
    end = run.train()
    assert ", with the direct term: recall@3" in " ".join(capsys.readouterr().err.split())
    assert Run.open(tmp_path / "run").evaluate() == end.metrics
    page = run.report().read_text(encoding="utf-8")
    figure = number(end.metrics["recall@3"])
    assert f"of the network with the direct term: recall@3 {figure}" in page
    assert f"recall@3, with the direct term is {figure}" in page  # in the words of a curve
    assert "its network alone" in page


def test_what_is_exported_says_that_it_ranks_by_the_network_alone(tmp_path: Path) -> None:
    write_parts(tmp_path, rooms(400, 40))
    run = trained("recommender", tmp_path, "run", width=2, holdout=0.0, direct=WEIGHT)
    with pytest.warns(RankingWarning, match="the network alone.*direct 0"):
        run.export("safetensors", tmp_path / "network.safetensors")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"head": "full"}, "the head exact"),
        ({"loss": "spherical-softmax"}, "squared-error"),
        ({"neighbours": 500}, "be 0 with neighbours"),
        ({"direct": -2.0}, "direct"),
        ({"direct": math.nan}, "direct"),
        ({"direct": 2e6}, "in [0, 1,000,000], or -1"),  # little would be left of the network's scores, or infinity
    ],
)
def test_what_does_not_go_with_it_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        configure("recommender", out="run", **{"direct": 1.0, **options})
