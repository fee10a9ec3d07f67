"""Sequences like the given one beside a network: a slow twin of what tells of an item, weights, runs that have both."""

from __future__ import annotations

import json
import math
import re
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
    made = SessionVotes(ids, offsets, 30, 7)
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
    choice = SessionVotes(ids[:300], offsets[:61], 10, 5).chosen(network, held, ["recall@1"], 0)
    assert (choice.weights, choice.places, choice.before) == ([], 160, {"recall@1": 1.0})
    assert choice.after["recall@1"] < 1.0
    assert "have no say, by 160 places" in str(choice)
    assert choice.table()[1] == []


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
    write_walks(tmp_path)
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
    lengths = lengths - held_ends(lengths, 0)
    assert known[0] == [lengths.sum(), *np.cumsum([0, *lengths])]


def test_ends_to_choose_by_train_nothing_and_are_of_sequences_that_stay_known(tmp_path: Path) -> None:
    lines = [" ".join(f"{i}.{j}" for j in range(2 + i % 4)) for i in range(5_000)]
    (tmp_path / "train.txt").write_text("\n".join(lines))
    options = {"neighbours": 10, "holdout": 0.0, "width": 4, "seed": 3}
    data = Run.new(configure("next-item", train=str(tmp_path / "train.txt"), out=str(tmp_path / "run"), **options)).data
    assert data.joining is not None
    learnt, joined = (
        Counter(data.job.class_names[i] for i in some.batch(np.arange(len(some)))[1].class_ids)
        for some in (data.examples, data.joining)
    )
    kept = lines[: -held_out(5_000)]
    missing = [line.split()[-1] for line in kept if line.split()[-1] not in learnt]
    assert learnt.keys() == {item for line in kept for item in line.split()[1:]} - {*missing}
    late = [line for i, line in enumerate(lines) if i >= len(kept) or line.split()[-1] in missing]
    assert joined == Counter(item for line in [*lines, *late * (next_item._TIMES - 1)] for item in line.split()[1:])
    assert len(missing) == int(0.1 * sum(len(line.split()) > 3 for line in kept))
    assert {item.partition(".")[2] for item in missing} == {"3", "4"}
    lengths = np.full(FEWEST, 4)
    assert (held_ends(lengths, 0).sum(), held_ends(lengths[1:], 0).sum()) == (200, 0)
    assert (held_ends(lengths - 1, 0).sum(), held_ends(np.full(10**5, 4), 0).sum()) == (0, 2_000)
    assert (held_ends(lengths, 0) != held_ends(lengths, 1)).any()


@pytest.mark.parametrize("seed", range(4))
def test_sequences_that_go_on_are_those_that_a_slow_twin_finds(seed: int) -> None:
    """Few items, so that many agree by chance: short known sequences whole, long ones by their last ten items."""
    rng = np.random.default_rng(seed)
    known = [rng.integers(2 if n > 5 else 4, size=n).tolist() for n in rng.integers(1, 14, size=60)]
    asked = [rng.integers(4, size=n).tolist() for n in (1, 2, 3, 14)]
    asked += [row + rng.integers(4, size=2).tolist() for row in known[:20]]
    asked += [rng.integers(4, size=3).tolist() + row for row in known[:20]]
    made = SessionVotes(np.concatenate(known), np.cumsum([0, *map(len, known)]), 4, 7)
    values = rng.integers(0, 2, sum(map(len, asked))).astype(np.float32)
    whole = {tuple(row[-10:]) for row in known if len(row) >= 3}
    expected = [
        any(tuple(row[max(0, end - 10) : end]) in whole for end in range(3, place + 2))
        for row in asked
        for place in range(len(row))
    ]
    inputs = (np.concatenate(asked), np.cumsum([0, *map(len, asked)]))
    assert made.go_on(SparseTargets(*inputs)).tolist() == expected
    assert made.go_on(SparseTargets(*inputs, values)).tolist() == np.array(expected)[values > 0].tolist()
    assert 0.1 < np.mean(expected) < 0.9
    nothing = SessionVotes(np.array([1, 2]), np.array([0, 2]), 4, 7)
    assert not nothing.go_on(SparseTargets(*inputs)).any()


