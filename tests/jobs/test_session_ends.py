"""Sequences that go on from where a known one ended: how they are known again, and the weights that they rank by."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.chosen import KnownHead, trained

from widehead.jobs import configure, next_item
from widehead.jobs.session_votes import FEATURES, FEWEST, SessionVotes, SessionWeights, held_ends, held_out
from widehead.runs import Run
from widehead.targets import SparseTargets


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
    assert (held_ends(lengths, 0, 50).sum(), held_ends(lengths[1:], 0, 50).sum()) == (200, 0)
    assert (held_ends(lengths - 1, 0, 50).sum(), held_ends(np.full(10**5, 4), 0, 50).sum()) == (0, 2_000)
    assert (held_ends(lengths, 0, 50) != held_ends(lengths, 1, 50)).any()
    assert (held_ends(lengths, 0, 3).sum(), held_ends(lengths, 0, 2).sum()) == (200, 0)  # two tell nobody


@pytest.mark.parametrize("context", [2, 3, 6, 10, 50])
@pytest.mark.parametrize("seed", range(4))
def test_sequences_that_go_on_are_those_that_a_slow_twin_finds(seed: int, context: int) -> None:
    """Few items, so that many agree by chance: short known sequences whole, long ones by their last items, ten or C."""
    rng = np.random.default_rng(seed)
    known = [rng.integers(2 if n > 5 else 4, size=n).tolist() for n in rng.integers(1, 14, size=60)]
    asked = [rng.integers(4, size=n).tolist() for n in (1, 2, 3, 14)]
    asked += [row + rng.integers(4, size=2).tolist() for row in known[:20]]
    asked += [rng.integers(4, size=3).tolist() + row for row in known[:20]]
    made = SessionVotes(np.concatenate(known), np.cumsum([0, *map(len, known)]), 4, 7, context)
    values = rng.integers(0, 2, sum(map(len, asked))).astype(np.float32)
    last = min(10, context)
    whole = {tuple(row[-last:]) for row in known if len(row) >= 3 <= context}
    expected = [
        any(tuple(row[max(0, end - last) : end]) in whole for end in range(3, place + 2))
        for row in asked
        for place in range(len(row))
    ]
    inputs = (np.concatenate(asked), np.cumsum([0, *map(len, asked)]))
    assert made.go_on(SparseTargets(*inputs)).tolist() == expected
    assert made.go_on(SparseTargets(*inputs, values)).tolist() == np.array(expected)[values > 0].tolist()
    assert 0.1 < np.mean(expected) < 0.95 or (context, np.mean(expected)) == (2, 0.0)
    nothing = SessionVotes(np.array([1, 2]), np.array([0, 2]), 4, 7, context)
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
    made = SessionVotes(known, np.array([0, 3]), 6, 5, 50, weights)
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
    run = trained("next-item", tmp_path, "run", width=4, at=(1, 5), epochs=1, head="full", holdout=0.0)
    choice = SessionWeights.read(tmp_path / "run" / "neighbours.json")
    assert choice is not None
    lately = FEATURES.index("frequency in the last 10 %")
    new, known = choice.by_kind()
    assert new[lately] > known[lately] + 0.3
    assert f"Where known sequences go on they have a say, by {choice.known_places:,} last items" in str(choice)
    assert [row[0] for row in choice.table()[1]] == list(FEATURES)
    assert (run.network.beside.weights == choice.by_kind()).all()


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


def test_of_a_short_context_what_goes_on_is_known_by_the_items_that_it_has(tmp_path: Path) -> None:
    """Histories of eight items, of which four are given; of the last asked only three are of the known one."""
    lines = [[f"{i % 150}.{(i + j) % 9}" for j in range(8)] for i in range(2_400)]
    (tmp_path / "train.txt").write_text("".join(" ".join(row) + "\n" for row in lines))
    options: dict[str, Any] = {"width": 4, "at": (1, 5), "epochs": 1, "head": "full", "holdout": 0.0}
    run = trained("next-item", tmp_path, "run", context=4, **options)
    choice = SessionWeights.read(tmp_path / "run" / "neighbours.json")
    assert choice is not None
    assert choice.known_places == int(0.1 * (2_400 - held_out(2_400)))
    given = run.job.given([lines[0], lines[1], [*lines[2][4:], "2.0"]]).rows
    inputs = given.batch(np.arange(3))
    assert inputs.offsets.tolist() == [0, 4, 8, 12]
    assert run.network.beside.go_on(inputs).tolist() == [True, True, False]
    few = trained("next-item", tmp_path, "few", context=2, **options)
    choice = SessionWeights.read(tmp_path / "few" / "neighbours.json")
    assert choice is not None
    assert (choice.known_weights, choice.known_places) == ([], 0)
    assert not few.network.beside.go_on(few.job.given(lines[:3]).rows.batch(np.arange(3))).any()
