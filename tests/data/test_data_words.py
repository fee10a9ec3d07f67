"""Examples of words: contexts and windows against slow twins."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from widehead.data import NgramExamples, SkipgramExamples

IDS = st.lists(st.integers(0, 5), max_size=15)


@given(ids=IDS, context=st.integers(1, 4), data=st.data())
def test_ngrams(ids: list[int], context: int, data: st.DataObject) -> None:
    examples = NgramExamples(np.array(ids, dtype=np.int32), context, before=9)
    assert len(examples) == len(ids)
    rows = data.draw(st.lists(st.integers(0, len(ids) - 1), max_size=6)) if ids else []
    inputs, targets = examples.batch(np.array(rows, dtype=np.int64))
    padded = [9] * context + ids
    assert inputs.tolist() == [padded[i : i + context] for i in rows]
    assert inputs.shape == (len(rows), context)
    assert inputs.dtype == torch.int64
    assert targets.to_lists() == [[ids[i]] for i in rows]


@given(ids=IDS, window=st.integers(1, 4), end=st.none() | st.just(0))
def test_windows(ids: list[int], window: int, end: int | None) -> None:
    examples = SkipgramExamples(np.array(ids, dtype=np.int32), window, end=end)
    sentences: list[list[int]] = [[]]
    for word in ids:
        if word == end:
            sentences.append([])
        else:
            sentences[-1].append(word)
    expected = [(s[i], s[max(0, i - window) : i] + s[i + 1 : i + 1 + window]) for s in sentences for i in range(len(s))]
    assert len(examples) == len(expected)
    order = np.random.default_rng(0).permutation(len(expected))
    inputs, targets = examples.batch(order)
    assert inputs.tolist() == [[expected[i][0]] for i in order]
    assert inputs.dtype == torch.int64
    assert targets.to_lists() == [expected[i][1] for i in order]


def test_wrong_arguments() -> None:
    ids = np.array([1, 2])
    with pytest.raises(ValueError, match="`context` should be at least 1"):
        NgramExamples(ids, 0, before=0)
    with pytest.raises(ValueError, match="`before` should be a word id"):
        NgramExamples(ids, 1, before=-1)
    with pytest.raises(ValueError, match="`window` should be at least 1"):
        SkipgramExamples(ids, 0)
    for wrong in (np.array([1.0]), np.array([[1]])):
        with pytest.raises(ValueError, match="array of integers"):
            SkipgramExamples(wrong, 1)
        with pytest.raises(ValueError, match="array of integers"):
            NgramExamples(wrong, 1, before=0)


def test_an_id_before_the_start_that_is_larger_than_the_type() -> None:
    inputs, _ = NgramExamples(np.array([1], dtype=np.int8), 1, before=1000).batch(np.array([0]))
    assert inputs.tolist() == [[1000]]
