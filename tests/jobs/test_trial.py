"""Widths and weights of the direct term, tried before a run: twins of what they are judged by, and what runs make of
them."""

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
from widehead.jobs import configure, direct, recommender, trial
from widehead.jobs.candidates import best_of_rows
from widehead.jobs.direct import Both, DirectTerm
from widehead.jobs.judging import RankingTest
from widehead.jobs.probe import Probe, probed, small_network, small_networks
from widehead.jobs.recommender import Recommender
from widehead.jobs.trial import SAFE, WEIGHTS, Trial, behind, best, chosen, compared, most_asked, ranked, widths
from widehead.jobs.user_votes import hidden_pairs
from widehead.models import BagEncoder, WideNetwork
from widehead.runs import Run


def job_of(matrix: Any) -> Recommender:
    names = Vocabulary([str(item) for item in range(matrix.shape[1])])
    users = [str(user) for user in range(matrix.shape[0])]
    return Recommender(Interactions(matrix, users, names, np.zeros(matrix.shape[0], np.int64)), False)


def config_of(**options: Any) -> Any:
    given = {"train": "train.txt", "out": "runs/x", "at": (5,), "width": 4, "neighbours": 0}
    return configure("recommender", **{**given, **options})


def tried(job: Recommender, config: Any, weights: tuple[float, ...] = WEIGHTS) -> Trial:
    """With the width of the options alone."""
    return trial.tried(job, config, [config.width], list(weights))


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


def in_rooms(users: int, count: int) -> Any:
    ids = [[7 * int(name.split(".")[0]) + int(name.split(".")[1]) for name in row] for row in rooms(users, count)]
    entries = np.ones(5 * users, np.float32), (np.repeat(np.arange(users), 5), np.ravel(ids))
    return scipy.sparse.csr_matrix(entries, shape=(users, 7 * count))


