"""Co-occurrences of words and their mutual information, against slow twins."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st

from widehead.data import CooccurrenceExamples, cooccurrences, information
from widehead.targets import SparseTargets


@given(
    ids=st.lists(st.integers(0, 5), max_size=20),
    window=st.integers(1, 4),
    end=st.none() | st.just(0),
    without=st.sampled_from([[], [5]]),
)
def test_counts(ids: list[int], window: int, end: int | None, without: list[int]) -> None:
    found = cooccurrences(np.array(ids, dtype=np.int32), 6, window, end=end, without=without).toarray()
    sentences: list[list[int]] = [[]]
    for word in ids:
        if word == end:
            sentences.append([])
        elif word not in without:
            sentences[-1].append(word)
    expected = np.zeros((6, 6))
    for sentence in sentences:
        for i, first in enumerate(sentence):
            for j in range(i + 1, min(i + window, len(sentence) - 1) + 1):
                expected[first, sentence[j]] += 1 / (j - i)
                expected[sentence[j], first] += 1 / (j - i)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.5, 0.75, 1.0])
def test_information(smoothing: float) -> None:
    counts = np.random.default_rng(0).poisson(0.7, (7, 7)).astype(np.float32)
    counts[3] = counts[:, 3] = 0.0  # a word that is nowhere
    found = information(scipy.sparse.csr_matrix(counts), smoothing)
    weights = counts.sum(axis=0) ** smoothing
    for i in range(7):
        for j in range(7):
            expected = 0.0
            if counts[i, j] > 0:
                expected = math.log(counts[i, j] / counts[i].sum() / (weights[j] / weights.sum()))
            assert found[i, j] == pytest.approx(max(expected, 0.0), abs=1e-5)
    assert (found.data > 0).all()


def test_examples_are_words_and_their_rows() -> None:
    matrix = information(cooccurrences(np.array([0, 1, 2, 0, 3, 1, 1, 4]), 6, 2))
    examples = CooccurrenceExamples(matrix)
    assert len(examples) == 6
    rows = np.array([5, 1, 0])
    words, targets = examples.batch(rows)
    assert words.tolist() == [[5], [1], [0]]
    assert words.dtype == torch.int64
    dense = np.zeros((3, 6))
    for example, (ids, values) in enumerate(zip(targets.to_lists(), _values(targets), strict=True)):
        dense[example, ids] = values
    np.testing.assert_allclose(dense, matrix.toarray()[rows])


def _values(targets: SparseTargets) -> list[list[float]]:
    assert targets.values is not None
    offsets, values = targets.offsets.tolist(), targets.values.tolist()
    return [values[a:b] for a, b in itertools.pairwise(offsets)]


def test_wrong_arguments() -> None:
    ids = np.array([1, 2])
    with pytest.raises(ValueError, match=r"`window` should be at least 1\. Found 0"):
        cooccurrences(ids, 3, 0)
    with pytest.raises(ValueError, match=r"`ids` should be in \[0, 2\). Found 1 and 2"):
        cooccurrences(ids, 2, 1)
    with pytest.raises(ValueError, match="array of integers"):
        cooccurrences(np.array([1.0]), 2, 1)
