"""Sequences like the given one beside a network: a slow twin of what tells of an item, weights, runs that have both."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.chosen import KnownHead, train_on_and_die
from support.sessions import run_in, walks, write_walks

import widehead as wh
from widehead.data import SequenceExamples
from widehead.errors import CheckpointError
from widehead.jobs import configure, logit, next_item, session_votes
from widehead.jobs.logit import Told, fitted
from widehead.jobs.session_votes import FEATURES, FEWEST, SessionVotes, SessionWeights, held_ends, held_out
from widehead.runs import Run
from widehead.targets import SparseTargets


def twin(
    known: list[list[int]], history: list[int], scores: dict[int, float], count: int, lengths: tuple[int, ...]
) -> dict[int, list[float]]:
    """What tells of each item that may come after a history, from the definitions, an item at a time."""
    last = {item: place for place, item in enumerate(history)}
    back = {item: len(history) - 1 - place for item, place in last.items()}
    holds = Counter(item for row in known for item in row)
    found = []
    for number, row in enumerate(known):
        shared = [item for item in set(row) if back.get(item, 10) < 10]
        if not shared:
            continue
        alike = sum(
            row.count(i) * math.exp(-back[i] / 3) * max(math.log(len(known) / holds[i]), 0.0) ** 2 for i in shared
        )
        nearest = min(shared, key=lambda i: back[i])
        place = len(row) - 1 - row[::-1].index(nearest)
        found.append((-alike / len(row) ** 0.5, -number, place, math.exp(-back[nearest] / 3)))
    votes: Counter[int] = Counter()
    later: Counter[int] = Counter()
    for alike, number, place, near in sorted(found)[:count]:
        for at, item in enumerate(known[-number]):
            if 0 < abs(at - place) <= 10:
                vote = -alike * near * math.exp((1 - abs(at - place)) / 3)
                votes[item] += vote
                later[item] += vote * (at > place)
    flat = [item for row in known for item in row]
    shares = [
        {
            item: math.log(part[item] / sum(part.values()) + 1e-3) if sum(part.values()) else math.log(1e-3)
            for item in part
        }
        for part in (votes, later)
    ]
    floor = min(scores.values())
    return {
        item: [
            scores.get(item, floor),
            *(share.get(item, math.log(1e-3)) for share in shares),
            *(float(back.get(item, -1) == 0), float(back.get(item, -1) > 0), float(back.get(item, -1) == 1)),
            float(history.count(item)),
            *(math.log1p(flat[len(flat) - length :].count(item)) for length in lengths),
        ]
        for item in {*scores, *votes, *back}
    }


@pytest.mark.parametrize("seed", range(4))
def test_what_tells_of_an_item_is_that_of_a_slow_twin(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Items that come again, in the given sequence and in known ones; few neighbours, equally near ones; all places."""
    monkeypatch.setattr(session_votes, "_FIRST", 6)
    monkeypatch.setattr(session_votes, "_AT_ONCE", 3)  # histories in several parts
    rng = np.random.default_rng(seed)
    known = [rng.integers(25, size=rng.integers(1, 30)).tolist() for _ in range(60)]
    ids, offsets = np.concatenate(known), np.cumsum([0, *map(len, known)])
    asked = [rng.integers(30, size=n).tolist() for n in (1, 2, 14, 5)]
    values = np.concatenate([np.ones(3), rng.integers(0, 2, 14 + 5)]).astype(np.float32)
    values[-1] = 1.0
    inputs = SparseTargets(np.concatenate(asked), np.cumsum([0, *map(len, asked)]), values)
    places = np.flatnonzero(values)
    scores = torch.from_numpy(rng.standard_normal((len(places), 30)).astype(np.float32))
    scores[0] = -torch.inf  # an index that finds nothing
    scores[1, 2:] = -torch.inf
    made = SessionVotes(ids, offsets, 30, 7, 50)
    found = Told.together(list(made.candidates(KnownHead(scores), inputs, torch.arange(len(places))[:, None], 4)))
    assert found.m == len(places)
    whole = [item for row in asked for item in row]
    begins = np.repeat(np.cumsum([0, *map(len, asked[:-1])]), [len(row) for row in asked])
    lengths = tuple(int(part * len(ids)) for part in (0.02, 0.1, 1.0))
    for row, place in enumerate(places):
        best = {int(i): float(scores[row, i]) for i in scores[row].topk(6).indices if scores[row, i] > -torch.inf}
        history = whole[begins[place] : place + 1]
        expected = twin([*known], history, best or {history[-1]: 0.0}, 7, lengths)
        here = found.rows == row
        assert found.items[here].tolist() == sorted(expected)
        np.testing.assert_allclose(
            found.features[here], [expected[item] for item in sorted(expected)], rtol=2e-5, atol=2e-5
        )