def test_what_goes_on_ranks_by_weights_of_its_own() -> None:
    """Of 300 places, more than are worked on at a time, two of three go on: these see scores turned round."""
    known = np.array([0, 1, 2])
    rows = [[0, 1, 2] if i % 3 else [3, 1, 2] for i in range(300)]
    values = np.tile([0.0, 0.0, 1.0], 300).astype(np.float32)
    inputs = SparseTargets(np.concatenate(rows), np.arange(0, 901, 3), values)
    weights = np.zeros((2, len(FEATURES)))
    weights[:, 0] = 1.0, -1.0
    head = KnownHead(torch.arange(6.0).expand(300, 6))
    made = SessionVotes(known, np.array([0, 3]), 6, 5, weights)
    scores, items = made.top_k(head, inputs, torch.arange(300)[:, None], 2)
    assert items.tolist() == [[0, 1] if i % 3 else [5, 4] for i in range(300)]
    assert scores.tolist() == [[0.0, -1.0] if i % 3 else [5.0, 4.0] for i in range(300)]


def test_users_whom_the_data_know_are_told_from_new_ones(tmp_path: Path) -> None:
    """New sequences stay in a late room, those that go on leave theirs for an old one: no weights do both."""
    rng = np.random.default_rng(0)

    def walks(rooms: np.ndarray) -> list[list[str]]:
        return [[f"{room}.{i}" for i in rng.permutation(6)[:5]] for room in rooms]

    old, late = walks(rng.integers(150, size=4_000)), walks(150 + rng.integers(3, size=400))
    (tmp_path / "train.txt").write_text("".join(" ".join(row) + "\n" for row in old + late))
    run = run_in(tmp_path, holdout=0.0)
    choice = SessionWeights.read(tmp_path / "run" / "neighbours.json")
    assert choice is not None
    lately = FEATURES.index("frequency in the last 10 %")
    new, known = choice.by_kind()
    assert new[lately] > known[lately] + 0.3
    assert f"Where known sequences go on they have a say, by {choice.known_places:,} last items" in str(choice)
    assert [row[0] for row in choice.table()[1]] == list(FEATURES)
    assert (run.network.beside.weights == choice.by_kind()).all()


@pytest.mark.parametrize("places", [-1, "9", None, 2.0])
def test_places_that_cannot_have_chosen_are_refused(tmp_path: Path, places: Any) -> None:
    path = tmp_path / "neighbours.json"
    SessionWeights([], 9, {}, {}, [], 9).write(path)
    assert SessionWeights.read(path) is not None
    path.write_text(json.dumps(json.loads(path.read_text()) | {"known_places": places}))
    with pytest.raises(CheckpointError, match=f"Found: {re.escape(repr(places))} places"):
        SessionWeights.read(path)


def test_what_goes_on_ranks_as_the_new_does_if_nothing_was_chosen_for_it() -> None:
    new, known = [2.0] * len(FEATURES), [3.0] * len(FEATURES)
    alone = [1.0] + [0.0] * (len(FEATURES) - 1)
    for choice, expected in (
        (SessionWeights(new, 9, {}, {}), (new, new)),
        (SessionWeights(new, 9, {}, {}, [], 9), (new, alone)),
        (SessionWeights([], 9, {}, {}, known, 9), (alone, known)),
    ):
        assert choice.by_kind().tolist() == [*expected]
        assert choice.helps
    assert not SessionWeights([], 9, {}, {}, [], 9).helps
    with pytest.raises(ValueError, match="weights"):
        SessionWeights(new, 9, {}, {}, [float("nan")] * len(FEATURES), 9).check()


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
