"""What the direct term weighs, tried before a run: twins of what it is judged by, and what runs make of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import scipy.sparse
import torch
from support.chosen import random_pairs, rooms

import widehead as wh
from widehead.data import Interactions, RowExamples, Vocabulary, split_rows
from widehead.errors import CheckpointError
from widehead.jobs import configure, direct, direct_trial, recommender
from widehead.jobs.candidates import best_of_rows
from widehead.jobs.direct import Both, DirectTerm
from widehead.jobs.direct_trial import UNTRIED, WEIGHTS, DirectTrial, best, compared, most_asked, ranked, tried, weighed
from widehead.jobs.judging import RankingTest
from widehead.jobs.probe import Probe, probed
from widehead.jobs.recommender import Recommender
from widehead.models import BagEncoder, WideNetwork
from widehead.runs import Run


def job_of(matrix: Any) -> Recommender:
    names = Vocabulary([str(item) for item in range(matrix.shape[1])])
    users = [str(user) for user in range(matrix.shape[0])]
    return Recommender(Interactions(matrix, users, names, np.zeros(matrix.shape[0], np.int64)), False)


def config_of(**options: Any) -> Any:
    given = {"train": "train.txt", "out": "runs/x", "at": (5,), "width": 4, "neighbours": 0}
    return configure("recommender", **{**given, **options})


def films(users: int = 1_100) -> Any:
    """Each has the 20 of 80 items that score highest by four numbers of user and item, and chance."""
    rng = np.random.default_rng(0)
    scores = 1.5 * rng.standard_normal((users, 4)) @ rng.standard_normal((4, 80)) + rng.gumbel(size=(users, 80))
    columns = np.argsort(-scores - rng.standard_normal(80), axis=1)[:, :20]
    matrix = scipy.sparse.csr_matrix(
        (np.ones(columns.size, np.float32), (np.repeat(np.arange(users), 20), columns.ravel()))
    )
    matrix.sort_indices()
    return matrix


def test_weights_are_judged_by_what_a_run_is_judged_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recall and nDCG of each weight are those of a network with the term of that weight beside it."""
    monkeypatch.setattr(direct_trial, "_BLOCK", 17)
    monkeypatch.setattr(direct, "_AT_ONCE", 300)
    torch.manual_seed(0)
    seen, hidden = split_rows(random_pairs(np.random.default_rng(0), (60, 40), 0.2), 0.3, 0)
    encoder = BagEncoder(40, 6)
    head = wh.ExactHead(6, 40, loss=wh.losses.SquaredError())
    head.load_weight(torch.randn(40, 6))
    network = WideNetwork(encoder, head).eval()
    users = np.flatnonzero(np.diff(hidden.indptr))
    found = ranked(network, DirectTerm(seen, 1.0), RowExamples(seen[users], hidden[users]), [3, 10])
    assert found.shape == (len(WEIGHTS), len(users), 4)
    names = ["recall@3", "ndcg@3", "recall@10", "ndcg@10"]
    test = RankingTest(seen, hidden, np.zeros(60, np.int64), exclude_inputs=True)
    for weight, of_users in zip(WEIGHTS, found, strict=True):
        network.beside = DirectTerm(seen, weight)
        expected = test.metrics(network, names, None, 0)
        assert of_users.mean(axis=0).tolist() == pytest.approx(list(expected.values()), rel=1e-9)
    assert len(np.unique(found.mean(axis=1).round(12), axis=0)) == len(WEIGHTS)


def test_places_that_nothing_takes_are_no_hits() -> None:
    """Users who have nearly all items, of whom fewer are left than are ranked."""
    torch.manual_seed(1)
    matrix = scipy.sparse.csr_matrix(np.ones((8, 6), np.float32))
    seen, hidden = split_rows(matrix, 0.4, 0)
    head = wh.ExactHead(3, 6, loss=wh.losses.SquaredError())
    network = WideNetwork(BagEncoder(6, 3), head).eval()
    found = ranked(network, DirectTerm(seen, 1.0), RowExamples(seen, hidden), [5])
    assert found.min() == found.max() == 1.0  # whatever the order, the two hidden ones alone are left


def test_gains_are_of_means_over_metrics_and_errors_of_differences_between_users() -> None:
    rng = np.random.default_rng(0)
    each = rng.random((len(WEIGHTS), 50, 4))
    gains, errors = compared(each)
    first = int(gains.argmax())
    for weight in range(len(WEIGHTS)):
        ratios = [each[weight, :, j].mean() / each[0, :, j].mean() for j in range(4)]
        assert gains[weight] == pytest.approx(np.mean(ratios) - 1.0)
        apart = [
            np.mean([(each[weight, u, j] - each[first, u, j]) / each[0, :, j].mean() for j in range(4)])
            for u in range(50)
        ]
        assert errors[weight] == pytest.approx(np.std(apart) / 50**0.5)


