"""A race for what votes and margins count: what wins, by what, and that nothing is judged by what it was fitted to."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

from widehead.data import RowExamples
from widehead.jobs.candidates import NONE, TOLD, Candidates, Choice
from widehead.jobs.race import Grid, Race, _smoothed
from widehead.metrics import Evaluation, Propensities

_DOCUMENTS, _LABELS, _FOUND = 300, 60, 12
_GRIDS: list[Grid] = [((0.0,), (0.0, 1.0, 4.0), (0.0, 0.5)), ((2.0, 3.0), (0.0, 4.0), (0.0, 0.5))]
_NAMES = ["precision@1", "psp@3"]


def planted(tells: str) -> tuple[Candidates, RowExamples]:
    """Candidates of documents with one label each, of which one of what ranks tells, or a product of two.

    "difference": the label has few votes and a large score; a sum of both knows nothing of it, weights do.
    """
    rng = np.random.default_rng(3)
    classes = np.stack([rng.permutation(_LABELS)[:_FOUND] for _ in range(_DOCUMENTS)])
    own = -np.sort(-rng.random((_DOCUMENTS, _FOUND)), axis=1)
    right = rng.integers(0, _FOUND if tells != "network" else 2, _DOCUMENTS)
    votes, margins = rng.random((_DOCUMENTS, _FOUND)), rng.standard_normal((_DOCUMENTS, _FOUND))
    trees = -rng.random((_DOCUMENTS, _FOUND))
    every = np.arange(_DOCUMENTS)
    if tells == "votes":
        votes[every, right] += 1.0
    elif tells == "margins":
        margins[every, right] = 1.0 + rng.random(_DOCUMENTS)
    elif tells == "trees":
        trees[every, right] = 0.5 * rng.random(_DOCUMENTS)
    elif tells == "difference":
        votes = np.exp(-4.0 * own) * np.exp(0.05 * rng.standard_normal(own.shape))
        votes[every, right] *= 0.2
    columns = scipy.sparse.csr_matrix((votes.ravel(), classes.ravel(), np.arange(0, votes.size + 1, _FOUND)))
    columns.resize(_DOCUMENTS, _LABELS)
    candidates = Candidates.of(own, classes, columns)
    order = np.argsort(classes, axis=1)
    candidates.margins, candidates.trees = (
        np.take_along_axis(part, order, axis=1).ravel() for part in (margins, trees)
    )
    candidates.rareness = rareness(candidates.classes)
    labels = scipy.sparse.csr_matrix(
        (np.ones(_DOCUMENTS, dtype=np.float32), classes[every, right], np.arange(_DOCUMENTS + 1)),
        shape=(_DOCUMENTS, _LABELS),
    )
    return candidates, RowExamples(labels)


def propensities() -> Propensities:
    """The last half of the labels is rare."""
    return Propensities.from_counts(torch.tensor([100, 1]).repeat_interleave(_LABELS // 2), _DOCUMENTS)


def rareness(classes: np.ndarray) -> np.ndarray:
    return np.log(propensities().inverse.numpy()[classes])


def race(candidates: Candidates, held: RowExamples) -> Race:
    return Race(candidates, held, propensities(), _NAMES)


def judged(choice: Choice, candidates: Candidates, held: RowExamples, rows: np.ndarray) -> dict[str, float]:
    """The obvious twin: metrics of some documents, of which each is ranked by itself."""
    evaluation = Evaluation(_NAMES, propensities())
    scores = candidates.scores(choice)
    ranked = []
    for row in rows:
        own = np.flatnonzero(candidates.rows == row)
        ranked.append(candidates.classes[own[np.lexsort((candidates.classes[own], -scores[own]))]][:3])
    evaluation.add_ranked(torch.from_numpy(np.array(ranked)), held.batch(rows)[1])
    return evaluation.result()


@pytest.mark.parametrize("tells", ["network", "votes", "margins", "trees", "difference"])
def test_what_tells_of_labels_wins(tells: str) -> None:
    candidates, held = planted(tells)
    choice = race(candidates, held).best(_GRIDS, 1e-3)
    if tells == "votes":
        assert choice.weight > 0.0
    if tells == "margins":
        assert choice.margin > 0.0 or choice.weights
    if tells == "trees":
        assert choice.tree > 0.0 or choice.weights
    if tells == "difference":
        assert len(choice.weights) == len(TOLD)
        assert choice.after["precision@1"] > 1.5 * max(row[2] for row in choice.race) * choice.before["precision@1"]
    assert np.prod([choice.after[n] / choice.before[n] for n in _NAMES]) >= 1.0
    every = np.arange(_DOCUMENTS)
    assert choice.after == pytest.approx(judged(choice, candidates, held, every))
    assert choice.before == pytest.approx(judged(NONE, candidates, held, every))


@pytest.mark.parametrize("tells", ["votes", "trees", "difference"])
def test_a_race_is_the_mean_of_two_halves(tells: str) -> None:
    candidates, held = planted(tells)
    choice = race(candidates, held).best(_GRIDS, 1e-3)
    odd = np.random.default_rng(0).permutation(_DOCUMENTS) % 2 == 1
    spread = candidates.spread()
    assert choice.tree > 0.0 or tells != "trees"
    assert [tuple(row[:2]) for row in choice.race] == list(product(*_GRIDS[choice.tree > 0.0][1:]))
    for part, margin, gain in choice.race:
        pair = Choice(part * spread, margin, 1e-3 * spread, [], 0, {}, {}, [], tree=choice.tree)
        gains = []
        for half in (~odd, odd):
            rows = np.flatnonzero(half)
            before, after = (judged(c, candidates, held, rows) for c in (NONE, pair))
            ratios = [max(after[name], 1 / _DOCUMENTS) / max(before[name], 1 / _DOCUMENTS) for name in _NAMES]
            gains.append(np.prod(ratios) ** (1 / len(ratios)))
        assert gain == pytest.approx(np.mean(gains) if pair.helps else 1.0)


@pytest.mark.parametrize("documents", [1, 2, 3])
def test_few_documents_choose_without_an_error(documents: int) -> None:
    candidates, held = planted("votes")
    some = np.arange(_DOCUMENTS) < documents
    few = RowExamples(held.targets[:documents])
    choice = race(candidates.part(some), few).best(_GRIDS, 1e-3)
    assert choice.documents == documents
    choice.check()


def test_noise_has_no_say_beside_a_network_that_knows() -> None:
    """What was fitted to noise in one half does not help in the other, so that it has no say."""
    candidates, held = planted("network")
    assert not race(candidates, held).best(_GRIDS, 1e-3).weights


def test_a_part_has_the_candidates_of_its_documents() -> None:
    candidates, _ = planted("margins")
    rng = np.random.default_rng(0)
    some = rng.random(_DOCUMENTS) < 0.4
    choice = Choice(0.3, 0.5, 1e-3, [], 0, {}, {}, [], tree=0.7, rare=0.4)
    for whole, part in zip(candidates.best(choice, 5), candidates.part(some).best(choice, 5), strict=True):
        assert np.array_equal(whole[some], part)


@pytest.mark.parametrize(
    "changed",
    [
        {"weights": [1.0]},
        {"weight": -1.0},
        {"tree": -1.0},
        {"rare": -1.0},
        {"rare": 1.0, "weights": [1.0] * len(TOLD)},
        {"least": 0.0},
        {"power": np.inf},
        {"power": 1e9},  # no feature counts anything any more
        {"power": -1e9},
    ],
)
def test_choices_that_cannot_have_been_made_are_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="weight"):
        replace(NONE, **changed).check()


def behind(shift: float) -> tuple[Candidates, RowExamples]:
    """Candidates whose margins tell of the right label, but are less by ``shift`` where that is rare, as half are."""
    candidates, _ = planted("network")
    rng, is_rare = np.random.default_rng(5), candidates.classes >= _LABELS // 2
    right = np.array([rng.choice(np.flatnonzero(candidates.rows == row)) for row in range(_DOCUMENTS)])
    candidates.own[:] = 1.0
    candidates.margins = 0.3 * rng.standard_normal(len(candidates.rows)) - 1.0
    candidates.margins[right] += 1.0
    candidates.margins -= shift * is_rare
    parts = np.ones(_DOCUMENTS, dtype=np.float32), candidates.classes[right], np.arange(_DOCUMENTS + 1)
    return candidates, RowExamples(scipy.sparse.csr_matrix(parts, shape=(_DOCUMENTS, _LABELS)))


@pytest.mark.parametrize("shift", [0.6, 0.1, 0.0, -0.6])
def test_rare_labels_have_what_costs_no_precision(shift: float) -> None:
    """By the obvious twin: all values one by one, and the mean of each with those beside it."""
    candidates, held = behind(shift)
    choice = race(candidates, held).best([((0.0,), (0.0,), (4.0,))], 1e-3)
    assert (choice.margin, choice.weights) == (4.0, [])
    rares, every = [part * 5.0 for part in (0.0, 0.1, 0.2, 0.3, 0.4)], np.arange(_DOCUMENTS)
    found = [judged(replace(choice, rare=rare), candidates, held, every) for rare in rares]
    gains = [10.0 * np.log(one["precision@1"]) + np.log(one["psp@3"]) for one in found]
    around = [np.mean(gains[max(0, i - 1) : i + 2]) for i in range(5)]
    assert choice.rare == pytest.approx(rares[int(np.argmax(around))])
    assert choice.after == pytest.approx(judged(choice, candidates, held, every))
    assert (choice.rare > 0.0) == (shift > 0.0)
    if shift == 0.6:
        assert choice.after["precision@1"] > found[0]["precision@1"]
        assert choice.after["psp@3"] > found[0]["psp@3"]


@pytest.mark.parametrize("margin", [0.0, 4.0])
def test_a_percent_of_precision_is_worth_ten_of_what_rare_labels_gain(
    margin: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0.2: 0.1 is the best by itself, 0.4 with three instead of ten, 0 with a hundred; a network alone gets nothing."""
    precision, psp = (1.0, 1.0005, 0.999, 0.9965, 0.985), (1.0, 1.035, 1.045, 1.06, 1.10)

    def given(_: Race, choice: Choice, *__: Any) -> dict[str, float]:
        place = round(choice.rare / choice.total * 10)
        return {"precision@1": 0.5 * precision[place] + 0.01 * choice.margin, "psp@3": 0.2 * psp[place]}

    candidates, held = behind(0.0)
    monkeypatch.setattr(Race, "_judged", given)
    monkeypatch.setattr(Race, "_weights_are_better", lambda *_: False)
    choice = race(candidates, held).best([((0.0,), (0.0,), (margin,))], 1e-3)
    assert choice.margin == margin
    assert choice.rare == pytest.approx(0.2 * 5.0 if margin else 0.0)


