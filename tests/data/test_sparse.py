"""Matrices from triples, and the split that hides entries."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from widehead.data import binary, split_rows
from widehead.data.sparse import csr_from_pairs


def lengths(matrix: scipy.sparse.csr_matrix) -> list[int]:
    return np.diff(matrix.indptr).tolist()


def test_triples_in_any_order_and_the_last_of_equal_ones() -> None:
    matrix = csr_from_pairs([2, 0, 2, 0], [1, 3, 0, 3], [5.0, 1.0, 7.0, 2.0], (3, 4))
    assert matrix.toarray().tolist() == [[0, 0, 0, 2], [0, 0, 0, 0], [7, 5, 0, 0]]
    assert matrix.indices.tolist() == [3, 0, 1]
    assert csr_from_pairs([], [], None, (0, 4)).shape == (0, 4)


def test_binary_keeps_stored_zeros() -> None:
    matrix = csr_from_pairs([0, 0], [1, 2], [0.0, 5.0], (1, 3))
    assert binary(matrix).data.tolist() == [1.0, 1.0]
    assert matrix.data.tolist() == [0.0, 5.0]


@given(counts=st.lists(st.integers(0, 12), max_size=8), fraction=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_a_split_hides_a_fraction_of_each_row(counts: list[int], fraction: float, seed: int) -> None:
    columns = [np.random.default_rng([seed, i]).choice(15, n, replace=False) for i, n in enumerate(counts)]
    rows = np.repeat(np.arange(len(counts)), counts)
    flat = np.concatenate([*columns, np.empty(0, dtype=np.int64)])
    matrix = csr_from_pairs(rows, flat, np.arange(len(flat)), (len(counts), 15))  # one stored zero among them
    kept, hidden = split_rows(matrix, fraction, seed)
    expected = [0 if n < 2 else min(max(round(fraction * n), 1), n - 1) for n in counts]
    assert lengths(hidden) == expected
    assert lengths(kept) == [n - h for n, h in zip(counts, expected, strict=True)]
    assert (binary(kept) + binary(hidden) != binary(matrix)).nnz == 0
    assert (kept + hidden != matrix).nnz == 0
    again = split_rows(matrix, fraction, seed)
    assert np.array_equal(again[1].indices, hidden.indices)


def test_other_seeds_hide_other_entries_and_all_places_are_hidden_alike() -> None:
    matrix = scipy.sparse.csr_matrix(np.ones((2000, 5)))
    _, hidden = split_rows(matrix, 0.2, 1)
    share = np.asarray(hidden.sum(axis=0)).ravel() / 2000
    assert np.abs(share - 0.2).max() < 0.05
    assert not np.array_equal(hidden.indices, split_rows(matrix, 0.2, 2)[1].indices)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_fractions_out_of_range(fraction: float) -> None:
    with pytest.raises(ValueError, match=r"`fraction` should be in \(0, 1\)"):
        split_rows(scipy.sparse.csr_matrix((1, 1)), fraction, 0)