def test_where_nothing_is_found_nothing_gains() -> None:
    gains, errors = compared(np.zeros((len(WEIGHTS), 50, 4)))
    assert (gains.tolist(), errors.tolist(), best(gains, errors)) == ([0.0] * 6, [0.0] * 6, UNTRIED)


def test_of_equal_items_the_first_ones_are_best() -> None:
    """As where runs rank; what sorts many numbers at once would mix them."""
    rng = np.random.default_rng(0)
    rows = np.sort(rng.integers(3, size=4_000))
    items = np.concatenate([np.flatnonzero(rows == row) - np.flatnonzero(rows == row)[0] for row in range(3)])
    own, direct = (rng.integers(3, size=4_000).astype(np.float64) for _ in range(2))
    found = direct_trial._best(Both(3, rows, items, own, direct), 2.0, 50)
    assert found.tolist() == best_of_rows(rows, items, own + 2.0 * direct, 3, 50)[1].tolist()


@pytest.mark.parametrize(
    ("gains", "error", "weight"),
    [
        ([0.0, 0.1, 0.2, 0.25, 0.3, 0.31], 0.0025, 6.0),
        ([0.0, 0.1, 0.2, 0.25, 0.3, 0.31], 0.01, 3.0),  # 6 is no better, as far as can be told
        ([0.0, 0.1, 0.2, 0.25, 0.3, 0.31], 0.06, UNTRIED),
        ([0.0, 0.1, 0.05, 0.0, -0.1, -0.2], 0.01, 0.4),
        ([0.0, -0.1, -0.2, -0.3, -0.4, -0.5], 0.045, 0.0),
        ([0.0, -0.1, -0.2, -0.3, -0.4, -0.5], 0.055, 0.4),
        ([0.0, -0.1, -0.2, -0.3, -0.4, -0.5], 0.21, UNTRIED),
    ],
)
def test_of_weights_that_are_as_good_as_the_best_the_nearest_to_the_usual_one_is_taken(
    gains: list[float], error: float, weight: float
) -> None:
    assert best(np.array(gains), np.full(len(gains), error)) == weight


def test_the_term_weighs_nothing_where_it_loses_and_much_where_it_gains() -> None:
    """Eight units know all of what four numbers say, four do not."""
    enough, few = (tried(job_of(films()), config_of(width=width)) for width in (8, 4))
    assert (enough.weight, few.weight) == (0.0, 6.0)
    gains = np.array([gain for _, gain, _ in few.race])
    assert (np.diff(gains) > 0.0).all()
    assert [weight for weight, *_ in few.race] == list(WEIGHTS)
    assert "there is no direct term: 0 +0.0 %, 0.4 -" in str(enough)
    assert "the direct term weighs 6: 0 +0.0 %, 0.4 +" in str(few)


def test_neither_network_nor_term_knows_what_is_hidden() -> None:
    """Of items by chance nobody can know the hidden ones; a term that had seen them would gain much."""
    rng = np.random.default_rng(3)
    columns = np.concatenate([rng.permutation(60)[:8] for _ in range(1_300)])
    matrix = scipy.sparse.csr_matrix((np.ones(len(columns), np.float32), (np.repeat(np.arange(1_300), 8), columns)))
    matrix.sort_indices()
    assert max(gain for _, gain, _ in tried(job_of(matrix), config_of()).race) < 0.2


def test_others_are_asked_until_hidden_pairs_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of(films())
    monkeypatch.setattr(direct_trial, "_ENOUGH", 880)  # so many are hidden of 220 users
    once = tried(job, config_of())
    monkeypatch.setattr(direct_trial, "_ENOUGH", 881)
    twice = tried(job, config_of())
    monkeypatch.setattr(direct_trial, "_ENOUGH", 1e9)
    often = tried(job, config_of())
    assert [(found.places, found.pairs) for found in (once, twice, often)] == [(220, 880), (440, 1_760), (1_100, 4_400)]
    gains = [[gain for _, gain, _ in found.race[1:]] for found in (once, twice)]
    assert all(one != two for one, two in zip(*gains, strict=True))