def test_weights_are_judged_by_what_a_run_is_judged_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recall and nDCG of each weight are those of a network with the term of that weight beside it."""
    monkeypatch.setattr(trial, "_BLOCK", 17)
    monkeypatch.setattr(direct, "_AT_ONCE", 300)
    torch.manual_seed(0)
    seen, hidden = split_rows(random_pairs(np.random.default_rng(0), (60, 40), 0.2), 0.3, 0)
    encoder = BagEncoder(40, 6)
    head = wh.ExactHead(6, 40, loss=wh.losses.SquaredError())
    head.load_weight(torch.randn(40, 6))
    network = WideNetwork(encoder, head).eval()
    users = np.flatnonzero(np.diff(hidden.indptr))
    held = RowExamples(seen[users], hidden[users])
    found = ranked([network], DirectTerm(seen, 1.0), held, [3, 10], list(WEIGHTS))
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
    found = ranked([network], DirectTerm(seen, 1.0), RowExamples(seen, hidden), [5], list(WEIGHTS))
    assert found.min() == found.max() == 1.0  # whatever the order, the two hidden ones alone are left


def test_gains_are_of_means_over_metrics_and_errors_of_differences_between_users() -> None:
    rng = np.random.default_rng(0)
    each = rng.random((len(WEIGHTS), 50, 4))
    of_users = compared(each)
    missing, errors = behind(of_users, 2)
    for weight in range(len(WEIGHTS)):
        ratios = [each[weight, :, j].mean() / each[0, :, j].mean() for j in range(4)]
        assert of_users[weight].mean() == pytest.approx(np.mean(ratios))
        apart = [
            np.mean([(each[2, u, j] - each[weight, u, j]) / each[0, :, j].mean() for j in range(4)]) for u in range(50)
        ]
        assert missing[weight] == pytest.approx(np.mean(apart))
        assert errors[weight] == pytest.approx(np.std(apart) / 50**0.5)


def test_where_nothing_is_found_the_usual_is_taken() -> None:
    settings = [(width, weight) for width in (8, 4) for weight in WEIGHTS]
    assert best(settings, compared(np.zeros((12, 50, 4)))) == (8, SAFE)


def of_users(means: list[float], error: float) -> np.ndarray:
    """(s, m) of users, so that each difference between two settings has about such a standard error."""
    noise = np.random.default_rng(0).standard_normal((len(means), 4_000))
    noise -= noise.mean(axis=1, keepdims=True)
    return np.array(means)[:, None] + noise / noise.std(axis=1, keepdims=True) * error * (4_000 / 2) ** 0.5


def test_of_equal_items_the_first_ones_are_best() -> None:
    """As where runs rank; what sorts many numbers at once would mix them."""
    rng = np.random.default_rng(0)
    rows = np.sort(rng.integers(3, size=4_000))
    items = np.concatenate([np.flatnonzero(rows == row) - np.flatnonzero(rows == row)[0] for row in range(3)])
    own, direct = (rng.integers(3, size=4_000).astype(np.float64) for _ in range(2))
    found = trial._best(Both(3, rows, items, own, direct), 2.0, 50)
    assert found.tolist() == best_of_rows(rows, items, own + 2.0 * direct, 3, 50)[1].tolist()


@pytest.mark.parametrize(
    ("gains", "error", "weight"),
    [
        ([0.0, 0.1, 0.2, 0.25, 0.3, 0.31], 0.0025, 6.0),
        ([0.0, 0.1, 0.2, 0.25, 0.3, 0.31], 0.01, 3.0),  # 6 is no better, as far as can be told
        ([0.0, 0.1, 0.2, 0.25, 0.3, 0.31], 0.06, SAFE),
        ([0.0, 0.1, 0.05, 0.0, -0.1, -0.2], 0.01, 0.4),
        ([0.0, -0.1, -0.2, -0.3, -0.4, -0.5], 0.045, 0.0),
        ([0.0, -0.1, -0.2, -0.3, -0.4, -0.5], 0.055, 0.4),
        ([0.0, -0.1, -0.2, -0.3, -0.4, -0.5], 0.21, SAFE),
    ],
)
def test_of_weights_that_are_as_good_as_the_best_the_nearest_to_the_usual_one_is_taken(
    gains: list[float], error: float, weight: float
) -> None:
    assert best([(8, weight) for weight in WEIGHTS], of_users(gains, error)) == (8, weight)


@pytest.mark.parametrize(
    ("gains", "error", "setting"),
    [
        ([0.0, 0.1, 0.2, 0.3, 0.0, 0.0], 0.02, (8, 1.5)),  # (16, 8, 4) × (0.75, 1.5)
        ([0.0, 0.1, 0.2, 0.2, 0.3, 0.2], 0.02, (4, 0.75)),
        ([0.0, 0.1, 0.28, 0.29, 0.3, 0.2], 0.02, (8, 0.75)),  # 4 is no better than 8, nor 1.5 than 0.75
        ([0.0, 0.1, 0.22, 0.29, 0.3, 0.2], 0.02, (8, 1.5)),
        ([0.1, 0.27, 0.22, 0.285, 0.3, 0.2], 0.02, (8, 1.5)),  # more than one error behind is too far for a width
        ([0.1, 0.29, 0.22, 0.26, 0.3, 0.2], 0.02, (16, 1.5)),
    ],
)
def test_of_widths_that_are_as_good_as_the_best_the_widest_is_taken(
    gains: list[float], error: float, setting: tuple[int, float]
) -> None:
    settings = [(width, weight) for width in (16, 8, 4) for weight in (0.75, 1.5)]
    assert best(settings, of_users(gains, error)) == setting


def test_a_weight_that_is_not_tried_elsewhere_is_kept() -> None:
    assert best([(16, 2.0), (8, 2.0)], of_users([0.0, 0.1], 0.02)) == (8, 2.0)


@pytest.mark.parametrize(
    ("usual", "expected"),
    [(1024, [1024, 512, 256, 128]), (352, [352, 176, 88, 48]), (64, [64, 32, 16]), (16, [16]), (5, [5])],
)
def test_halves_quarters_and_eighths_are_tried(usual: int, expected: list[int]) -> None:
    assert widths(usual) == expected


def test_few_units_are_taken_where_few_numbers_say_it_all() -> None:
    """Four numbers of a user and an item; what more units learn is chance. With as many rooms as units each counts."""
    found = chosen(job_of(films()), config_of(width=0, direct=0.0), None)
    assert (found.units, found.weight, found.race[0][:2]) == (16, 0.0, [64.0, 0.0])
    assert "the network has 16 units and there is no direct term: 64 units +0.0 % (weight 0), 32 units +" in str(found)
    many = chosen(job_of(in_rooms(1_100, 64)), config_of(width=0, direct=0.0), None)
    assert (many.units, [row[0] for row in many.race]) == (64, [64.0, 32.0, 16.0])
    assert many.race[0][2] == 0.0 > max(gain for *_, gain, _ in many.race[1:])


def test_the_networks_of_a_trial_have_the_leading_units_of_the_widest() -> None:
    job, config = job_of(films()), config_of(width=8)
    both = small_networks(job, [8, 3], config)
    inputs, _ = job.examples(config).batch(np.arange(20))
    wide, narrow = (network.hidden(inputs) for network in both)
    assert torch.equal(wide[:, :3], narrow)
    alone = small_network(job, 3, config)
    # The same subspace: outputs are alike, whatever the signs and sizes of units.
    outputs = [network.head.scores(network.hidden(inputs)).detach() for network in (both[1], alone)]
    assert torch.allclose(*outputs, atol=1e-4 * float(outputs[0].abs().max()))


def test_the_term_weighs_nothing_where_it_loses_and_much_where_it_gains() -> None:
    """Eight units know all of what four numbers say, four do not."""
    enough, few = (tried(job_of(films()), config_of(width=width)) for width in (8, 4))
    assert (enough.weight, few.weight) == (0.0, 6.0)
    gains = np.array([gain for *_, gain, _ in few.race])
    assert (np.diff(gains) > 0.0).all()
    assert [tuple(row[:2]) for row in few.race] == [(4.0, weight) for weight in WEIGHTS]
    assert "8 units and there is no direct term: 8 units +0.0 % (weight 0), by" in str(enough)
    assert "4 units and the direct term weighs 6: 4 units +" in str(few)
    assert "(weight 6), by" in str(few)


def test_neither_network_nor_term_knows_what_is_hidden() -> None:
    """Of items by chance nobody can know the hidden ones; a term that had seen them would gain much."""
    rng = np.random.default_rng(3)
    columns = np.concatenate([rng.permutation(60)[:8] for _ in range(1_300)])
    matrix = scipy.sparse.csr_matrix((np.ones(len(columns), np.float32), (np.repeat(np.arange(1_300), 8), columns)))
    matrix.sort_indices()
    assert max(gain for *_, gain, _ in tried(job_of(matrix), config_of()).race) < 0.2


def test_others_are_asked_until_hidden_pairs_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of(films())
    monkeypatch.setattr(trial, "_ENOUGH", 880)  # so many are hidden of 220 users
    once = tried(job, config_of())
    monkeypatch.setattr(trial, "_ENOUGH", 881)
    twice = tried(job, config_of())
    monkeypatch.setattr(trial, "_ENOUGH", 1e9)
    often = tried(job, config_of())
    assert [(found.places, found.pairs) for found in (once, twice, often)] == [(220, 880), (440, 1_760), (1_100, 4_400)]
    gains = [[gain for *_, gain, _ in found.race[1:]] for found in (once, twice)]
    assert all(one != two for one, two in zip(*gains, strict=True))


def test_where_the_network_is_large_a_part_of_the_users_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of(films(2_000))
    monkeypatch.setattr(trial, "_PRODUCTS", 0.125 * 2_080 * 32**2)
    monkeypatch.setattr(trial, "_FEWEST", 10)
    found = tried(job, config_of(width=32))
    assert (found.users, found.width) == (1_000, 16)
    assert "of 1,000 users with 16 units at most" in str(found)
    monkeypatch.setattr(trial, "_FEWEST", 1_500)
    found = tried(job, config_of(width=32))
    assert (found.users, found.width) == (1_500, 24)


def test_cutoffs_beyond_the_items_take_no_memory() -> None:
    """A run refuses them later."""
    job, config = job_of(films()), config_of(width=8)
    assert tried(job, replace(config, at=(10**9,))) == tried(job, replace(config, at=(160,)))
    found = probed(job, replace(config, at=(10**9,)))
    assert found == probed(job, replace(config, at=(80,)))
    assert set(found.before) == {"recall@80", "ndcg@80"}


def test_so_many_users_are_asked_as_have_pairs_enough_and_as_ranking_has_time_for() -> None:
    few, many = (scipy.sparse.csr_matrix(np.ones((3, n), np.float32)) for n in (2, 100))
    assert (most_asked(few, 1), most_asked(many, 1)) == (8_000, 2_000)  # one pair is hidden of each, or twenty
    some = scipy.sparse.csr_matrix(np.ones((3, 10), np.float32))
    assert most_asked(some, 1) == 4_000  # two pairs of each
    one = scipy.sparse.csr_matrix(np.eye(300, 100, dtype=np.float32))
    assert most_asked(scipy.sparse.vstack([many, one], format="csr"), 1) == 2_000  # of these nothing can be hidden
    assert most_asked(many, 10_000_000) == 50
    assert most_asked(many, 10**12) == 1


def test_it_is_not_tried_where_users_are_few_or_asking_costs_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "tried", None)  # whoever calls it fails
    few = chosen(job_of(films(999)), config_of(direct=-1.0), None)
    because = "there is no direct term: fewer than 1,000 users have two items."
    assert (few.weight, str(few)) == (0.0, f"By default the network has 4 units and {because}")
    monkeypatch.setattr(direct, "_PRODUCTS", 1)
    dear = chosen(job_of(films()), config_of(direct=-1.0), None)
    assert (dear.weight, "more than a million products a user" in str(dear)) == (0.0, True)


def test_widths_are_tried_from_300_users_of_two_items_on() -> None:
    few = chosen(job_of(films(299)), config_of(width=0, direct=-1.0), None)
    assert (few.units, few.weight, few.race) == (64, 0.0, [])
    assert "fewer than 300 users have two items." in str(few)
    some = chosen(job_of(films(300)), config_of(width=0, direct=-1.0), None)
    assert [row[:2] for row in some.race] == [[64.0, 0.0], [32.0, 0.0], [16.0, 0.0]]  # the term asks for more of them
    assert "and there is no direct term, as fewer than 1,000 users have two items: 64 units" in str(some)
    without = str(chosen(job_of(films(300)), config_of(width=0, direct=0.0), None))
    assert "and there is no direct term: 64 units" in without


def test_a_width_that_is_given_is_kept() -> None:
    found = chosen(job_of(films()), config_of(width=64, direct=-1.0), None)
    assert (found.units, [row[:2] for row in found.race]) == (64, [[64.0, weight] for weight in WEIGHTS])


@pytest.mark.parametrize(("at", "expected"), [((6, 50), [3, 6, 12]), ((1,), [1, 1, 2]), ((50,), [25, 50, 80])])
def test_lists_are_half_once_and_twice_as_long_as_the_first_cutoff(
    at: tuple[int, ...], expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = list[list[int]]()

    def noted(*given: Any) -> np.ndarray:
        found.append(given[3])
        return ranked(*given)

    monkeypatch.setattr(trial, "ranked", noted)
    tried(job_of(films()), config_of(at=at))
    assert np.unique(found, axis=0).tolist() == [expected]  # of the 80 items at most


def test_standard_errors_are_of_how_far_settings_are_behind_the_best_one() -> None:
    """They are told of each, for the table: the best one has none, whichever it is."""
    race = trial.tried(job_of(films()), config_of(), [32, 16], [0.0, 3.0]).race
    gains, errors = [row[2] for row in race], [row[3] for row in race]
    first = int(np.argmax(gains))
    assert (first > 0, errors[first]) == (True, 0.0)
    assert min(errors[:first] + errors[first + 1 :]) > 0.0


def test_several_networks_are_ranked_one_after_another_with_one_weight_after_another() -> None:
    job, config, weights = job_of(films(400)), config_of(), [0.75, 3.0]
    seen, users, hidden = hidden_pairs(job.train.matrix, 0)
    networks, term, held = small_networks(job, [8, 3], config), DirectTerm(seen, 1.0), RowExamples(seen[users], hidden)
    each = [ranked([network], term, held, [5], [weight]) for network in networks for weight in weights]
    assert np.array_equal(ranked(networks, term, held, [5], weights), np.concatenate(each))
    assert len(np.unique(np.concatenate(each).mean(axis=1), axis=0)) == 4


def test_a_narrower_width_is_what_is_trained_and_what_the_run_says(tmp_path: Path) -> None:
    matrix = films(400)
    (tmp_path / "train.txt").write_text("".join(f"u{u} {' '.join(map(str, matrix[u].indices))}\n" for u in range(400)))
    config = configure("recommender", train=str(tmp_path / "train.txt"), out=str(tmp_path / "run"))
    run = Run.new(config)
    found = run.folder.trial_path
    run.train(quiet=True)
    assert (run.config.width, run.network.head.weight().shape) == (16, (80, 16))
    assert run.config.because == "the default; width 16 and not 64, by hidden pairs"
    assert json.loads(found.read_text())["units"] == 16
    job = cast(Recommender, Recommender.of(config, config.train).job)
    settled = job.settled(config)
    assert (settled.width, settled.because) == (16, run.config.because)
    assert job.settled(config) == job.settled(settled) == settled


@pytest.mark.parametrize(("direct", "tried"), [(-1.0, WEIGHTS), (0.0, (0.0,)), (2.0, (2.0,))])
def test_what_is_given_is_kept_and_what_is_not_is_tried_once(
    direct: float, tried: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = list[list[Any]]()

    def noted(job: Recommender, config: Any, units: list[int], weights: list[float], share: Any) -> Trial:
        calls.append([units, weights])
        return Trial(16, weights[-1], "tried elsewhere")

    monkeypatch.setattr(trial, "tried", noted)
    job, config = job_of(films()), config_of(width=0, direct=direct)
    found = job.settled(config)
    assert (found.width, found.direct) == (16, tried[-1])
    assert job.settled(config) == found
    assert calls == [[[64, 32, 16], list(tried)]]


@pytest.mark.parametrize(("units", "because"), [(64, ""), (32, "the default; width 32 and not 64, by hidden pairs")])
def test_a_run_says_why_only_if_it_is_narrower(units: int, because: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "tried", lambda *_: Trial(units, 0.0, "tried elsewhere"))
    found = job_of(films()).settled(replace(config_of(width=0), because=""))
    assert (found.width, found.because) == (units, because)


def test_where_a_weight_is_given_neighbours_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """They and the term have a say of the same kind: both would be refused."""
    monkeypatch.setattr(recommender, "probed", lambda *_: Probe(500, "tried elsewhere"))
    config = job_of(films()).settled(config_of(neighbours=-1, direct=2.0))
    assert (config.neighbours, config.direct) == (0, 2.0)


def test_several_processes_ask_as_one_that_has_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what all of them have, not by what is here: here are ten users."""
    given: list[Any] = []
    monkeypatch.setattr(trial, "tried", lambda *found: given.append(found[2:]) or Trial(4, 1.5))
    share = cast(Any, object())
    monkeypatch.setattr(trial, "totals", lambda found, *_: (1_000, 1) if found is share else (0, 0))
    monkeypatch.setattr(trial, "num_products", lambda *_: 1)
    job = job_of(films(10))
    assert chosen(job, config_of(direct=-1.0), share).weight == 1.5
    assert chosen(job, config_of(direct=1.5, width=0), share) == Trial(4, 1.5)
    usual = job.usual_width(config_of(width=0))[0]
    assert given == [([4], list(WEIGHTS), share), (widths(usual), [1.5], share)]
    monkeypatch.setattr(trial, "affordable", lambda *_: False)
    found = chosen(job, config_of(direct=-1.0), share)
    assert (found.weight, found.because) == (0.0, "the term would take more than a million products a user")


