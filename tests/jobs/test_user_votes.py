"""Users like the given one beside a network: a slow twin of what tells of an item, runs that have both."""

from __future__ import annotations

import json
import math
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from support.chosen import KnownHead, random_pairs, rooms, train_on_and_die, trained, whole_and_in_parts, write_parts

import widehead as wh
from widehead.data import RowExamples
from widehead.errors import CheckpointError, RankingWarning
from widehead.jobs import configure, logit, recommender, user_votes
from widehead.jobs.logit import Told, fitted
from widehead.jobs.user_votes import FEWEST, UserVotes, UserWeights, enough, hidden_pairs
from widehead.report.tables import number
from widehead.runs import Run
from widehead.serving.service import Request, Service
from widehead.targets import SparseTargets


def files(folder: Path, count: int = 1_300) -> None:
    """Far more rooms than a network of four units can hold."""
    write_parts(folder, rooms(count, 130))


def run_in(folder: Path, out: str = "run", **options: Any) -> Run:
    return trained(
        "recommender", folder, out, **{"width": 4, "at": (1, 5), "holdout": 0.0, "neighbours": 500, **options}
    )


def first(values: dict[int, float], count: int) -> list[int]:
    """The keys of the largest, which should be no matter of taste."""
    order = sorted(values, key=lambda key: -values[key])
    assert len(order) <= count or values[order[count - 1]] > values[order[count]] + 1e-6
    return order[:count]


def twin(have: list[set[int]], given: set[int], count: int, nearest: int, width: int) -> list[Counter[int]]:
    """Votes of users, by squares, and of items, from the definitions, a user and an item at a time."""
    n = Counter(item for row in have for item in row)
    like = {v: sum(1 / n[i] for i in given & row) / math.sqrt(len(row)) for v, row in enumerate(have) if given & row}
    votes: list[Counter[int]] = [Counter(), Counter(), Counter()]
    for v in first(like, count):
        for item in have[v]:
            votes[0][item] += like[v]
            votes[1][item] += like[v] ** 2
    for item in given:
        cosines = {
            other: sum(1 / math.sqrt(len(row)) for row in have if {item, other} <= row) / math.sqrt(n[item] * n[other])
            for other in range(width)
            if other != item and n[other] and n[item]
        }
        for other in first(cosines, nearest):
            votes[2][other] += cosines[other]
    return votes


