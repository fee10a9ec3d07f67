"""Examples of words: contexts against slow twins."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from widehead.data import NgramExamples

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


def test_wrong_arguments() -> None:
    ids = np.array([1, 2])
    with pytest.raises(ValueError, match="`context` should be at least 1"):
        NgramExamples(ids, 0, before=0)
    with pytest.raises(ValueError, match="`before` should be a word id"):
        NgramExamples(ids, 1, before=-1)
    for wrong in (np.array([1.0]), np.array([[1]])):
        with pytest.raises(ValueError, match="array of integers"):
            NgramExamples(wrong, 1, before=0)


def test_an_id_before_the_start_that_is_larger_than_the_type() -> None:
    inputs, _ = NgramExamples(np.array([1], dtype=np.int8), 1, before=1000).batch(np.array([0]))
    assert inputs.tolist() == [[1000]]
