"""Tables of (user, item[, rating]): what their columns are, and CSV and TSV as rows of text with their lines."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from widehead.data.files import FilePath
from widehead.errors import DataError

__all__ = ["NAMES", "Columns", "Row", "cell_reader", "names_shown", "separated_rows", "unnamed_columns"]

# Compared in lower case, without spaces, hyphens and underscores.
_USER = ("user", "userid", "username", "uid", "customer", "customerid", "reviewer", "reviewerid")
_ITEM = (
    *("item", "itemid", "itemname", "iid", "product", "productid", "asin", "movie", "movieid", "book", "bookid"),
    *("track", "trackid", "song", "songid", "artist", "artistid", "business", "businessid", "location", "locationid"),
)
_RATING = ("rating", "ratings", "score", "stars", "value", "weight", "count", "plays")
NAMES = "user,item,rating or user_id,item_id,rating"
"""Headers as messages show them."""


class Row(NamedTuple):
    """One pair: the line of the file, two names and the rating as it stands, or None."""

    line: int
    user: str
    item: str
    rating: str | None


class Columns(NamedTuple):
    """Positions of the columns."""

    user: int
    item: int
    rating: int | None

    @classmethod
    def named(cls, header: Sequence[str]) -> Columns | None:
        """Positions by the names of a header; None if a name of users or of items is missing."""
        names = ["".join(c for c in name.lower() if c not in " _-") for name in header]
        user, item, rating = (_position(names, wanted) for wanted in (_USER, _ITEM, _RATING))
        return None if user is None or item is None else cls(user, item, rating)


def separated_rows(path: FilePath, lines: Iterator[str], separator: str) -> Iterator[Row]:
    """Rows of a CSV (quotes are understood) or TSV file (quotes are ordinary characters).

    The first row is a header if it names a column of users and one of items; other columns are then ignored.
    Without a header the columns are user, item and, as the third one, the rating. Rows of empty cells are left out.

    Raises:
        DataError: names the line.
    """
    reader = cell_reader(lines, separator)
    try:
        first: list[str] = next((cells for cells in reader if _filled(cells)), [])
        if not first:
            return
        columns = Columns.named(first)
        doubtful = None
        if columns is None:
            columns = unnamed_columns(path, reader.line_num, first)
            doubtful = _row(path, reader.line_num, first, columns)
            yield doubtful
        yield from _unlike(path, doubtful, _rest(path, reader, len(first), columns))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: expected separated columns. Found: {error}.") from error


def cell_reader(lines: Iterable[str], separator: str) -> Any:
    """The reader of csv for these lines."""
    ended = (line + "\n" for line in lines)  # the reader puts the line ends of a quoted cell back
    if separator == ",":
        return csv.reader(ended, strict=True)
    return csv.reader(ended, delimiter=separator, quoting=csv.QUOTE_NONE, strict=True)


def _rest(path: FilePath, reader: Any, width: int, columns: Columns) -> Iterator[Row]:
    """The rows after the first one; rows of empty cells are left out."""
    for cells in reader:
        if not _filled(cells):
            continue
        if len(cells) != width:
            raise DataError(
                f"{path}, line {reader.line_num}: expected {width} columns, as in the first row. Found {len(cells)}."
            )
        yield _row(path, reader.line_num, cells, columns)


def _unlike(path: FilePath, first: Row | None, rows: Iterator[Row]) -> Iterator[Row]:
    """The rows; refuses a first row of words if all the others hold numbers, as it must be a header."""
    doubtful = first is not None and not first.user.isdigit() and not first.item.isdigit()
    numbers = 0
    for row in rows:
        if doubtful:
            doubtful = row.user.isdigit() and row.item.isdigit()
            numbers += 1
        yield row
    if first is not None and doubtful and numbers > 0:
        raise DataError(
            f"{path}, line {first.line}: expected numbers, as in all other rows, or a header such as {NAMES}. "
            f"Found {names_shown([first.user, first.item])}."
        )


def unnamed_columns(path: FilePath, line: int, first: list[str]) -> Columns:
    """Columns of a file without a header; refuses a first row that looks like a header nobody can read."""
    header = f"a header that names them, such as {NAMES}"
    if len(first) not in (2, 3):
        raise DataError(
            f"{path}, line {line}: expected 2 or 3 columns (user, item[, rating]), or {header}. "
            f"Found {len(first)} columns: {names_shown(first)}."
        )
    names = ["".join(c for c in cell.lower() if c not in " _-") for cell in first]
    if _position(names, _USER) is not None or _position(names, _ITEM) is not None:
        raise DataError(f"{path}, line {line}: expected {header}. Found {names_shown(first)}.")
    return Columns(0, 1, 2 if len(first) == 3 else None)


def _row(path: FilePath, line: int, cells: list[str], columns: Columns) -> Row:
    user, item = cells[columns.user].strip(), cells[columns.item].strip()
    if not user or not item:
        raise DataError(f"{path}, line {line}: expected a user and an item. Found an empty cell.")
    return Row(line, user, item, None if columns.rating is None else cells[columns.rating])


def _filled(cells: list[str]) -> bool:
    return bool("".join(cells).strip())


def _position(names: list[str], wanted: Sequence[str]) -> int | None:
    return next((names.index(w) for w in wanted if w in names), None)


def names_shown(names: Sequence[str]) -> str:
    text = ", ".join(repr(name) for name in names[:8])
    return (text if len(text) <= 120 else text[:120] + "…") + (", …" if len(names) > 8 else "")
