"""Tables of (user, item[, rating]): what their columns are, and CSV and TSV as rows of text with their lines."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from widehead.data.files import FilePath, shortened
from widehead.errors import DataError

__all__ = ["LARGEST", "NAMES", "Columns", "Row", "cell_reader", "names_shown", "separated_rows", "unnamed_columns"]

# Compared in lower case, without spaces, hyphens and underscores.
_USER = ("user", "userid", "username", "uid", "customer", "customerid", "reviewer", "reviewerid")
_ITEM = (
    *("item", "itemid", "itemname", "iid", "product", "productid", "asin", "movie", "movieid", "book", "bookid"),
    *("track", "trackid", "song", "songid", "artist", "artistid", "business", "businessid", "location", "locationid"),
)
_RATING = ("rating", "ratings", "score", "stars", "value", "weight", "count", "plays")
NAMES = "user,item,rating or user_id,item_id,rating"
"""Headers as messages show them."""


LARGEST = float(np.finfo(np.float32).max)
"""The largest rating."""


class Row(NamedTuple):
    """A user and some items, and the rating of the only one if there are ratings."""

    user: str
    items: Sequence[str]
    rating: float | None = None


class Columns(NamedTuple):
    """Positions of the columns."""

    user: int
    item: int
    rating: int | None

    @classmethod
    def named(cls, header: Sequence[str]) -> Columns | None:
        """Positions by the names of a header; None if a name of users or of items is missing."""
        user, item, rating = (_position(header, wanted) for wanted in (_USER, _ITEM, _RATING))
        return None if user is None or item is None else cls(user, item, rating)


def separated_rows(path: FilePath, lines: Iterator[str], separator: str) -> Iterator[Row]:
    """Rows of a CSV (quotes are understood) or TSV file (quotes are ordinary characters).

    The first row is a header if it names a column of users and one of items; other columns are then ignored.
    Without a header the columns are user, item and, as the third one, the rating. Rows of empty cells are left out.

    Raises:
        DataError: names the line.
    """
    reader = cell_reader(lines, separator)
    rows = (cells for cells in reader if "".join(cells).strip())
    try:
        first: list[str] = next(rows, [])
        if columns := Columns.named(first):
            yield from _rows(path, reader, rows, len(first), columns)
        elif first:
            columns = unnamed_columns(path, reader.line_num, first)
            everything = itertools.chain([first], rows)
            yield from _unlike_first(path, reader.line_num, _rows(path, reader, everything, len(first), columns))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: expected separated columns. Found: {error}.") from error


def cell_reader(lines: Iterable[str], separator: str) -> Any:
    """The reader of csv for these lines."""
    ended = (line + "\n" for line in lines)  # the reader puts the line ends of a quoted cell back
    if separator == ",":
        return csv.reader(ended, strict=True)
    return csv.reader(ended, delimiter=separator, quoting=csv.QUOTE_NONE, strict=True)


def _rows(path: FilePath, reader: Any, rows: Iterable[list[str]], width: int, columns: Columns) -> Iterator[Row]:
    for cells in rows:
        try:
            row = _row(cells, width, columns)
        except ValueError as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}.") from error
        yield row


def _row(cells: list[str], width: int, columns: Columns) -> Row:
    if len(cells) != width:
        raise ValueError(f"expected {width} columns, as in the first row. Found {len(cells)}")
    user, item = cells[columns.user].strip(), cells[columns.item].strip()
    if not user or not item:
        raise ValueError("expected a user and an item. Found an empty cell")
    return Row(user, (item,), None if columns.rating is None else _rating(cells[columns.rating]))


def _unlike_first(path: FilePath, line: int, rows: Iterator[Row]) -> Iterator[Row]:
    """The rows; refuses a first row of words if all the others hold numbers, as it must be a header."""
    first = next(rows)
    yield first
    words, others = not (first.user.isdigit() or first.items[0].isdigit()), False
    for row in rows:
        words, others = words and row.user.isdigit() and row.items[0].isdigit(), True
        yield row
    if words and others:
        raise DataError(
            f"{path}, line {line}: expected numbers, as in all other rows, or a header such as {NAMES}. "
            f"Found {names_shown([first.user, *first.items])}."
        )


def unnamed_columns(path: FilePath, line: int, first: list[str]) -> Columns:
    """Columns of a file without a header; refuses a first row that looks like a header nobody can read."""
    header = f"a header that names them, such as {NAMES}"
    if len(first) not in (2, 3):
        raise DataError(
            f"{path}, line {line}: expected 2 or 3 columns (user, item[, rating]), or {header}. "
            f"Found {len(first)} columns: {names_shown(first)}."
        )
    if _position(first, _USER) is not None or _position(first, _ITEM) is not None:
        raise DataError(f"{path}, line {line}: expected {header}. Found {names_shown(first)}.")
    return Columns(0, 1, 2 if len(first) == 3 else None)


def _rating(cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if -LARGEST <= value <= LARGEST:
        return value
    raise ValueError(f"expected a rating that is a finite number. Found {shortened(cell)}")


def _position(header: Sequence[str], wanted: Sequence[str]) -> int | None:
    names = ["".join(c for c in name.lower() if c not in " _-") for name in header]
    return next((names.index(w) for w in wanted if w in names), None)


def names_shown(names: Sequence[str]) -> str:
    text = ", ".join(repr(name) for name in names[:8])
    return (text if len(text) <= 120 else text[:120] + "…") + (", …" if len(names) > 8 else "")