def test_a_run_keeps_what_was_found_and_does_not_try_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recommender, "probed", lambda *_: Probe(0, "tried elsewhere"))
    path, matrix = tmp_path / "train.txt", films()
    path.write_text("".join(f"u{u} {' '.join(map(str, matrix[u].indices))}\n" for u in range(matrix.shape[0])))
    config = configure("recommender", train=str(path), out=str(tmp_path / "run"), at=(5,), width=4)
    run = Run.new(config)
    run.train(quiet=True)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["direct"] == 6.0
    found = Trial.read(tmp_path / "run" / "trial.json")
    assert found is not None
    assert run.data.tried == f"By default neighbours do not rank: tried elsewhere. {found}"
    monkeypatch.setattr(recommender, "chosen", None)
    again = Run.open(tmp_path / "run")
    again.train(quiet=True, epochs=2)
    assert again.network.beside.weight == 6.0
    page = again.report().read_text(encoding="utf-8")
    assert f"{100 * found.race[-1][2]:+.2f} %" in page.replace("&#43;", "+")
    for damaged in ('{"weight": -1.0}', '{"weight": 1.0, "race": [[4.0, 0.4, NaN, 0.0]]}', '{"weigh": 1.0}'):
        (tmp_path / "run" / "trial.json").write_text(damaged)
        with pytest.raises(CheckpointError, match=r"trial\.json"):
            again.report()


def test_a_weight_that_is_given_tries_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recommender, "chosen", None)
    (tmp_path / "train.txt").write_text("".join(f"{u} {' '.join(row)}\n" for u, row in enumerate(rooms(1_100, 20))))
    for weight in (0.0, 2.0):
        out = tmp_path / f"run{weight}"
        run = Run.new(configure("recommender", train=str(tmp_path / "train.txt"), out=str(out), width=4, direct=weight))
        assert run.config.direct == weight
        assert not (out / "trial.json").exists()


def test_trying_leaves_the_runs_own_random_numbers_alone() -> None:
    state = torch.get_rng_state()
    tried(job_of(films()), config_of())
    assert torch.equal(torch.get_rng_state(), state)