def test_where_the_network_is_large_a_part_of_the_users_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of(films(2_000))
    monkeypatch.setattr(direct_trial, "_PRODUCTS", 0.125 * 2_080 * 32**2)
    monkeypatch.setattr(direct_trial, "_FEWEST", 10)
    found = tried(job, config_of(width=32))
    assert (found.users, found.width) == (1_000, 16)
    assert "beside 16 units on 1,000 users" in str(found)
    monkeypatch.setattr(direct_trial, "_FEWEST", 1_500)
    found = tried(job, config_of(width=32))
    assert (found.users, found.width) == (1_500, 24)


def test_cutoffs_beyond_the_items_take_no_memory() -> None:
    """A run refuses them later."""
    job, config = job_of(films()), config_of(width=8)
    assert tried(job, replace(config, at=(10**9,))) == tried(job, replace(config, at=(80,)))
    found = probed(job, replace(config, at=(10**9,)))
    assert found == probed(job, replace(config, at=(80,)))
    assert set(found.before) == {"recall@80", "ndcg@80"}


def test_so_many_users_are_asked_as_have_pairs_enough_and_as_ranking_has_time_for() -> None:
    few, many = (scipy.sparse.csr_matrix(np.ones((3, n), np.float32)) for n in (2, 100))
    assert (most_asked(few, 1), most_asked(many, 1)) == (8_000, 2_000)  # one pair is hidden of each, or twenty
    one = scipy.sparse.csr_matrix(np.eye(300, 100, dtype=np.float32))
    assert most_asked(scipy.sparse.vstack([many, one], format="csr"), 1) == 2_000  # of these nothing can be hidden
    assert most_asked(many, 10_000_000) == 50
    assert most_asked(many, 10**12) == 1


def test_it_is_not_tried_where_users_are_few_or_asking_costs_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct_trial, "tried", None)  # whoever calls it fails
    few = weighed(job_of(films(999)), config_of(), None)
    assert (few.weight, str(few)) == (0.0, "By default there is no direct term: fewer than 1,000 users have two items.")
    monkeypatch.setattr(direct, "_PRODUCTS", 1)
    dear = weighed(job_of(films()), config_of(), None)
    assert (dear.weight, "more than a million products a user" in str(dear)) == (0.0, True)


def test_several_processes_take_the_usual_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct_trial, "tried", None)
    share = cast(Any, object())
    monkeypatch.setattr(direct_trial, "totals", lambda given, *_: (1_000, 1) if given is share else (0, 0))
    monkeypatch.setattr(direct_trial, "num_products", lambda *_: 1)
    found = weighed(job_of(films(10)), config_of(), share)
    assert (found.weight, found.table()) == (UNTRIED, (["direct term"], [["0.75"]]))
    assert "weighs 0.75: several processes" in str(found)


def test_a_run_keeps_what_was_found_and_does_not_try_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recommender, "probed", lambda *_: Probe(0, "tried elsewhere"))
    path, matrix = tmp_path / "train.txt", films()
    path.write_text("".join(f"u{u} {' '.join(map(str, matrix[u].indices))}\n" for u in range(matrix.shape[0])))
    config = configure("recommender", train=str(path), out=str(tmp_path / "run"), at=(5,), width=4)
    run = Run.new(config)
    run.train(quiet=True)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["direct"] == 6.0
    found = DirectTrial.read(tmp_path / "run" / "direct.json")
    assert found is not None
    assert run.data.tried == f"By default neighbours do not rank: tried elsewhere. {found}"
    monkeypatch.setattr(recommender, "weighed", None)
    again = Run.open(tmp_path / "run")
    again.train(quiet=True, epochs=2)
    assert again.network.beside.weight == 6.0
    page = again.report().read_text(encoding="utf-8")
    assert f"{100 * found.race[-1][1]:+.2f} %" in page.replace("&#43;", "+")
    for damaged in ('{"weight": -1.0}', '{"weight": 1.0, "race": [[0.4, NaN, 0.0]]}', '{"weigh": 1.0}'):
        (tmp_path / "run" / "direct.json").write_text(damaged)
        with pytest.raises(CheckpointError, match=r"direct\.json"):
            again.report()


def test_a_weight_that_is_given_tries_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recommender, "weighed", None)
    (tmp_path / "train.txt").write_text("".join(f"{u} {' '.join(row)}\n" for u, row in enumerate(rooms(1_100, 20))))
    for weight in (0.0, 2.0):
        out = tmp_path / f"run{weight}"
        run = Run.new(configure("recommender", train=str(tmp_path / "train.txt"), out=str(out), width=4, direct=weight))
        assert run.config.direct == weight
        assert not (out / "direct.json").exists()


def test_trying_leaves_the_runs_own_random_numbers_alone() -> None:
    state = torch.get_rng_state()
    tried(job_of(films()), config_of())
    assert torch.equal(torch.get_rng_state(), state)