def test_rare_labels_have_nothing_beside_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates, held = behind(0.6)
    monkeypatch.setattr(Race, "_weights_are_better", lambda *_: True)
    choice = race(candidates, held).best([((0.0,), (0.0,), (4.0,))], 1e-3)
    assert choice.weights
    assert choice.rare == 0.0


def test_settings_are_judged_by_what_is_around_them() -> None:
    rng = np.random.default_rng(0)
    grids: list[Grid] = [((0.0,), (0.0, 1.0, 2.0), (0.0, 1.0)), ((1.0, 2.0), (0.0, 1.0), (0.0, 1.0, 2.0, 3.0))]
    gains = rng.random((6 + 16, 2))
    found, first = _smoothed(grids, gains), 0
    for grid in grids:
        places = list(product(*(range(len(axis)) for axis in grid)))
        for i, place in enumerate(places):
            near = [j for j, other in enumerate(places) if np.abs(np.subtract(place, other)).max() <= 1]
            np.testing.assert_allclose(found[first + i], gains[first:][near].mean(axis=0))
        first += len(places)
    assert first == len(found)


def test_one_lucky_setting_does_not_win(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates, held = planted("network")
    given = {0.0: 1.0, 0.5: 1.2, 1.0: 1.25, 2.0: 0.5, 4.0: 1.3}
    monkeypatch.setattr(Race, "_gain", lambda _, choice, half: given[round(choice.weight / candidates.spread(), 3)])
    monkeypatch.setattr(Race, "_weights_are_better", lambda *_: False)
    choice = race(candidates, held).best([((0.0,), tuple(given), (0.0, 0.5))], 1e-3)
    assert choice.weight / candidates.spread() == pytest.approx(0.5)


def test_trees_alone_help() -> None:
    choice = replace(NONE, tree=0.5)
    assert (choice.helps, choice.takes_trees, choice.takes_margins) == (True, True, False)
    assert "label trees 0.5" in str(choice)
    assert "trees" not in str(replace(choice, tree=0.0, weight=1.0))
    assert "rare" not in str(choice)
    assert "label trees 0.5, rare labels 0.25" in str(replace(choice, rare=0.25))
