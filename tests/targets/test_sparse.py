"""SparseTargets: every constructor, every refusal with its offender, ragged, empty and repeated rows."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st

from widehead.targets import SparseTargets

ROWS = st.lists(st.lists(st.integers(0, 40), max_size=6), max_size=7)


def test_the_constructor_takes_tensors_arrays_and_lists() -> None:
    expected = [[3, 1], [], [4]]
    for make in (
        list,
        np.array,
        torch.tensor,
        lambda x: np.array(x, dtype=np.int32),
        lambda x: torch.tensor(x).short(),
    ):
        targets = SparseTargets(make([3, 1, 4]), make([0, 2, 2, 3]))
        assert targets.to_lists() == expected
        assert targets.class_ids.dtype == targets.offsets.dtype == torch.int64
        assert targets.values is None


def test_sizes_counts_and_example_ids() -> None:
    targets = SparseTargets([3, 1, 4], [0, 2, 2, 3], [0.5, 1.0, -2.0])
    assert len(targets) == 3
    assert targets.counts.tolist() == [2, 0, 1]
    assert targets.example_ids.tolist() == [0, 0, 2]
    assert repr(targets) == "SparseTargets(3 examples, 3 targets, with values)"
    assert repr(SparseTargets([], [0])) == "SparseTargets(0 examples, 0 targets)"


@pytest.mark.parametrize("rows", [[], [[]], [[], [], []]])
def test_no_targets_at_all(rows: list[list[int]]) -> None:
    targets = SparseTargets.from_lists(rows)
    assert len(targets) == len(rows)
    assert targets.to_lists() == rows
    assert targets.example_ids.tolist() == []
    assert targets.values_or_ones(torch.float32).shape == (0,)
    assert targets.coalesced().to_lists() == rows
    assert targets.to_csr(5).shape == (len(rows), 5)
    targets.check_classes(0)


def test_values_keep_their_floating_type_and_integers_become_floats() -> None:
    assert SparseTargets([1], [0, 1], torch.tensor([2.0], dtype=torch.float64)).values.dtype == torch.float64
    assert SparseTargets([1], [0, 1], [2]).values.dtype == torch.get_default_dtype()
    assert SparseTargets([1], [0, 1], [True]).values.tolist() == [1.0]
    assert SparseTargets([1, 2], [0, 2]).values_or_ones(torch.float64).tolist() == [1.0, 1.0]
    assert SparseTargets([1], [0, 1], [2.5]).values_or_ones(torch.float64).tolist() == [2.5]


def test_values_carry_no_graph() -> None:
    values = torch.ones(1, requires_grad=True)
    assert not SparseTargets([1], [0, 1], values).values.requires_grad


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (([1.5], [0, 1]), TypeError, "`class_ids` should hold integers. Found dtype torch.float64"),
        (([True], [0, 1]), TypeError, "`class_ids` should hold integers. Found dtype torch.bool"),
        (([[1]], [0, 1]), ValueError, "`class_ids` should have one dimension. Found shape (1, 1)"),
        ((5, [0, 1]), ValueError, "`class_ids` should have one dimension. Found shape ()"),
        (([1], [0.0, 1.0]), TypeError, "`offsets` should hold integers. Found dtype torch.float64"),
        (([1], [[0, 1]]), ValueError, "`offsets` should have one dimension"),
        (([1], []), ValueError, "`offsets` should have one entry more than there are examples. Found none"),
        (([1, 2], [1, 2]), ValueError, "rise from 0 to nnz = 2 without decreasing. Found offsets[0] = 1"),
        (([1, 2], [0, 1]), ValueError, "Found offsets[1] = 1"),
        (([1, 2], [0, 3]), ValueError, "Found offsets[1] = 3"),
        (([1, 2], [0, 2, 1, 2]), ValueError, "Found offsets[1] = 2 > offsets[2] = 1"),
        (([4, -7, -8], [0, 3]), ValueError, "Class ids should be at least 0. Found class_ids[1] = -7"),
        (([1, 2], [0, 2], [1.0]), ValueError, "shape (2,). Found shape (1,)"),
        (([1], [0, 1], [1j]), ValueError, "one real number a target"),
        (([6, 2], [0, 2], [1.0, float("nan")]), ValueError, "Found values[1] = nan (class 2)"),
        (([6, 2], [0, 2], [float("-inf"), 1.0]), ValueError, "Found values[0] = -inf (class 6)"),
        (([None], [0, 1]), TypeError, "`class_ids` should be a tensor of numbers. Found list"),
        ((["a"], [0, 1]), TypeError, "`class_ids` should be a tensor of numbers. Found list"),
        ((torch.eye(2).to_sparse(), [0, 1]), TypeError, "`class_ids` should be a dense tensor"),
    ],
)
def test_the_constructor_names_the_first_offender(arguments: tuple, error: type, words: str) -> None:
    with pytest.raises(error) as caught:
        SparseTargets(*arguments)
    assert words in str(caught.value)


def test_from_ids_takes_vectors_and_tables() -> None:
    assert SparseTargets.from_ids(torch.tensor([5, 2])).to_lists() == [[5], [2]]
    assert SparseTargets.from_ids([[5, 5], [2, 7]]).to_lists() == [[5, 5], [2, 7]]
    assert SparseTargets.from_ids(np.zeros((3, 0), dtype=np.int64)).to_lists() == [[], [], []]
    assert SparseTargets.from_ids([]).to_lists() == []


def test_from_ids_leaves_out_the_ignored() -> None:
    assert SparseTargets.from_ids([3, -100, 4]).to_lists() == [[3], [], [4]]
    assert SparseTargets.from_ids([[0, 3], [0, 0]], ignore_index=0).to_lists() == [[3], []]
    with pytest.raises(ValueError, match=r"class_ids\[1\] = -1 in example 2. .* ignore_index = -100"):
        SparseTargets.from_ids([[3, -100], [-100, -100], [-1, 2]])


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32, np.uint64, np.int8, np.int16, np.int32, ">i8"])
def test_from_ids_takes_every_integer_type(kind: type) -> None:
    assert SparseTargets.from_ids(np.array([[1, 2], [3, 4]], dtype=kind)).to_lists() == [[1, 2], [3, 4]]


def test_from_ids_takes_views_and_read_only_memory(recwarn: pytest.WarningsRecorder) -> None:
    ids = np.arange(6).reshape(2, 3)
    assert SparseTargets.from_ids(ids[::-1, ::-1]).to_lists() == [[5, 4, 3], [2, 1, 0]]
    assert SparseTargets.convert(ids[0][::-1]).to_lists() == [[2], [1], [0]]
    ids.setflags(write=False)
    assert SparseTargets.from_ids(ids).to_lists() == [[0, 1, 2], [3, 4, 5]]
    assert SparseTargets.from_ids(np.broadcast_to(np.int64(7), (2, 2))).to_lists() == [[7, 7], [7, 7]]
    assert not recwarn.list


@pytest.mark.parametrize(
    ("ids", "error", "words"),
    [
        ([1.0], TypeError, "`ids` should hold integers"),
        ([[[1]]], ValueError, "shape (m,) or (m, K). Found (1, 1, 1)"),
        (5, ValueError, "shape (m,) or (m, K). Found ()"),
        ([[1], [2, 3]], TypeError, "`ids` should be a tensor of numbers"),
    ],
)
def test_from_ids_refuses(ids: object, error: type, words: str) -> None:
    with pytest.raises(error) as caught:
        SparseTargets.from_ids(ids)
    assert words in str(caught.value)


DENSE = np.array([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, -3.0]])
SPARSE = {
    "scipy csr": scipy.sparse.csr_matrix(DENSE),
    "scipy csc": scipy.sparse.csc_matrix(DENSE),
    "scipy coo": scipy.sparse.coo_matrix(DENSE),
    "scipy array": scipy.sparse.csr_array(DENSE),
    "torch csr": torch.tensor(DENSE).to_sparse_csr(),
    "torch coo": torch.tensor(DENSE).to_sparse(),
}


@pytest.mark.parametrize("kind", SPARSE)
def test_from_csr_takes_sparse_matrices(kind: str) -> None:
    for targets in (SparseTargets.from_csr(SPARSE[kind]), SparseTargets.convert(SPARSE[kind])):
        assert targets.to_lists() == [[1], [], [0, 2]]
        assert targets.values.tolist() == [2.0, 1.0, -3.0]


def test_from_csr_keeps_stored_zeros_and_repeated_entries() -> None:
    matrix = scipy.sparse.csr_matrix(([0.0, 5.0, 6.0], [2, 1, 1], [0, 1, 3]), shape=(2, 4))
    targets = SparseTargets.from_csr(matrix)
    assert targets.to_lists() == [[2], [1, 1]]
    assert targets.values.tolist() == [0.0, 5.0, 6.0]
    repeated = torch.sparse_coo_tensor([[1, 0, 1], [3, 2, 3]], torch.ones(3), (2, 4), check_invariants=True)
    assert SparseTargets.from_csr(repeated).to_lists() == [[2], [3, 3]]


@pytest.mark.parametrize(
    "matrix",
    [
        np.eye(2),
        torch.eye(2),
        torch.eye(2).to_sparse_csc(),
        torch.ones(2, 2, 2).to_sparse(),
        torch.sparse_coo_tensor([[0]], torch.ones(1, 4), (3, 4), check_invariants=True),
        scipy.sparse.coo_array(np.array([0, 1, 1])),
    ],
    ids=["array", "dense", "csc", "three dimensions", "partly dense", "one dimension"],
)
def test_from_csr_refuses_what_is_no_sparse_matrix(matrix: object) -> None:
    with pytest.raises(TypeError, match="`matrix` should be a"):
        SparseTargets.from_csr(matrix)


def test_from_lists_takes_any_iterables_of_integers() -> None:
    rows = (range(2), [np.int64(7)], torch.tensor([3, 3]), set[int]())
    assert SparseTargets.from_lists(iter(rows)).to_lists() == [[0, 1], [7], [3, 3], []]
    valued = SparseTargets.from_lists([[1], [], [2, 3]], values=[[0.5], [], [1, 2]])
    assert valued.values.tolist() == [0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    ("lists", "error", "words"),
    [
        ([[1], [2.0]], TypeError, "Found lists[1] = [2.0]"),
        ([[1], [True]], TypeError, "Found lists[1] = [True]"),
        ([[1], 5], TypeError, "Found lists[1] = 5"),
        (["ab"], TypeError, "Found lists[0] = 'ab'"),
        ([torch.tensor([1.5])], TypeError, "Found lists[0] = tensor([1.5000])"),
        ([torch.tensor([True])], TypeError, "Found lists[0] = tensor([True])"),
        ([[0], [2**70]], ValueError, "Found lists[1] = [1180591620717411303424]"),
        ([[2**63 - 1], [2**63]], ValueError, "Found lists[1] = [9223372036854775808]"),
        ([[0], [1, -3]], ValueError, "Found class_ids[2] = -3"),
        (5, TypeError, "Found int"),
    ],
)
def test_from_lists_names_the_first_offender(lists: object, error: type, words: str) -> None:
    with pytest.raises(error) as caught:
        SparseTargets.from_lists(lists)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        ([[1.0], []], ValueError, "Found 0 and 2 in row 1"),
        ([[1.0]], ValueError, "as many rows as `lists`. Found 1 and 2"),
        ([[1.0], [1.0, "x"]], TypeError, "Found values[1] = [1.0, 'x']"),
        ([[1.0], None], TypeError, "Found values[1] = None"),
        ([[1.0], [1.0, float("inf")]], ValueError, "Found values[2] = inf (class 3)"),
    ],
)
def test_from_lists_names_the_first_wrong_value(values: object, error: type, words: str) -> None:
    with pytest.raises(error) as caught:
        SparseTargets.from_lists([[1], [2, 3]], values)
    assert words in str(caught.value)


def test_convert_takes_every_raw_form() -> None:
    targets = SparseTargets([1, 2], [0, 1, 2])
    assert SparseTargets.convert(targets) is targets
    for raw in (torch.tensor([1, 2]), np.array([1, 2]), [1, 2], (1, 2), [[1], [2]], torch.tensor([[1], [2]])):
        assert SparseTargets.convert(raw).to_lists() == [[1], [2]]
    assert SparseTargets.convert([]).to_lists() == []
    assert SparseTargets.convert([4, -1], ignore_index=-1).to_lists() == [[4], []]


@pytest.mark.parametrize("raw", [None, "ab", b"ab", 5, {1: 2}, [True], np.array([1.0]), np.array([None])])
def test_convert_refuses_the_rest(raw: object) -> None:
    with pytest.raises(TypeError, match=r"[Ff]ound"):
        SparseTargets.convert(raw)


def test_check_classes_names_the_class_and_its_example() -> None:
    targets = SparseTargets.from_lists([[], [3], [], [2, 9, 11]])
    targets.check_classes(12)
    with pytest.raises(ValueError, match=r"in \[0, 9\). Found class_ids\[2\] = 9 in example 3"):
        targets.check_classes(9)


def test_to_csr_adds_up_repeated_classes_and_leaves_the_targets_alone() -> None:
    targets = SparseTargets([3, 1, 3], [0, 3], torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64))
    assert targets.to_csr(5).toarray().tolist() == [[0.0, 2.0, 0.0, 5.0, 0.0]]
    assert targets.class_ids.tolist() == [3, 1, 3]
    assert targets.values.tolist() == [1.0, 2.0, 4.0]
    with pytest.raises(ValueError, match=r"Found class_ids\[0\] = 3"):
        targets.to_csr(3)


def test_select_keeps_the_order_asked_for() -> None:
    targets = SparseTargets.from_lists([[1], [2, 3], []], values=[[0.1], [0.2, 0.3], []])
    picked = targets.select(torch.tensor([2, 1, 1, 0]))
    assert picked.to_lists() == [[], [2, 3], [2, 3], [1]]
    assert picked.values.tolist() == pytest.approx([0.2, 0.3, 0.2, 0.3, 0.1])
    assert targets.select(torch.tensor([True, False, True])).to_lists() == [[1], []]
    assert targets.select(torch.tensor([], dtype=torch.int64)).to_lists() == []
    with pytest.raises(IndexError):
        targets.select(torch.tensor([3]))


def test_copies_by_pickle_and_to_a_device() -> None:
    targets = SparseTargets.from_lists([[1], [2, 3]], values=[[0.5], [1.0, 2.0]])
    for same in (pickle.loads(pickle.dumps(targets)), copy.deepcopy(targets), targets.to("cpu")):  # noqa: S301
        assert same.to_lists() == targets.to_lists()
        assert same.values.tolist() == targets.values.tolist()


@given(rows=ROWS, width=st.integers(41, 50))
def test_round_trips(rows: list[list[int]], width: int) -> None:
    targets = SparseTargets.from_lists(rows)
    assert targets.to_lists() == rows
    assert targets.counts.tolist() == [len(row) for row in rows]
    assert targets.example_ids.tolist() == [b for b, row in enumerate(rows) for _ in row]
    dense = np.zeros((len(rows), width))
    for b, row in enumerate(rows):
        for c in row:
            dense[b, c] += 1.0
    assert np.array_equal(targets.to_csr(width).toarray(), dense)
    assert np.array_equal(targets.coalesced().to_csr(width).toarray(), dense)
    assert targets.coalesced().to_lists() == [list(dict.fromkeys(row)) for row in rows]
    together = targets.coalesced()
    for found, expected in zip(together.sorted_by_class(), torch.sort(together.class_ids, stable=True), strict=True):
        assert torch.equal(found, expected)


@given(rows=ROWS, data=st.data())
def test_select_is_indexing(rows: list[list[int]], data: st.DataObject) -> None:
    picks = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8)) if rows else []
    picked = SparseTargets.from_lists(rows).select(torch.tensor(picks, dtype=torch.int64))
    assert picked.to_lists() == [rows[b] for b in picks]


@given(
    ids=st.lists(st.integers(-3, 9), max_size=6),
    offsets=st.lists(st.integers(-1, 7), max_size=6),
    values=st.none() | st.lists(st.floats(width=32), max_size=6),
)
def test_anything_is_either_valid_or_refused(ids: list[int], offsets: list[int], values: list[float] | None) -> None:
    valid = (
        len(offsets) > 0
        and offsets == sorted(offsets)
        and offsets[0] == 0
        and offsets[-1] == len(ids)
        and min(ids, default=0) >= 0
        and (values is None or (len(values) == len(ids) and bool(np.isfinite(values).all())))
    )
    if valid:
        assert SparseTargets(ids, offsets, values).class_ids.tolist() == ids
    else:
        with pytest.raises(ValueError, match=r"Found"):
            SparseTargets(ids, offsets, values)


def test_concatenated_values_keep_the_digits_of_the_most_precise_batch() -> None:
    third, none = torch.tensor([1 / 3], dtype=torch.float64), None
    batches = [SparseTargets([k], [0, 1], values) for k, values in enumerate((third, none, third.half()))]
    found = SparseTargets.concatenate(batches).values
    assert found is not None
    assert found.tolist() == [1 / 3, 1.0, float(third.half())]
    assert SparseTargets.concatenate(batches[1:]).values.dtype == torch.float16


def test_values_of_a_class_named_thrice_are_added_up_elsewhere() -> None:
    values = torch.tensor([1.0, 10.0, 2.0, 20.0, 4.0, 8.0, -3.0, 3.0], dtype=torch.float64)
    targets = SparseTargets([7, 2, 7, 2, 7, 2, 5, 5], [0, 5, 5, 8], values.clone())
    together = targets.coalesced()
    assert together.to_lists() == [[7, 2], [], [2, 5]]
    assert together.values is not None
    assert together.values.tolist() == [7.0, 30.0, 8.0, 0.0]
    assert together.values.dtype == torch.float64
    assert together.coalesced() is together
    assert targets.values is not None
    assert torch.equal(targets.values, values)