@pytest.mark.parametrize("seed", [0, 1, 9])  # nearest ones without ties
def test_what_tells_of_an_item_is_that_of_a_slow_twin(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Users that are known, those that are not, with items that nobody has and with none; in several parts."""
    monkeypatch.setattr(user_votes, "FIRST", 6)
    monkeypatch.setattr(user_votes, "_NEAREST", 5)
    monkeypatch.setattr(user_votes, "_AT_ONCE", 60)
    rng = np.random.default_rng(seed)
    pairs = random_pairs(rng, (50, 30), 0.15)
    pairs = scipy.sparse.hstack([pairs[:, :29], scipy.sparse.csr_matrix((50, 1))]).tocsr().astype(np.float32)
    strangers = random_pairs(rng, (2, 30), 0.15).toarray()
    strangers[1, 29] = 1.0
    asked = scipy.sparse.csr_matrix(np.vstack([pairs[:2].toarray(), strangers, np.zeros((1, 30), np.float32)]))
    inputs = SparseTargets.from_csr(asked)
    scores = torch.from_numpy(rng.standard_normal((5, 30)).astype(np.float32))
    scores[2] = -torch.inf  # an index that finds nothing
    votes = UserVotes(pairs, 7)
    parts = list(votes.candidates(KnownHead(scores), inputs, torch.arange(5)[:, None], 4, inputs))
    assert len(parts) > 1
    found = Told.together([told for told, _ in parts])
    have = [set(row.indices.tolist()) for row in pairs]
    popular = Counter(item for row in have for item in row)
    for row in range(5):
        given = set(asked[row].indices.tolist())
        expected = twin(have, given, 7, 5, 30)
        for part in expected:
            for item in given:
                del part[item]
        free = {i: float(scores[row, i]) for i in range(30) if i not in given and scores[row, i] > -math.inf}
        best = sorted(free, key=lambda i: -free[i])[:6]
        here = found.rows == row
        items = found.items[here].tolist()
        assert items == sorted({*best, *expected[0], *expected[2]})
        for item, told in zip(items, found.features[here].tolist(), strict=True):
            own = (free[item] - free[best[-1]]) / (free[best[0]] - free[best[-1]]) if item in best else 0.0
            said = [math.log(part[item] / (max(part.values(), default=0) or 1) + 0.3) for part in expected]
            np.testing.assert_allclose(
                told, [own, math.log(own + 0.05), *said, math.log1p(popular[item])], rtol=1e-4, atol=1e-5
            )


def test_what_comes_after_the_first_keeps_the_order_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_votes, "FIRST", 6)
    rng = np.random.default_rng(0)
    pairs, scores = random_pairs(rng, (40, 60), 0.05), torch.from_numpy(rng.standard_normal((3, 60)))
    inputs = SparseTargets.from_csr(pairs[:3])
    votes = UserVotes(pairs, 5, [1.0, 0.5, 2.0, 0.1, 0.4, -0.3])
    hidden = torch.arange(3)[:, None]
    (values, every), (_, few) = (votes.top_k(KnownHead(scores), inputs, hidden, k, exclude=inputs) for k in (60, 9))
    assert (every[:, :9] == few).all()
    assert (values.diff(dim=1).nan_to_num(0.0) <= 0).all()
    for row in range(3):
        own, there = set(pairs[row].indices.tolist()), every[row] >= 0
        assert set(every[row][there].tolist()) == set(range(60)) - own
        told = next(iter(votes.candidates(KnownHead(scores), inputs, hidden, 9, inputs)))[0]
        last = every[row][there][int((told.rows == row).sum()) :]
        assert (scores[row][last].diff() <= 0).all()
    kept = votes.top_k(KnownHead(scores), inputs, hidden, 60)[1]
    assert sorted(kept[0].tolist()) == list(range(60))


def test_hidden_pairs_are_of_a_tenth_of_the_users_and_none_is_lost() -> None:
    rng = np.random.default_rng(0)
    matrix = random_pairs(rng, (1_200, 40), 0.15)
    matrix.data[::7] = 0.0  # stored zeros are pairs
    seen, users, hidden = hidden_pairs(matrix, 3)
    assert len(users) == int(0.1 * np.count_nonzero(np.diff(matrix.indptr) > 1))
    assert hidden.shape == (len(users), 40)
    assert seen.nnz + hidden.nnz == matrix.nnz
    counts = np.diff(matrix.indptr)[users]
    np.testing.assert_array_equal(np.diff(hidden.indptr), np.maximum(np.rint(0.2 * counts), 1))
    other = np.setdiff1d(np.arange(1_200), users)
    assert (seen[other] != matrix[other]).nnz == 0
    assert seen[users].multiply(hidden).nnz == 0
    assert not np.array_equal(users, hidden_pairs(matrix, 4)[1])
    assert [enough(matrix[:n]) for n in (FEWEST // 2, 1_200)] == [False, True]


def test_what_chooses_knows_nothing_of_hidden_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the network, nor the singular vectors that it starts from, nor the votes."""
    files(tmp_path)
    known, starts = list[Any](), list[int]()
    make, scaled = UserVotes.__init__, recommender.scaled
    monkeypatch.setattr(recommender, "scaled", lambda *given: (starts.append(given[0].nnz), scaled(*given))[1])
    noting = lambda self, *given, **more: (known.append(given[0]), make(self, *given, **more))[1]  # noqa: E731
    monkeypatch.setattr(UserVotes, "__init__", noting)
    options = {"width": 4, "at": (1, 5), "holdout": 0.0, "neighbours": 500, "epochs": 1}
    run = Run.new(configure("recommender", train=str(tmp_path / "train.txt"), out=str(tmp_path / "run"), **options))
    run.train(quiet=True)
    seen, users, hidden = hidden_pairs(run.data.job.train.matrix, run.config.seed)  # type: ignore[attr-defined]
    assert hidden.nnz >= len(users) == 130
    assert set(starts) == {seen.nnz}
    assert (known[0] != seen).nnz == 0
    inputs = run.data.examples.batch(np.arange(len(run.data.examples)))[0]
    assert torch.bincount(inputs.class_ids).tolist() == seen.getnnz(axis=0).tolist()  # type: ignore[union-attr]


def test_each_row_counts_the_same_whatever_its_hits() -> None:
    """The slope of the loss, written out, is 0 in all directions."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal((240, 3)).astype(np.float32)
    found = Told(40, np.repeat(np.arange(40), 6), np.tile(np.arange(6), 40), features)
    hits = rng.random(240) < 1 / (1 + np.exp(2 - 2 * features[:, 1]))
    made = fitted(found, hits)

    def loss(weights: np.ndarray) -> float:
        scores, right = (features @ weights).reshape(40, 6), hits.reshape(40, 6)
        rows = [
            np.mean([np.log(1 + np.exp(scores[u][~right[u]] - s).sum()) for s in scores[u][right[u]]])
            for u in np.flatnonzero(right.any(axis=1))
        ]
        return float(np.mean(rows) + 1e-4 * (weights**2).sum())

    slopes = [(loss(made + step) - loss(made - step)) / 2e-3 for step in 1e-3 * np.eye(3)]
    np.testing.assert_allclose(slopes, 0.0, atol=5e-4)
    assert np.abs(made).max() > 0.5


def test_small_rooms_are_found_again(tmp_path: Path) -> None:
    files(tmp_path)
    alone = run_in(tmp_path, "alone", neighbours=0, direct=0.0).evaluate(tmp_path / "test.txt")
    run = run_in(tmp_path)
    together = run.evaluate(tmp_path / "test.txt")
    assert alone["recall@5"] < 0.5 < 0.95 < together["recall@5"]
    choice = UserWeights.read(tmp_path / "run" / "neighbours.json")
    assert choice is not None
    assert (choice.places, len(choice.weights)) == (130, 6)
    assert choice.after["recall@5"] > choice.before["recall@5"]
    assert "Users like the given one" in str(choice)


@pytest.mark.parametrize("neighbours", [500, 0])
def test_a_run_says_whose_metrics_it_has(neighbours: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that ends is judged with neighbours, too; one that is stopped has the metrics of its network."""
    files(tmp_path)
    options = {"width": 4, "at": (5,), "neighbours": neighbours, "direct": 0.0, "test": str(tmp_path / "test.txt")}
    run = Run.new(configure("recommender", train=str(tmp_path / "train.txt"), out=str(tmp_path / "run"), **options))
    end = run.train()
    told = " ".join(capsys.readouterr().err.split())
    page = run.report().read_text(encoding="utf-8")
    assert (", with neighbours: recall@5" in told) == (neighbours > 0)
    assert end.metrics["recall@5"] > 0.95 or not neighbours
    figure = f"recall@5 {number(end.metrics['recall@5'])}"
    assert f"Its last evaluation{', of the network with neighbours' if neighbours else ''}: {figure}" in page
    assert ("its network alone" in page) == (neighbours > 0)
    options |= {"test": None, "holdout": 0.0}  # nothing is judged
    Run.new(configure("recommender", train=str(tmp_path / "train.txt"), out=str(tmp_path / "other"), **options)).train()
    assert "recall" not in capsys.readouterr().err.replace(
        str(UserWeights.read(tmp_path / "other/neighbours.json")), ""
    )


def test_a_run_that_is_stopped_has_the_metrics_of_its_network(tmp_path: Path) -> None:
    """It may go on, and is judged with neighbours when it ends."""
    files(tmp_path)
    options = {
        "width": 4,
        "at": (5,),
        "neighbours": 500,
        "test": str(tmp_path / "test.txt"),
        "evaluate_every": "1 steps",
    }
    run = Run.new(configure("recommender", train=str(tmp_path / "train.txt"), out=str(tmp_path / "run"), **options))

    def stop(_: Any, record: dict[str, Any]) -> None:
        if record["kind"] == "evaluation":
            signal.raise_signal(signal.SIGINT)

    end = run.train(quiet=True, on_log=stop)
    assert (end.status, end.step) == ("interrupted", 1)
    assert end.metrics["recall@5"] < 0.5
    assert "Its last evaluation, of the network alone: recall@5" in run.report().read_text(encoding="utf-8")
    assert Run.open(tmp_path / "run").train(quiet=True).metrics["recall@5"] > 0.95


def test_runs_say_the_same_after_they_are_loaded_resumed_or_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files(tmp_path)
    whole, said = whole_and_in_parts(run_in, tmp_path / "train.txt")
    rows = [line.split()[1:] for line in (tmp_path / "train.txt").read_text().splitlines()[:5]]
    assert not {name for row, (names, _) in zip(rows, said, strict=False) for name in names if name in row}
    answers = Service(whole).answer([Request("names", rows, 3)])[0]
    assert isinstance(answers, list)
    assert [answer.classes for answer in answers] == [classes for classes, _ in said[:5]]
    with pytest.warns(RankingWarning, match="the network alone.*neighbours 0"):
        whole.export("torch", tmp_path / "network.pt")
    assert "votes of items" in whole.report().read_text(encoding="utf-8")
    path = tmp_path / "parts" / "neighbours.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "weights": [1.0]}))
    with pytest.raises(CheckpointError, match=r"neighbours\.json"):
        Run.open(tmp_path / "parts").evaluate(tmp_path / "test.txt")
    train_on_and_die(run_in(tmp_path, "other"), UserVotes, monkeypatch)


def test_estimators_hear_users_too() -> None:
    likes = rooms(1_300, 130)
    model = wh.Recommender(width=4, at=(1,), quiet=True, neighbours=500).fit([row[:4] for row in likes])
    found, scores = model.recommend([["3.1", "3.4"], ["unheard"]], 5)
    assert {name.partition(".")[0] for name in found[0, :5]} == {"3"}
    assert not {"3.1", "3.4"} & set(found[0])
    assert np.all(np.diff(scores[0]) <= 0)
    assert found[1].tolist() == [None] * 5
    assert {"3.1", "3.4"} <= set(model.recommend([["3.1", "3.4"]], 7, exclude=False)[0][0])
    assert model.score([row[:4] for row in likes], [row[4:] for row in likes]) > 0.25  # one in three at best


def test_what_does_not_help_has_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that do worse on the other half of the users are dropped: here the fit is turned round."""
    fit = fitted
    monkeypatch.setattr(logit, "fitted", lambda *given: -fit(*given))
    rng = np.random.default_rng(0)
    rows = np.repeat(np.arange(100), 4)
    columns = (rng.integers(25, size=100)[:, None] + np.arange(4)).ravel() % 25
    matrix = scipy.sparse.csr_matrix((np.ones(400, dtype=np.float32), (rows, columns)), shape=(100, 25))
    hidden = scipy.sparse.csr_matrix((np.ones(100, dtype=np.float32), (np.arange(100), columns[::4])), shape=(100, 25))
    known = matrix - hidden
    known.eliminate_zeros()
    network = torch.nn.Module()
    network.hidden = lambda inputs: torch.arange(len(inputs))[:, None]  # type: ignore[assignment]
    network.head = KnownHead(torch.from_numpy(hidden.toarray()))  # knows all
    choice = UserVotes(known, 5).chosen(network, RowExamples(known, hidden), ["recall@1"], 0)
    assert (choice.weights, choice.places, choice.before) == ([], 100, {"recall@1": 1.0})
    assert choice.after["recall@1"] < 1.0
    assert "have no say, by 100 users" in str(choice)


def test_few_users_are_all_trained_on(tmp_path: Path) -> None:
    files(tmp_path, FEWEST - 1)
    run = run_in(tmp_path)
    assert run.network.beside is None
    assert not run.folder.neighbours_path.exists()
