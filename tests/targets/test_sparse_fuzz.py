"""SparseTargets on anything: a valid object that agrees with plain lists, or a TypeError or ValueError of ours.

The plain lists (an example's pairs of class and value) are made here from the input itself, by the slow way.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from widehead.targets import SparseTargets

Pairs = list[list[tuple[int, float]]]
HUGE = [2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -1, -100, -(2**63), -(2**70), 10**12]
IDS = st.integers(0, 5) | st.integers(-3, 60) | st.sampled_from(HUGE)
NUMBERS = st.floats(width=32) | st.integers(-3, 3) | st.sampled_from([math.nan, math.inf, 1e308, 10**400, True])
JUNK = st.none() | st.booleans() | st.text(max_size=2) | st.floats() | st.just([]) | st.just({}) | st.binary(max_size=2)
DTYPES = [
    np.int8,
    np.int16,
    np.int32,
    np.int64,
    np.uint8,
    np.uint32,
    np.uint64,
    np.float32,
    np.bool_,
    np.complex64,
    object,
]
# Of ours or of the conversion of a hopeless argument; whatever else is raised is a bug.
REFUSED = (TypeError, ValueError)


def agree(targets: SparseTargets, expected: Pairs) -> None:
    """Every view of the targets says the same as the plain lists."""
    ids = [[c for c, _ in row] for row in expected]
    values = [v for row in expected for _, v in row]
    assert len(targets) == len(expected)
    assert targets.to_lists() == ids
    assert targets.class_ids.dtype == targets.offsets.dtype == torch.int64
    assert targets.counts.tolist() == [len(row) for row in ids]
    assert targets.example_ids.tolist() == [b for b, row in enumerate(ids) for _ in row]
    assert targets.values_or_ones(torch.float64).tolist() == values
    rising, places = targets.sorted_by_class()
    flat = [c for row in ids for c in row]
    assert rising.tolist() == sorted(flat)
    assert [flat[p] for p in places.tolist()] == sorted(flat)
    summed: list[dict[int, float]] = [{} for _ in expected]
    for row, sums in zip(expected, summed, strict=True):
        for c, v in row:
            sums[c] = sums.get(c, 0.0) + v
    together = targets.coalesced()
    found = together.values_or_ones(torch.float64).tolist()
    for b, (begin, end) in enumerate(zip(together.offsets.tolist(), together.offsets.tolist()[1:], strict=False)):
        pairs = dict(zip(together.class_ids.tolist()[begin:end], found[begin:end], strict=True))
        assert len(pairs) == end - begin
        assert pairs.keys() == summed[b].keys()
        assert all(pairs[c] == pytest.approx(v, rel=1e-5, abs=1e-30, nan_ok=True) for c, v in summed[b].items())
    backwards = torch.arange(len(expected) - 1, -1, -1)
    assert targets.select(backwards).to_lists() == ids[::-1]
    assert SparseTargets.concatenate([targets, targets]).to_lists() == ids + ids


def rows_of(class_ids: list[int], offsets: list[int], values: list[float] | None) -> Pairs | None:
    """The plain lists of compressed rows, None where they are none."""
    m, nnz = len(offsets) - 1, len(class_ids)
    sound = m >= 0 and offsets[0] == 0 and offsets[-1] == nnz and offsets == sorted(offsets)
    if not sound or any(not 0 <= c < 2**63 for c in class_ids):
        return None
    if values is not None and (len(values) != nnz or not all(math.isfinite(v) for v in values)):
        return None
    weights = [1.0] * nnz if values is None else values
    pairs = list(zip(class_ids, weights, strict=True))
    return [pairs[offsets[b] : offsets[b + 1]] for b in range(m)]


def as_float32(values: list[Any] | None) -> list[float] | None:
    with np.errstate(over="ignore"):
        return None if values is None else [float(np.float32(v)) for v in values]


@settings(max_examples=100)
@given(
    st.lists(IDS, max_size=5),
    st.lists(st.integers(-1, 6) | st.sampled_from(HUGE), max_size=5)
    | st.lists(st.integers(0, 5), max_size=5).map(sorted),
    st.none() | st.lists(st.floats(width=32), max_size=5),
)
def test_compressed_rows(class_ids: list[int], offsets: list[int], values: list[float] | None) -> None:
    if offsets == sorted(offsets) and class_ids and offsets:
        offsets = [0, *offsets[1:-1], len(class_ids)] if len(offsets) > 1 else offsets
    expected = rows_of(class_ids, offsets, as_float32(values))
    try:
        made = SparseTargets(class_ids, offsets, values)
    except REFUSED:
        assert expected is None
        return
    assert expected is not None
    agree(made, [[(c, v) for c, v in row] for row in expected])


@settings(max_examples=100)
@given(st.data())
def test_arrays_of_any_type_and_shape(data: st.DataObject) -> None:
    """The arguments as arrays of every dtype, striding and byte order, and as anything else."""
    kind = st.sampled_from(DTYPES)
    numbers = st.lists(st.integers(0, 3), max_size=4)

    def array() -> Any:
        made = np.array(data.draw(numbers), dtype=data.draw(kind))
        how = data.draw(st.sampled_from(["plain", "reversed", "2d", "swapped", "read-only", "torch", "junk", "0d"]))
        if how == "reversed":
            return made[::-1]
        if how == "2d":
            return made[None]
        if how == "swapped" and made.dtype != object:
            return made.astype(made.dtype.newbyteorder(">"))
        if how == "read-only":
            made.flags.writeable = False
        if how == "torch" and made.dtype != object:
            return torch.from_numpy(made.copy())
        if how == "0d":
            return made.reshape(-1)[:1].reshape(()) if made.size else made
        return data.draw(JUNK) if how == "junk" else made

    class_ids, offsets, values = array(), array(), data.draw(st.booleans()) and array()
    copies = [x.copy() if isinstance(x, np.ndarray) else x for x in (class_ids, offsets, values)]
    try:
        made = SparseTargets(class_ids, offsets, None if values is False else values)
    except REFUSED:
        pass
    else:
        listed = None if values is False else [float(v) for v in np.asarray(values).tolist()]
        expected = rows_of(list(map(int, np.asarray(class_ids))), list(map(int, np.asarray(offsets))), listed)
        assert expected is not None
        agree(made, expected)
    for before, now in zip(copies, (class_ids, offsets, values), strict=True):
        if isinstance(before, np.ndarray):
            assert before.tolist() == now.tolist()


@settings(max_examples=100)
@given(st.lists(st.lists(IDS | JUNK, max_size=4) | JUNK, max_size=4), st.sampled_from([-100, 0, 3]))
def test_tables_of_ids(table: list[Any], ignore: int) -> None:
    for make in (lambda x: x, np.array, torch.tensor):
        try:
            raw = make(table)
        except (*REFUSED, OverflowError, RuntimeError):  # numpy's and torch's own refusals
            continue
        try:
            made = SparseTargets.from_ids(raw, ignore)
        except REFUSED:
            continue
        rows = np.asarray(table, dtype=np.int64)
        rows = rows[:, None] if rows.ndim == 1 else rows
        agree(made, [[(int(c), 1.0) for c in row if c != ignore] for row in rows])


@settings(max_examples=100)
@given(
    st.lists(st.lists(IDS | JUNK, max_size=4) | JUNK, max_size=4),
    st.none() | st.lists(st.lists(NUMBERS | JUNK, max_size=4) | JUNK, max_size=4),
)
def test_lists_of_lists(lists: list[Any], values: list[Any] | None) -> None:
    try:
        made = SparseTargets.from_lists(lists, values)
    except REFUSED:
        return
    ids = [list(row) for row in lists]
    assert all(type(c) is int and 0 <= c < 2**63 for row in ids for c in row)
    weights = [[1.0] * len(row) for row in ids] if values is None else [[float(v) for v in row] for row in values]
    assert all(math.isfinite(v) for row in weights for v in row)
    agree(made, [list(zip(*both, strict=True)) for both in zip(ids, weights, strict=True)])


@settings(max_examples=100)
@given(st.data())
def test_sparse_matrices(data: st.DataObject) -> None:
    """scipy's and torch's, with entries repeated and out of order, and with broken insides."""
    m, d = data.draw(st.integers(0, 4)), data.draw(st.sampled_from([1, 4, 2**31 + 5, 10**12]))
    count = data.draw(st.integers(0, 6)) if m else 0
    index = st.integers(0, min(d, 6) - 1) | st.just(d - 1)
    rows = [data.draw(st.integers(0, m - 1)) for _ in range(count)]
    columns = [data.draw(index) for _ in range(count)]
    values = [data.draw(st.floats(-5, 5, width=32)) for _ in range(count)]
    kind = data.draw(st.sampled_from(["coo", "csr", "torch coo", "torch csr"]))
    order = np.argsort(np.array(rows, dtype=np.int64), kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(np.array(rows, dtype=np.int64), minlength=m))]).astype(
        np.int64
    )
    matrix: Any
    if kind == "torch coo":
        at = torch.tensor([rows, columns], dtype=torch.int64).reshape(2, count)
        matrix = torch.sparse_coo_tensor(at, torch.tensor(values), (m, d))
    elif kind == "torch csr":
        parts = (offsets, np.array(columns, dtype=np.int64)[order], np.array(values, dtype=np.float32)[order])
        matrix = torch.sparse_csr_tensor(*map(torch.from_numpy, parts), size=(m, d), check_invariants=False)
    else:
        parts = (np.array(values, dtype=np.float32)[order], np.array(columns, dtype=np.int64)[order], offsets)
        matrix = scipy.sparse.csr_matrix(parts, shape=(m, d)) if m else scipy.sparse.csr_matrix((0, d))
        matrix = scipy.sparse.coo_matrix(matrix) if kind == "coo" else matrix
    pairs: Pairs = [[] for _ in range(m)]
    for i in order:
        pairs[rows[i]].append((columns[i], values[i]))
    made = SparseTargets.from_csr(matrix)
    if kind != "coo":  # scipy may put entries of a row in another order there
        agree(made, pairs)
    assert made.coalesced().counts.tolist() == [len({c for c, _ in row}) for row in pairs]


@settings(max_examples=100)
@given(
    st.lists(st.integers(-2, 9), max_size=4),
    st.lists(st.integers(-2, 9), max_size=4),
    st.sampled_from([np.float32, np.int64, np.bool_, np.complex64]),
)
def test_matrices_with_broken_insides(indices: list[int], indptr: list[int], dtype: type) -> None:
    """scipy lets its arrays be replaced by any others."""
    matrix = scipy.sparse.csr_matrix((3, 7), dtype=dtype)
    matrix.indices, matrix.indptr = np.array(indices, dtype=np.int32), np.array(indptr, dtype=np.int32)
    matrix.data = np.ones(len(indices), dtype=dtype)
    expected = rows_of(indices, indptr, None)
    try:
        made = SparseTargets.from_csr(matrix)
    except REFUSED:
        assert expected is None or dtype == np.complex64 or any(c >= 7 for c in indices) or len(indptr) != 4
        return
    assert expected is not None
    agree(made, expected)


@settings(max_examples=100)
@given(st.recursive(IDS | JUNK, lambda inner: st.lists(inner, max_size=3) | st.tuples(inner), max_leaves=6))
def test_convert_takes_or_refuses_anything(raw: Any) -> None:
    try:
        made = SparseTargets.convert(raw)
    except REFUSED:
        return
    assert made.to_lists() == SparseTargets.from_lists(made.to_lists()).to_lists()
    assert len(made) == len(raw)
