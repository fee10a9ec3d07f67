"""Data in memory give what files of the same content give, and what is no such data is refused in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
import scipy.sparse
import torch

from widehead.data import LabelSchema, TextFeatures, read_interactions
from widehead.data.files import is_file
from widehead.data.memory import csr_of, features_of, sentences_of, texts_of
from widehead.errors import DataError

PAIRS = [("u2", "milk", 2.0), ("u2", "bread", 1.0), ("u1", "milk", 5.0), ("u3", "café au lait", 3.0)]
COLUMNS = {"user": [p[0] for p in PAIRS], "item": [p[1] for p in PAIRS], "rating": [p[2] for p in PAIRS]}


class Frame:
    """As much of a pandas DataFrame as is asked for: columns by name, each an array of its own kind."""

    def __init__(self, columns: dict[Any, Any]) -> None:
        self.columns = list(columns)
        self.shape = (len(next(iter(columns.values()))), len(columns))
        self._parts = columns

    def __getitem__(self, name: Any) -> np.ndarray:
        return np.asarray(self._parts[name])


def pandas_frame(columns: dict[Any, Any]) -> Any:
    return pytest.importorskip("pandas").DataFrame(columns)


MAKERS: list[Callable[[dict[Any, Any]], Any]] = [polars.DataFrame, Frame, pandas_frame]


@pytest.mark.parametrize("make", MAKERS)
def test_a_table_is_read_as_its_file(tmp_path: Path, make: Callable[[dict[Any, Any]], Any]) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("user\titem\trating\n" + "".join(f"{u}\t{i}\t{r}\n" for u, i, r in PAIRS))
    one, two = read_interactions(path), read_interactions(make(COLUMNS))
    assert (one.users, one.items, one.has_ratings) == (two.users, two.items, two.has_ratings)
    assert (one.matrix != two.matrix).nnz == 0


@pytest.mark.parametrize("make", MAKERS)
def test_columns_stand_anywhere_and_numbers_are_names(make: Callable[[dict[Any, Any]], Any]) -> None:
    table = make({"when": [9, 8, 7], "item_id": [10, 9, 10], "user_id": [3, 3, 70_000_000_000]})
    found = read_interactions(table)
    assert (found.users, found.items.names, found.has_ratings) == (["3", "70000000000"], ["9", "10"], False)
    unnamed = read_interactions(make({"a": ["x", "y"], "b": ["p", "q"]}))
    assert (unnamed.users, unnamed.items.names) == (["x", "y"], ["p", "q"])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user": ["a", None], "item": ["x", "y"]}, "a name in each row of 'user'. Found an empty cell in row 1"),
        ({"user": ["a", "b"], "item": ["x", ""]}, "a name in each row of 'item'. Found an empty cell in row 1"),
        ({"user": [1.0, float("nan")], "item": [2, 3]}, "a name in each row of 'user'. Found an empty cell in row 1"),
        ({"user": ["a"], "item": ["x"], "rating": [float("inf")]}, "'rating' that are finite"),
        ({"user": ["a"], "item": ["x"], "rating": ["good"]}, "'rating' that are numbers"),
        ({"user": ["a"]}, "columns such as user,item"),
        (
            {"milk": [1, 0], "bread": [0, 1], "jam": [1, 1], "tea": [0, 0]},
            "'tea'; of a table with a column for each item",
        ),
    ],
)
@pytest.mark.parametrize("make", MAKERS)
def test_tables_that_are_none_of_pairs_are_refused(
    make: Callable[[dict[Any, Any]], Any], columns: dict[Any, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message.replace("(", r"\(")):
        read_interactions(make(columns))


def test_whole_numbers_beside_an_empty_cell_stay_whole() -> None:
    assert read_interactions(Frame({"user": [1.0, 2.5], "item": np.array([7, "x"], dtype=object)})).users == [
        "1",
        "2.5",
    ]


def test_lists_are_users_by_number(tmp_path: Path) -> None:
    (tmp_path / "lists.txt").write_text("0 b a\n1\n2 a c\n")
    one, two = read_interactions(tmp_path / "lists.txt"), read_interactions([["b", "a"], [], ("a", "c")])
    assert (one.users, one.items) == (two.users, two.items)
    assert (one.matrix != two.matrix).nnz == 0
    numbers = read_interactions([np.array([5, 3]), [3]])
    assert numbers.items.names == ["3", "5"]


@pytest.mark.parametrize("kind", ["csr_matrix", "csr_array", "coo_matrix", "csc_matrix", "array", "tensor", "int8"])
def test_matrices_of_every_kind_are_one_csr(kind: str) -> None:
    dense = np.array([[0, 2, 0], [0, 0, 0], [1, 0, 3]])
    made: Any = torch.tensor(dense) if kind == "tensor" else dense.astype(np.int8 if kind == "int8" else np.float64)
    if hasattr(scipy.sparse, kind):
        made = getattr(scipy.sparse, kind)(dense)
    found = csr_of(made)
    assert (found.dtype, found.nnz) == (np.float32, 3)
    assert np.array_equal(found.toarray(), dense)


def test_a_matrix_is_not_changed_and_its_zeros_are_no_entries() -> None:
    given = scipy.sparse.csr_matrix((np.array([1.0, 0.0, 2.0, 3.0]), np.array([2, 0, 1, 1]), np.array([0, 2, 4])))
    before = given.data.copy(), given.indices.copy()
    found = csr_of(given)
    assert found.toarray().tolist() == [[0, 0, 1], [0, 5, 0]]
    assert found.nnz == 2
    assert (given.data.tolist(), given.indices.tolist()) == tuple(part.tolist() for part in before)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.array([[1.0, np.nan]]), "finite"),
        (np.array([[1e300]]), "finite"),
        (np.array([[1j]]), "matrix of numbers"),
        (np.array([["a"]]), "matrix of numbers"),
        (scipy.sparse.csr_matrix((2, 4)), "Expected 3 items. Found a matrix with 4 columns"),
    ],
)
def test_matrices_of_something_else_are_refused(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        csr_of(data, 3 if "items" in message else None, "items")


@pytest.mark.parametrize("data", [["milk", "bread"], [3, 4], {"a": ["x"]}, b"ab", 7, None])
def test_what_is_no_list_for_each_user_is_refused(data: Any) -> None:
    assert not is_file(data)
    with pytest.raises(DataError, match="Expected"):
        read_interactions(data)


def test_texts_and_features() -> None:
    features, expected = TextFeatures.fit(["one two", "two three", "two one"], minimum=1)
    schema = LabelSchema(3, 1, text=features)
    for texts in (["one two", "two three", "two one"], np.array(["one two", "two three", "two one"])):
        assert (features_of(texts, schema) != expected).nnz == 0
    assert (features_of(expected, schema) != expected).nnz == 0
    for wrong in ("one", ["one", 2], [["one"]], {"a": "b"}):
        with pytest.raises(DataError, match="Expected"):
            texts_of(wrong)
    with pytest.raises(DataError, match=r"Expected 3 features of a document. Found a matrix with 2 columns"):
        features_of(np.ones((4, 2)), LabelSchema(3, 1))


def test_sentences() -> None:
    assert list(sentences_of(["The sea!", ["The", "sea!"]], "words")) == [["the", "sea"], ["The", "sea!"]]
    for wrong in ("the sea", [1], [["the", 1]], None):
        with pytest.raises(DataError, match="Expected"):
            list(sentences_of(wrong, "words"))


@pytest.mark.parametrize(
    "columns",
    [
        {"item": ["x", "y"], "visitor": ["a", "b"]},
        {"visitor": ["a", "b"], "user": ["x", "y"]},
        {"user_id": ["a", "b"], "thing": ["x", "y"], "rating": [1.0, 2.0]},
    ],
)
@pytest.mark.parametrize("make", MAKERS)
def test_half_a_header_is_refused(make: Callable[[dict[Any, Any]], Any], columns: dict[Any, Any]) -> None:
    """As of files: the other column might be anything, and users would be items."""
    with pytest.raises(DataError, match="columns such as user,item"):
        read_interactions(make(columns))
