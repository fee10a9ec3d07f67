"""Data that are in memory already: matrices of scipy and numpy, lists, tables of pandas and polars.

Rows have no names but their numbers, from 0. A value of 0 is no entry, whether it is stored or not.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np
import scipy.sparse

from widehead.data.files import shortened
from widehead.data.labels import LabelSchema
from widehead.data.pairs import Pairs, pairs_of_piece
from widehead.data.pieces import Piece
from widehead.data.sparse import CSR
from widehead.data.tables import NAMES, half_named, named_columns, names_shown
from widehead.data.text import Tokens, words_of
from widehead.errors import DataError

_SCIPY = "a scipy matrix, scipy.sparse.csr_matrix(…)"
_ZEROS_AND_ONES = {"0", "1", "0.0", "1.0", "False", "True"}


def is_matrix(data: Any) -> bool:
    """Whether data are a matrix of numbers: of scipy, or an array or tensor with two dimensions."""
    return scipy.sparse.issparse(data) or (getattr(data, "ndim", 0) == 2 and not is_table(data))


def is_table(data: Any) -> bool:
    """Whether data are a table with named columns, as those of pandas and polars."""
    return hasattr(data, "columns") and hasattr(data, "__getitem__")


def csr_of(data: Any, columns: int | None = None, what: str = "columns") -> CSR:
    """A matrix as an (m, N) scipy CSR of float32 of its own, its columns rising, without stored zeros.

    Args:
        columns: N, if it is known already. what: they are, as errors say it.

    Raises:
        DataError: other data than a matrix of finite real numbers, or another N.
    """
    try:
        found = data if scipy.sparse.issparse(data) else np.asarray(data)
        found = found.astype(np.float64) if found.dtype == object else found
        if found.ndim != 2 or np.dtype(found.dtype).kind not in "biuf":
            raise ValueError(f"{found.ndim} dimensions of {found.dtype}")
        with np.errstate(over="ignore"):
            matrix = scipy.sparse.csr_matrix(found, dtype=np.float32, copy=True)
    except (RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"Expected a matrix of numbers. Found {_shown(data)}; do {_SCIPY} ({error}).") from error
    matrix.sum_duplicates()
    if not np.isfinite(matrix.data).all():
        raise DataError("Expected a matrix of finite numbers within float32. Found NaN or infinity in it.")
    if columns is not None and matrix.shape[1] != columns:
        raise DataError(f"Expected {columns:,} {what}. Found a matrix with {matrix.shape[1]:,} columns.")
    matrix.eliminate_zeros()
    return matrix


def row_names(count: int) -> list[str]:
    """What rows without names are called: their numbers."""
    return list(map(str, range(count)))


def pairs_of(data: Any, users: Sequence[str] | None = None) -> Pairs:
    """Users and items of a table, or of a list of items for each user.

    The columns of a table are found by their names (user, item, rating and the like); without such names there should
    be two, or a third one with ratings.

    Args:
        users: names of those whom lists are of; their numbers if not given.

    Raises:
        DataError: something else, an empty cell, a rating that is not finite, or lists of another number of users.
    """
    return pairs_of_piece(_table_piece(data) if is_table(data) else _list_piece(data, users))


def texts_of(data: Any) -> list[str]:
    """Texts, one a document; DataError if they are something else."""
    texts = list(_listed(data, "texts"))
    if wrong := [text for text in texts if not isinstance(text, str)]:
        raise DataError(f"Expected texts, one a document. Found {_shown(wrong[0])} among them.")
    return [str(text) for text in texts]


def features_of(data: Any, schema: LabelSchema) -> CSR:
    """(m, N) features of documents: a matrix of them, or texts if the schema is one of texts.

    Raises:
        DataError: another number of features, or something else.
    """
    if schema.text is None or is_matrix(data):
        return csr_of(data, schema.num_features, "features of a document")
    return schema.text.transform(texts_of(data))


def sentences_of(data: Any, tokens: Tokens) -> Iterator[list[str]]:
    """The words of sentences: of a text as files are cut, of a list of words these.

    Raises:
        DataError: something else.
    """
    for sentence in _listed(data, "sentences"):
        if isinstance(sentence, str):
            yield words_of(sentence, tokens)
            continue
        words = list(sentence) if isinstance(sentence, Iterable) else [sentence]
        if wrong := [word for word in words if not isinstance(word, str)]:
            raise DataError(f"Expected texts, or lists of words. Found {_shown(wrong[0])} among them.")
        yield [str(word) for word in words]


def lists_of(data: Any, what: str, *, ordered: bool = False) -> list[list[Any]]:
    """A list of things for each of some others; DataError if data are something else, or ``ordered`` and sets."""
    rows = []
    for row in _listed(data, f"lists of {what}"):
        if isinstance(row, str | bytes) or not isinstance(row, Iterable):
            raise DataError(f"Expected lists of {what}. Found {_shown(row)} among them; do [[…], […]].")
        if ordered and isinstance(row, Set | Mapping):
            raise DataError(f"Expected lists of {what}, in their order. Found {_shown(row)}, which has none.")
        rows.append(list(row))
    if _are_indicators(rows):
        raise DataError(
            f"Expected lists of {what}. Found lists of zeros and ones; do numpy.array(…) if they are a matrix."
        )
    return rows


def _are_indicators(rows: list[list[Any]]) -> bool:
    """Whether lists are the rows of a matrix of zeros and ones: one of them names the same twice."""
    return (
        len(set(map(len, rows))) == 1
        and all(str(cell) in _ZEROS_AND_ONES for row in rows for cell in row)
        and any(len(set(row)) < len(row) for row in rows)
    )


def _listed(data: Any, what: str) -> Iterable[Any]:
    if isinstance(data, str | bytes | dict) or is_table(data) or is_matrix(data) or not isinstance(data, Iterable):
        raise DataError(f"Expected a list of {what}. Found {_shown(data)}.")
    return data


def _list_piece(data: Any, users: Sequence[str] | None) -> Piece:
    rows = lists_of(data, "items, one for each user")
    if users is not None and len(users) != len(rows):
        raise DataError(f"Expected lists of {len(users):,} users. Found {len(rows):,} lists.")
    names = _names(row_names(len(rows)) if users is None else users, "users")
    items = _names([item for row in rows for item in row], "items")
    return Piece(names, items, None, np.array([len(r) for r in rows], dtype=np.int64))


def pair_cells(table: Any) -> list[tuple[str, np.ndarray]]:
    """Name and cells of a table's columns of users, items and, if it has one, ratings; DataError if it has none."""
    header = [str(name) for name in table.columns]
    columns = named_columns(header) or list(range(len(header)))
    if len(columns) not in (2, 3) or half_named(header) or not hasattr(table, "shape"):
        raise DataError(
            f"Expected a table with columns such as {NAMES}. Found {type(table).__name__} with {names_shown(header)}; "
            "of a table with a column for each item do table.to_numpy()."
        )
    found = [(header[column], np.asarray(table[table.columns[column]])) for column in columns]
    if any(cells.ndim != 1 for _, cells in found):
        raise DataError(f"Expected a table whose columns have names of their own. Found {header}.")
    return found