def test_the_best_are_those_of_all_scores_and_places_that_none_takes_are_marked() -> None:
    rng = np.random.default_rng(0)
    found = Told(
        3, np.array([0, 0, 0, 2]), np.array([1, 4, 7, 2]), rng.standard_normal((4, len(FEATURES))).astype(np.float32)
    )
    weights = rng.standard_normal(len(FEATURES))
    scores, items = found.best(weights, 2)
    values = found.features.astype(np.float64) @ weights
    first = np.argsort(-values[:3])[:2]
    assert items.tolist() == [found.items[first].tolist(), [-1, -1], [2, -1]]
    np.testing.assert_array_equal(scores, [values[first], [-np.inf, -np.inf], [values[3], -np.inf]])


def test_weights_are_the_likeliest() -> None:
    """The slope of their loss is 0 in all directions; places without their target among the candidates do not count."""
    rng = np.random.default_rng(0)
    rows, items = np.repeat(np.arange(80), 9), np.tile(np.arange(9), 80)
    features = rng.standard_normal((720, len(FEATURES))).astype(np.float32)
    true = rng.standard_normal(len(FEATURES))
    chances = np.exp(features @ true).reshape(80, 9)
    targets = np.array([rng.choice(9, p=row / row.sum()) for row in chances])
    targets[:5] = 99
    used = np.arange(80) % 4 > 0
    found = Told(80, rows, items, features)
    made = fitted(found, (items == targets[rows]) & used[rows])

    def loss(weights: np.ndarray) -> float:
        outputs = (features @ weights).reshape(80, 9)[5:]
        said = outputs[np.arange(75), targets[5:]] - np.log(np.exp(outputs).sum(1))
        return float(-said[used[5:]].mean() + 1e-4 * (weights**2).sum())

    slopes = [(loss(made + step) - loss(made - step)) / 2e-3 for step in 1e-3 * np.eye(len(FEATURES))]
    np.testing.assert_allclose(slopes, 0.0, atol=2e-4)
    assert np.abs(made).max() > 0.5
    nothing = fitted(found, np.zeros(720, dtype=bool))
    assert nothing.tolist() == [1.0] + [0.0] * (len(FEATURES) - 1)


@pytest.mark.parametrize(("head", "options"), [("full", {}), ("exact", {"hidden_norm": None}), ("sampled", {})])
def test_small_rooms_are_found_again(tmp_path: Path, head: str, options: dict[str, Any]) -> None:
    write_walks(tmp_path)
    alone = run_in(tmp_path, "alone", head=head, neighbours=0, **options).evaluate(tmp_path / "test.txt")
    together = run_in(tmp_path, head=head, **options).evaluate(tmp_path / "test.txt")
    assert alone["recall@5"] < 0.5 < 0.9 < together["recall@5"]


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    write_walks(tmp_path)
    run_in(tmp_path)
    path = tmp_path / "run" / "neighbours.json"
    text = path.read_text()
    for wrong in ('{"weights": [1, 2]}', text.replace('"weights": [', '"weights": [NaN, '), "no JSON"):
        path.write_text(wrong)
        with pytest.raises(CheckpointError, match=r"neighbours\.json"):
            Run.open(tmp_path / "run").evaluate(tmp_path / "test.txt")
    path.write_text(text)
    kept = tmp_path / "run" / "vocabularies" / "sequences.safetensors"
    whole = kept.read_bytes()
    for damaged in (whole[:-8], whole[:-8] + bytes([255] * 8)):
        kept.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"sequences\.safetensors"):
            Run.open(tmp_path / "run").evaluate(tmp_path / "test.txt")


