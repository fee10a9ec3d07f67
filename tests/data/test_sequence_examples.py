"""Pieces of sequences, and the inputs and targets that they give, against lists."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from widehead.data import Histories, SequenceExamples, pieces

LISTS = st.lists(st.lists(st.integers(0, 9), max_size=9), max_size=6)


def flat(lists: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([i for row in lists for i in row], dtype=np.int64), np.cumsum([0, *map(len, lists)])


@given(lists=LISTS, context=st.integers(1, 4))
def test_each_id_but_the_first_follows_another_once(lists: list[list[int]], context: int) -> None:
    ids, offsets = flat(lists)
    examples = SequenceExamples(ids, *pieces(offsets[:-1], offsets[1:], context))
    inputs, targets = examples.batch(np.arange(len(examples)))
    pairs = list(zip(inputs.class_ids.tolist(), targets.class_ids.tolist(), strict=True))
    assert pairs == [pair for row in lists for pair in pairwise(row)]
    assert inputs.values is None
    assert all(count <= context for count in inputs.counts.tolist())


@given(lists=LISTS, asked=st.integers(1, 3), seed=st.integers(0, 3))
def test_the_last_places_are_asked_for(lists: list[list[int]], asked: int, seed: int) -> None:
    lists = [row for row in lists if len(row) > 1]
    ids, offsets = flat(lists)
    rows = np.random.default_rng(seed).permutation(len(lists))
    inputs, targets = SequenceExamples(ids, offsets[:-1], offsets[1:], asked).batch(rows)
    assert inputs.to_lists() == [lists[row][:-1] for row in rows]
    wanted = [[i >= len(lists[row]) - 1 - asked for i in range(len(lists[row]) - 1)] for row in rows]
    assert inputs.values is not None
    assert (inputs.values > 0).tolist() == [flag for row in wanted for flag in row]
    assert targets.to_lists() == [[i] for row in rows for i in lists[row][1:][-asked:]]


@given(lists=LISTS, context=st.integers(1, 4))
def test_histories_end_where_they_end(lists: list[list[int]], context: int) -> None:
    inputs = Histories(*flat(lists), context).batch(np.arange(len(lists)))
    assert inputs.to_lists() == [row[-context:] or [0] for row in lists]
    assert inputs.values is not None
    ends = np.zeros(len(inputs.class_ids))
    ends[inputs.offsets[1:].numpy() - 1] = 1.0
    assert inputs.values.tolist() == ends.tolist()
