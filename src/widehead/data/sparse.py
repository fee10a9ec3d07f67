"""Sparse matrices (scipy CSR) from triples, and the split that hides some entries of each row."""

from typing import Any, TypeAlias

import numpy as np
import scipy.sparse
import torch

from widehead.split import Dealt, InTurn, Share

_ROWS = 1 << 14  # that are drawn for at a time

CSR: TypeAlias = Any
"""A scipy ``csr_matrix``; scipy has no type hints."""


def csr_from_pairs(rows: Any, columns: Any, values: Any, shape: tuple[int, int]) -> CSR:
    """(shape) float32 matrix of (nnz,) triples, columns rising in each row; of equal pairs the last one stands."""
    keys = np.asarray(rows, dtype=np.int64) * shape[1]  # 2⁶³ cells and more are beyond any pair of vocabularies
    keys += np.asarray(columns, dtype=np.int64)
    if values is None:
        keys.sort()
    else:
        order = np.argsort(keys, kind="stable")  # equal pairs stay in the order of the file
        keys, values = keys[order], np.asarray(values, dtype=np.float32)[order]
        del order
    last = np.ones(len(keys), dtype=bool)
    np.not_equal(keys[1:], keys[:-1], out=last[:-1])
    if not last.all():
        keys, values = keys[last], None if values is None else values[last]
    starts = np.arange(shape[0] + 1, dtype=np.int64) * shape[1]
    offsets = np.searchsorted(keys, starts)
    keys -= np.repeat(starts[:-1], np.diff(offsets))
    return _csr(np.ones(len(keys), dtype=np.float32) if values is None else values, keys, offsets, shape)


def binary(matrix: CSR) -> CSR:
    """The same entries, stored zeros included, with the value one."""
    ones = np.ones(len(matrix.data), dtype=np.float32)
    return _csr(ones, matrix.indices.copy(), matrix.indptr.copy(), matrix.shape)


def csr_from_parts(offsets: np.ndarray, columns: np.ndarray, values: np.ndarray | None, shape: tuple[int, int]) -> CSR:
    """(shape) matrix of arrays that were kept: (rows + 1,) offsets, (nnz,) columns and values, None for ones.

    Raises:
        ValueError: they are of another type or length, are out of bounds or not finite.
    """
    if [part.dtype.kind for part in (offsets, columns)] != ["i", "i"] or offsets.shape != (shape[0] + 1,):
        raise ValueError(f"a matrix of {shape[0]} rows should have {shape[0] + 1} whole offsets, and whole column ids")
    if offsets[0] != 0 or offsets[-1] != columns.size or bool((offsets[1:] < offsets[:-1]).any()):
        raise ValueError(f"offsets should never fall, from 0 to the number of entries, {columns.size}")
    if columns.size and not 0 <= int(columns.min()) <= int(columns.max()) < shape[1]:
        raise ValueError(f"column ids should be in [0, {shape[1]}). Found {columns.min()} to {columns.max()}")
    values = np.ones(len(columns), dtype=np.float32) if values is None else values
    if values.dtype != np.float32 or values.shape != columns.shape or not np.isfinite(values).all():
        raise ValueError("values should be finite, as float32, one for each column id")
    return scipy.sparse.csr_matrix((values, columns, offsets), shape=shape)


def _csr(values: np.ndarray, columns: np.ndarray, offsets: np.ndarray, shape: tuple[int, int]) -> CSR:
    """A matrix of these very arrays: scipy's constructor would look through them for a smaller type of integers."""
    matrix = scipy.sparse.csr_matrix(shape, dtype=values.dtype)
    matrix.data, matrix.indices, matrix.indptr = values, columns, offsets
    return matrix


def rows_of_entries(matrix: CSR) -> np.ndarray:
    """(nnz,) int64 the row of each entry, stored zeros included."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def brought_together(matrix: CSR, among: Dealt, rows: np.ndarray) -> CSR:
    """(k, D) ``rows`` (k,), rising, of those that are dealt out, on all processes, which call it together.

    Args:
        matrix: (n_r, D) float32, of the rows that are here.
        among: all rows.
    """
    chosen = np.zeros(among.total, dtype=bool)
    chosen[rows] = True
    dealt, here = among.chosen(chosen), matrix[among.places(rows)]
    lengths = dealt.all_of(np.diff(here.indptr).astype(np.int64))
    columns, values = (
        torch.cat([part[:0], *InTurn(dealt, part, lengths).pieces()]).numpy()
        for part in (torch.from_numpy(here.indices.astype(np.int64)), torch.from_numpy(here.data))
    )
    return _csr(values, columns, np.pad(np.cumsum(lengths), (1, 0)), (len(rows), matrix.shape[1]))


def split_rows(
    matrix: CSR, fraction: float, seed: int, share: tuple[Share, np.ndarray] | None = None
) -> tuple[CSR, CSR]:
    """Hide a fraction of each row's entries, chosen at random.

    A row of n entries hides round(fraction·n), at least one and at most n - 1; a row of one entry (or none) hides none.

    Args:
        matrix: (m, D) scipy sparse matrix; stored zeros count as entries.
        fraction: in (0, 1).
        seed: of the random choice; equal seeds give equal splits.
        share: of the rows, which ``matrix`` has alone, and (n,) how many entries each of all rows has; None for all.

    Returns:
        Two matrices of the same shape: the entries that stay, and the hidden ones.

    Raises:
        ValueError: the fraction is out of range.
    """
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"Parameter `fraction` should be in (0, 1). Found {fraction}.")
    matrix = matrix.tocsr()
    counts = np.diff(matrix.indptr)
    hidden_counts = np.minimum(np.maximum(np.rint(fraction * counts), 1), np.maximum(counts - 1, 0))
    rows = rows_of_entries(matrix)
    order = np.lexsort((_draws(counts, seed, share), rows))
    # Place of each entry in the shuffled order of its row: the first ones are hidden.
    place = np.empty(len(rows), dtype=np.int64)
    place[order] = np.arange(len(rows)) - np.repeat(matrix.indptr[:-1], counts)
    hidden = place < hidden_counts[rows]
    return _entries(matrix, rows, ~hidden), _entries(matrix, rows, hidden)


def _draws(counts: np.ndarray, seed: int, share: tuple[Share, np.ndarray] | None) -> np.ndarray:
    """A number for each entry of rows with so many; of a share those that its entries have among all."""
    generator = np.random.default_rng(seed)
    if share is None:
        return generator.random(int(counts.sum()))
    who, lengths = share
    found, first = [np.empty(0)], 0
    for stop in range(_ROWS, len(lengths) + _ROWS, _ROWS):
        rows = np.arange(first, min(stop, len(lengths)))
        drawn = generator.random(int(lengths[rows].sum()))
        found.append(drawn[np.repeat(who.holds(rows), lengths[rows])])
        first = stop
    return np.concatenate(found)


def _entries(matrix: CSR, rows: np.ndarray, chosen: np.ndarray) -> CSR:
    offsets = np.zeros(matrix.shape[0] + 1, dtype=np.int64)
    np.cumsum(np.bincount(rows[chosen], minlength=matrix.shape[0]), out=offsets[1:])
    return _csr(matrix.data[chosen], matrix.indices[chosen].astype(np.int64), offsets, matrix.shape)
