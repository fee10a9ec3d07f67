"""Tables of (user, item[, rating]): what their columns are, and CSV and TSV as rows of text with their lines."""

import csv
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from widehead.data.files import FilePath, finite
from widehead.errors import DataError

# Compared in lower case, without spaces, hyphens, underscores and quotes, and without the types that RecBole adds.
_USER = ("user", "userid", "username", "uid", "customer", "customerid", "reviewer", "reviewerid")
_ITEM = (
    *("item", "itemid", "itemname", "iid", "product", "productid", "asin", "movie", "movieid", "book", "bookid"),
    *("track", "trackid", "song", "songid", "artist", "artistid", "business", "businessid", "location", "locationid"),
)
_RATING = ("rating", "ratings", "score", "stars", "value", "weight", "count", "plays")
_SESSION = ("session", "sessionid", "sid", "visitor", "visitorid", "sequence", "sequenceid", "history", "basket")
_TIME = ("time", "timestamp", "datetime", "date", "ts", "eventtime", "eventdate", "timeframe", "createdat", "day")
_UNTOLD = re.compile(r"[ _\-\"]|:(?:token|float)$")
NAMES = "user,item,rating or user_id,item_id,rating"
"""Headers as messages show them."""


LARGEST = float(np.finfo(np.float32).max)
"""The largest rating."""


class Row(NamedTuple):
    """A user and some items, and the rating of the only one if there are ratings."""

    user: str
    items: Sequence[str]
    rating: float | None = None


def named_columns(header: Sequence[str]) -> list[int] | None:
    """Positions of users, items and, if there are any, ratings, by the names of a header; None if it names no pairs."""
    user, item, rating = (_position(header, wanted) for wanted in (_USER, _ITEM, _RATING))
    if user is None or item is None:
        return None
    return [user, item] if rating is None else [user, item, rating]


def sequence_columns(header: Sequence[str], *, whole: bool = True) -> list[int] | None:
    """Positions of sessions (or users), items and, if there are any, times, by the names of a header.

    None if it does not name both of the first; without ``whole``, if it names neither.
    """
    session, user, item, time = (_position(header, wanted) for wanted in (_SESSION, _USER, _ITEM, _TIME))
    found = [column for column in (user if session is None else session, item) if column is not None]
    if len(found) < (2 if whole else 1):
        return None
    return found if time is None else [*found, time]


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
        if columns := named_columns(first):
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


def _rows(path: FilePath, reader: Any, rows: Iterable[list[str]], width: int, columns: list[int]) -> Iterator[Row]:
    for cells in rows:
        try:
            row = _row(cells, width, columns)
        except ValueError as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}.") from error
        yield row


def _row(cells: list[str], width: int, columns: list[int]) -> Row:
    user, item, *rating = taken_cells(cells, width, columns)
    rated = finite(rating[0], LARGEST, "a rating that is a finite number") if rating else None
    return Row(user, (item,), rated)


def taken_cells(cells: list[str], width: int, columns: list[int]) -> list[str]:
    """User, item and, if there is a third column, what it holds; ValueError if a row is not as the first one."""
    if len(cells) != width:
        raise ValueError(f"expected {width} columns, as in the first row. Found {len(cells)}")
    taken = [cells[column].strip() for column in columns]
    if not taken[0] or not taken[1]:
        raise ValueError("expected a user and an item. Found an empty cell")
    return taken


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


def unnamed_columns(path: FilePath, line: int, first: list[str]) -> list[int]:
    """Columns of a file without a header; refuses a first row that looks like a header nobody can read."""
    header = f"a header that names them, such as {NAMES}"
    if len(first) not in (2, 3):
        raise DataError(
            f"{path}, line {line}: expected 2 or 3 columns (user, item[, rating]), or {header}. "
            f"Found {len(first)} columns: {names_shown(first)}."
        )
    if half_named(first):
        raise DataError(f"{path}, line {line}: expected {header}. Found {names_shown(first)}.")
    return list(range(len(first)))


def half_named(header: Sequence[str]) -> bool:
    """Whether a header names users or items, but not both."""
    return (_position(header, _USER) is None) != (_position(header, _ITEM) is None)


def _position(header: Sequence[str], wanted: Sequence[str]) -> int | None:
    names = [_UNTOLD.sub("", name.lower()) for name in header]
    return next((names.index(w) for w in wanted if w in names), None)


def names_shown(names: Sequence[str]) -> str:
    text = ", ".join(repr(name) for name in names[:8])
    return (text if len(text) <= 120 else text[:120] + "…") + (", …" if len(names) > 8 else "")
