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

from widehead.data import CooccurrenceExamples, cooccurrences, following, information, sided_information
from widehead.targets import SparseTargets


@given(
    ids=st.lists(st.integers(0, 5), max_size=20),
    window=st.integers(1, 4),
    end=st.none() | st.just(0),
    without=st.sampled_from([[], [5]]),
)
def test_counts(ids: list[int], window: int, end: int | None, without: list[int]) -> None:
    found = cooccurrences(np.array(ids, dtype=np.int32), 6, window, end=end, without=without).toarray()
    expected = np.zeros((6, 6))
    for sentence in sentences_of(ids, end, without):
        for i, first in enumerate(sentence):
            for j in range(i + 1, min(i + window, len(sentence) - 1) + 1):
                expected[first, sentence[j]] += 1 / (j - i)
                expected[sentence[j], first] += 1 / (j - i)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def sentences_of(ids: list[int], end: int | None, without: list[int]) -> list[list[int]]:
    sentences: list[list[int]] = [[]]
    for word in ids:
        if word == end:
            sentences.append([])
        elif word not in without:
            sentences[-1].append(word)
    return sentences


@given(
    ids=st.lists(st.integers(0, 5), max_size=20), end=st.none() | st.just(0), without=st.sampled_from([[], [5], [1, 5]])
)
def test_counts_of_what_follows(ids: list[int], end: int | None, without: list[int]) -> None:
    found = following(np.array(ids, dtype=np.int32), 6, end=end, without=without).toarray()
    expected = np.zeros((6, 6))
    for sentence in sentences_of(ids, end, without):
        for first, second in itertools.pairwise(sentence):
            expected[first, second] += 1.0
    np.testing.assert_array_equal(found, expected)


def test_what_follows_is_counted_piece_by_piece() -> None:
    """Of a text that is longer than a piece."""
    ids = np.random.default_rng(0).integers(0, 9, (5 << 19) + 3)
    expected = np.bincount(ids[:-1] * 9 + ids[1:], minlength=81).reshape(9, 9)
    np.testing.assert_array_equal(following(ids, 9).toarray(), expected)


def some_counts() -> np.ndarray:
    counts = np.random.default_rng(0).poisson(0.7, (7, 7)).astype(np.float32)
    counts[3] = counts[:, 3] = 0.0  # a word that is nowhere
    return counts


def slow_information(counts: np.ndarray, smoothing: float, *, discounted: bool) -> np.ndarray:
    weights = counts.sum(axis=0) ** smoothing
    found = np.zeros(counts.shape)
    for i, j in np.argwhere(counts > 0):
        value = max(math.log(counts[i, j] / counts[i].sum() / (weights[j] / weights.sum())), 0.0)
        found[i, j] = value * (counts[i, j] / (counts[i, j] + 1.0) if discounted else 1.0)
    return found


@pytest.mark.parametrize("discounted", [False, True])
@pytest.mark.parametrize("smoothing", [0.5, 0.75, 1.0])
def test_information(smoothing: float, discounted: bool) -> None:
    counts = some_counts()
    found = information(scipy.sparse.csr_matrix(counts), smoothing, discounted=discounted)
    expected = slow_information(counts, smoothing, discounted=discounted)
    np.testing.assert_allclose(found.toarray(), expected, atol=1e-5)
    assert (found.data > 0).all()


@pytest.mark.parametrize("smoothing", [0.75, 1.0])
def test_information_of_sides(smoothing: float) -> None:
    counts = some_counts()
    found = sided_information(scipy.sparse.csr_matrix(counts), smoothing).toarray()
    # Of a word, what stands before it: its column of what follows what.
    before = slow_information(counts.T, smoothing, discounted=True)
    after = slow_information(counts, smoothing, discounted=True)
    np.testing.assert_allclose(found, np.hstack([before, after]).T, atol=1e-5)


def test_examples_are_words_and_their_rows() -> None:
    matrix = information(cooccurrences(np.array([0, 1, 2, 0, 3, 1, 1, 4]), 6, 2))
    examples = CooccurrenceExamples(matrix)
    assert len(examples) == 6
    check_batch(examples, matrix.toarray(), [5, 1, 0])


def test_examples_are_places_beside_words_too() -> None:
    ids = np.array([0, 1, 2, 0, 3, 1, 1, 4])
    near, sided = information(cooccurrences(ids, 6, 2)), sided_information(following(ids, 6))
    examples = CooccurrenceExamples(near, sided)
    assert len(examples) == 18
    dense = np.vstack([near.toarray(), sided.toarray()])
    for rows in (list(range(18)), [17, 3, 6, 0, 12, 2], [4, 1], [9, 7], []):
        check_batch(examples, dense, rows)


def check_batch(examples: CooccurrenceExamples, matrix: np.ndarray, rows: list[int]) -> None:
    """That the inputs are the rows asked for, and the targets those of a matrix."""
    words, targets = examples.batch(np.array(rows, dtype=np.int64))
    assert words.tolist() == [[row] for row in rows]
    assert words.dtype == torch.int64
    dense = np.zeros((len(rows), matrix.shape[1]))
    for example, (ids, values) in enumerate(zip(targets.to_lists(), _values(targets), strict=True)):
        dense[example, ids] = values
    np.testing.assert_allclose(dense, matrix[rows])


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
    with pytest.raises(ValueError, match=r"`ids` should be in \[0, 2\). Found 1 and 2"):
        following(ids, 2)
    for count in (lambda ids: cooccurrences(ids, 2, 1), lambda ids: following(ids, 2)):
        with pytest.raises(ValueError, match="array of integers"):
            count(np.array([1.0]))