def test_estimators_hear_sequences_too() -> None:
    sessions = walks(2_300)
    model = wh.NextItem(width=4, epochs=1, at=(5,), quiet=True).fit(sessions[:2_200])
    assert model.score(sessions[2_200:]) > 0.9
    found, scores = model.recommend([["3.1", "3.4"], ["unheard"]], 5)
    assert {name.partition(".")[0] for name in found[0, :3]} == {"3"}
    assert np.all(np.diff(scores[0]) <= 0)
    assert found[1].tolist() == [None] * 5


def test_items_that_no_known_sequence_has_beside_others_have_no_votes(tmp_path: Path) -> None:
    """One stands alone in a sequence, which trains nothing; and sequences to choose by have nothing in common."""
    (tmp_path / "train.txt").write_text("".join(" ".join(row) + "\n" for row in [*walks(2_200), ["lonely"]]))
    run = run_in(tmp_path, holdout=0.0)
    (tmp_path / "asked.txt").write_text("lonely\nlonely 3.1 3.4\n")
    alone = run.predict([["lonely"]], 3)
    found = [prediction.classes for prediction in alone] + [p.classes for p in run.predict(tmp_path / "asked.txt", 3)]
    assert found[0] == found[1]
    assert len(set(found[0])) == 3
    assert {"3.0", "3.2", "3.3"} >= {*found[2]} - {"lonely", "3.1", "3.4"}
    (tmp_path / "train.txt").write_text("".join(f"{i}.0 {i}.1 {i}.2\n" for i in range(2_200)))
    apart = run_in(tmp_path, "apart", holdout=0.0)
    choice = SessionWeights.read(apart.folder.neighbours_path)
    assert choice is not None
    assert choice.places == 2 * held_out(2_200)


def test_what_does_not_help_has_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that do worse on the other half of the places are dropped: here the fit is turned round."""
    fit = fitted
    monkeypatch.setattr(logit, "fitted", lambda *given: -fit(*given))
    rng = np.random.default_rng(0)
    ids = np.concatenate([np.roll(np.arange(10), i)[:5] for i in rng.integers(10, size=100)])
    offsets = np.arange(0, len(ids) + 1, 5)
    network = torch.nn.Module()
    network.hidden = lambda inputs: inputs.class_ids[:, None]  # type: ignore[assignment]
    network.head = KnownHead(torch.eye(10).roll(1, dims=1))  # knows all: after i comes i + 1
    held = SequenceExamples(ids, offsets[60:-1], offsets[61:])
    choice = SessionVotes(ids[:300], offsets[:61], 10, 5, 50).chosen(network, held, ["recall@1"], 0)
    assert (choice.weights, choice.places, choice.before) == ([], 160, {"recall@1": 1.0})
    assert choice.after["recall@1"] < 1.0
    assert "have no say, by 160 places" in str(choice)
    assert choice.table()[1] == []


def test_so_many_places_choose_as_memory_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole batches of five sequences, which have four places each."""
    rng = np.random.default_rng(0)
    ids = np.concatenate([rng.permutation(10)[:5] for _ in range(100)])
    offsets = np.arange(0, len(ids) + 1, 5)
    network = torch.nn.Module()
    network.hidden = lambda inputs: inputs.class_ids[:, None]  # type: ignore[assignment]
    network.head = KnownHead(torch.eye(10))
    held, votes = SequenceExamples(ids, offsets[60:-1], offsets[61:]), SessionVotes(ids[:300], offsets[:61], 10, 5, 50)
    for bounds, places in (((8_000, 8_000_000), 160), ((41, 8_000_000), 60), ((40, 8_000_000), 40), ((8_000, 1), 20)):
        monkeypatch.setattr(session_votes, "_MOST_PLACES", bounds[0])
        monkeypatch.setattr(session_votes, "_MOST_PAIRS", bounds[1])
        assert votes.chosen(network, held, ["recall@1"], 0, size=5).places == places


