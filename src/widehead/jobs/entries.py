"""Entries of sparse matrices by their keys, row·D + column, scaled by how many there are, and what is divided by.

Letters: c keys, D columns.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse

from widehead.data.sparse import CSR, rows_of_entries


def keys_of(matrix: CSR) -> np.ndarray:
    """(nnz,) int64 row·D + column of entries."""
    found: np.ndarray = rows_of_entries(matrix) * np.int64(matrix.shape[1]) + matrix.indices
    return found


def distinct(keys: np.ndarray) -> np.ndarray:
    """(c',) the keys once each, rising: numpy's own ``unique`` takes ten times as long for so few."""
    rising = np.sort(keys)
    found: np.ndarray = rising[np.diff(rising, prepend=-1) > 0]
    return found


def places_of(matrix: CSR, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where entries of some keys stand in a matrix whose columns rise, and whether they do."""
    have = keys_of(matrix)
    places = np.searchsorted(have, keys)
    places[places == len(have)] = 0
    return places, have[places] == keys if len(have) else np.zeros(len(keys), dtype=bool)


def at_keys(matrix: CSR, keys: np.ndarray) -> np.ndarray:
    """(c,) the entries of some keys, 0 where there is none."""
    places, there = places_of(matrix, keys)
    found = np.zeros(len(keys), dtype=matrix.dtype)
    found[there] = matrix.data[places[there]]
    return found


def drop(matrix: CSR, keys: np.ndarray) -> None:
    """Put 0 in the place of entries of some keys."""
    places, there = places_of(matrix, keys)
    matrix.data[places[there]] = 0.0


def positive(numbers: np.ndarray) -> np.ndarray:
    """The same, with 1 for what is not positive and finite."""
    return np.where((numbers > 0.0) & np.isfinite(numbers), numbers, 1.0)


def factors(counts: np.ndarray, power: float) -> np.ndarray:
    """n^-power for columns or rows with n entries (…); 1 if there are none."""
    return (np.maximum(counts, 1.0) ** -power).astype(np.float32)


def scaled(matrix: CSR, row_power: float, column_power: float, column_counts: np.ndarray | None = None) -> CSR:
    """(m, D) every entry times ``factors`` of its row and of its column, which may have entries in other rows too."""
    column_counts = matrix.getnnz(axis=0) if column_counts is None else column_counts
    by_rows, by_columns = factors(matrix.getnnz(axis=1), row_power), factors(column_counts, column_power)
    values = matrix.data * np.repeat(by_rows, np.diff(matrix.indptr)) * by_columns[matrix.indices]
    return scipy.sparse.csr_matrix((values, matrix.indices, matrix.indptr), shape=matrix.shape)