def _table_piece(table: Any) -> Piece:
    users, items, *more = pair_cells(table)
    ratings = _numbers(more[0][1], more[0][0]) if more else None
    return Piece(_names(users[1], users[0]), _names(items[1], items[0]), ratings)


def _numbers(cells: np.ndarray, column: str) -> np.ndarray:
    try:
        with np.errstate(over="ignore"):
            numbers = cells.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"Expected ratings in the column {column!r} that are numbers. Found {error}.") from error
    if not np.isfinite(numbers).all():
        raise DataError(f"Expected ratings in the column {column!r} that are finite. Found NaN or infinity.")
    return numbers


def _names(cells: Sequence[Any] | np.ndarray, column: str) -> Any:
    """A column of polars with the names that cells show; DataError if one is empty."""
    import polars

    found = np.asarray(cells) if isinstance(cells, np.ndarray) else None
    if found is not None and found.dtype.kind in "iu":
        return polars.Series(found).cast(polars.String)
    names = [name_of(cell) for cell in (cells if found is None else found.tolist())]
    if None in names:
        raise DataError(f"Expected a name in each row of {column!r}. Found an empty cell in row {names.index(None)}.")
    return polars.Series(names, dtype=polars.String)


def name_of(cell: Any) -> str | None:
    """What a cell is called; None if it is empty. pandas makes 17.0 of 17 if another cell of the column is empty."""
    if isinstance(cell, str):
        return cell or None
    if cell is None or str(cell) in ("<NA>", "NaT", "nan"):
        return None
    return str(int(cell)) if isinstance(cell, float | np.floating) and cell.is_integer() else str(cell)


def _shown(data: Any) -> str:
    """What data are, as errors say it."""
    shape = getattr(data, "shape", None)
    if shape is not None and len(shape):
        return f"{type(data).__name__} of shape {tuple(shape)}"
    return f"{type(data).__name__} {shortened(data)}"