def test_of_an_item_in_very_many_places_the_last_ones_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_votes, "_OCCURRENCES", 4)
    monkeypatch.setattr(session_votes, "_FIRST", 1)
    ids, offsets = np.stack([np.zeros(12, dtype=np.int64), np.arange(1, 13)], axis=1).ravel(), np.arange(0, 25, 2)
    votes, asked = SessionVotes(ids, offsets, 13, 50, 50), SparseTargets(np.zeros(1, dtype=np.int64), np.array([0, 1]))
    (found,) = votes.candidates(KnownHead(torch.eye(1, 13)), asked, torch.zeros(1, 1), 1)
    assert found.items.tolist() == [0, 9, 10, 11, 12]


def test_sequences_to_choose_by_train_nothing_and_are_the_last_ones(tmp_path: Path) -> None:
    lines = [f"a{i % 9} b{i % 7} c{i}" for i in range(2_500)]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    for neighbours, held in ((0, 0), (10, 122)):
        options = {"neighbours": neighbours, "holdout": 0.02, "width": 4}
        config = configure("next-item", train=str(tmp_path / "train.txt"), out=str(tmp_path / f"{held}"), **options)
        data = Run.new(config).data
        assert len(data.examples) == 2_450 - held
        if held:
            assert data.joining is not None
            later = data.joining.batch(np.arange(len(data.joining)))[1].class_ids.bincount()
            times = torch.ones(2_450, dtype=torch.int64)
            times[-held:] = next_item._TIMES
            assert later[[data.job.class_names.index(f"c{i}") for i in range(2_450)]].tolist() == times.tolist()
        inputs = data.examples.batch(np.arange(len(data.examples)))[1].class_ids
        assert data.job.class_names[int(inputs[-1])] == f"c{2_449 - held}"
    assert (held_out(FEWEST - 1), held_out(FEWEST), held_out(10**7)) == (0, 100, 4_000)


def test_what_chooses_knows_nothing_of_the_sequences_to_choose_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_walks(tmp_path, 3_800)  # so many that ends choose, too
    known: list[list[int]] = []
    make = SessionVotes.__init__

    def watched(self: SessionVotes, ids: np.ndarray, offsets: np.ndarray, *rest: Any) -> None:
        known.append([len(ids), *offsets.tolist()])
        make(self, ids, offsets, *rest)

    monkeypatch.setattr(SessionVotes, "__init__", watched)
    run = run_in(tmp_path, holdout=0.0)
    ids, offsets = run.job._known  # type: ignore[attr-defined]
    assert len(ids) == offsets[-1]
    left = len(offsets) - 1 - held_out(len(offsets) - 1)
    lengths = np.diff(offsets[: left + 1])
    short = held_ends(lengths, 0, 50)
    assert short.any()
    lengths = lengths - short
    assert known[0] == [lengths.sum(), *np.cumsum([0, *lengths])]


def test_few_sequences_are_all_trained_on(tmp_path: Path) -> None:
    write_walks(tmp_path, 700)
    run = run_in(tmp_path)
    assert run.network.beside is None
    assert not (tmp_path / "run" / "vocabularies" / "sequences.safetensors").exists()


def test_what_was_chosen_for_other_weights_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_walks(tmp_path)
    run = run_in(tmp_path, stop=3)
    choice = SessionWeights.read(tmp_path / "run" / "neighbours.json")
    assert choice is not None
    assert choice.after["recall@5"] > choice.before["recall@5"]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["neighbours"] == 200
    train_on_and_die(run, SessionVotes, monkeypatch)
