"""Tables of (user, item[, rating]): CSV, TSV and Parquet, as rows of text with their place in the file."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from widehead.data.files import FilePath
from widehead.errors import DataError

__all__ = ["Columns", "Row", "parquet_rows", "separated_rows"]

# Compared in lower case, without spaces, hyphens and underscores.
_USER = ("user", "userid", "username", "uid", "customer", "customerid", "reviewer", "reviewerid")
_ITEM = (
    *("item", "itemid", "itemname", "iid", "product", "productid", "asin", "movie", "movieid", "book", "bookid"),
    *("track", "trackid", "song", "songid", "artist", "artistid", "business", "businessid", "location", "locationid"),
)
_RATING = ("rating", "ratings", "score", "stars", "value", "weight", "count", "plays")
_NAMES = "user,item,rating or user_id,item_id,rating"


class Row(NamedTuple):
    """One pair: the line (or row) of the file, two names and the rating as it stands, or None."""

    line: int
    user: str
    item: str
    rating: Any


class Columns(NamedTuple):
    """Positions of the columns."""

    user: int
    item: int
    rating: int | None

    @classmethod
    def named(cls, header: Sequence[str]) -> Columns | None:
        """Positions by the names of a header; None where a name of users or of items is missing."""
        names = ["".join(c for c in name.lower() if c not in " _-") for name in header]
        user, item, rating = (_position(names, wanted) for wanted in (_USER, _ITEM, _RATING))
        return None if user is None or item is None else cls(user, item, rating)


def separated_rows(path: FilePath, lines: Iterator[str], separator: str) -> Iterator[Row]:
    """Rows of a CSV (quotes are understood) or TSV file (quotes are ordinary characters).

    The first row is a header where it names a column of users and one of items; other columns are then ignored.
    Without a header the columns are user, item and, as the third one, the rating. Rows of empty cells are left out.

    Raises:
        DataError: names the line.
    """
    ended = (line + "\n" for line in lines)  # the reader puts the line ends of a quoted cell back
    if separator == ",":
        reader = csv.reader(ended, strict=True)
    else:
        reader = csv.reader(ended, delimiter=separator, quoting=csv.QUOTE_NONE, strict=True)
    try:
        first = next((cells for cells in reader if _filled(cells)), [])
        if not first:
            return
        columns = Columns.named(first)
        doubtful = None
        if columns is None:
            columns = _unnamed(path, reader.line_num, first)
            doubtful = _row(path, reader.line_num, first, columns)
            yield doubtful
        yield from _unlike(path, doubtful, _rest(path, reader, len(first), columns))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: expected separated columns. Found: {error}.") from error


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
    """The rows; refuses a first row of words where all the others hold numbers, as it must be a header."""
    doubtful = first is not None and not first.user.isdigit() and not first.item.isdigit()
    numbers = 0
    for row in rows:
        if doubtful:
            doubtful = row.user.isdigit() and row.item.isdigit()
            numbers += 1
        yield row
    if first is not None and doubtful and numbers > 0:
        raise DataError(
            f"{path}, line {first.line}: expected numbers, as in all other rows, or a header such as {_NAMES}. "
            f"Found {_shown([first.user, first.item])}."
        )


def parquet_rows(path: FilePath) -> Iterator[Row]:
    """Rows of a Parquet file, whose columns must have names as in the header of a CSV file. Raises DataError."""
    names, columns, frame = _read_parquet(path)
    wanted = [names[c] for c in columns if c is not None]
    for line, values in enumerate(frame.select(wanted).iter_rows(), 1):
        user, item, *rating = values
        if user is None or item is None or (rating and rating[0] is None):
            raise DataError(f"{path}, row {line}: expected a user, an item and its rating. Found an empty cell.")
        yield Row(line, str(user), str(item), rating[0] if rating else None)


def _read_parquet(path: FilePath) -> tuple[list[str], Columns, Any]:
    import polars

    try:
        schema = polars.read_parquet_schema(Path(path))
        names = list(schema)
        columns = Columns.named(names)
        if columns is None:
            raise DataError(f"{path}: expected columns such as {_NAMES}. Found {_shown(names)}.")
        _check_types(path, columns, list(schema.items()))
        return names, columns, polars.read_parquet(Path(path), columns=[names[c] for c in columns if c is not None])
    # PanicException, which polars raises for some damaged files, is no Exception.
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException, OSError) as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise DataError(f"{path}: the Parquet data cannot be read ({reason}).") from error


def _check_types(path: FilePath, columns: Columns, schema: Sequence[tuple[str, Any]]) -> None:
    import polars

    texts = (polars.String, polars.Categorical, polars.Enum)
    for name, kind in (schema[columns.user], schema[columns.item]):
        if not (kind.is_integer() or kind in texts):
            raise DataError(f"{path}: expected names or integers in column {name!r}. Found {kind}.")
    if columns.rating is not None and not schema[columns.rating][1].is_numeric():
        name, kind = schema[columns.rating]
        raise DataError(f"{path}: expected numbers in column {name!r}. Found {kind}.")


def _unnamed(path: FilePath, line: int, first: list[str]) -> Columns:
    """Columns of a file without a header; refuses a first row that looks like a header nobody can read."""
    header = f"a header that names them, such as {_NAMES}"
    if len(first) not in (2, 3):
        raise DataError(
            f"{path}, line {line}: expected 2 or 3 columns (user, item[, rating]), or {header}. "
            f"Found {len(first)} columns: {_shown(first)}."
        )
    names = ["".join(c for c in cell.lower() if c not in " _-") for cell in first]
    if _position(names, _USER) is not None or _position(names, _ITEM) is not None:
        raise DataError(f"{path}, line {line}: expected {header}. Found {_shown(first)}.")
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


def _shown(names: Sequence[str]) -> str:
    text = ", ".join(repr(name) for name in names[:8])
    return (text if len(text) <= 120 else text[:120] + "…") + (", …" if len(names) > 8 else "")
