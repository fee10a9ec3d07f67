"""Parquet files of (user, item[, rating]), a piece at a time."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from widehead.data.files import FilePath, shortened
from widehead.data.pieces import Piece
from widehead.data.tables import LARGEST, NAMES, named_columns, names_shown
from widehead.errors import DataError
from widehead.progress import Work


def parquet_pieces(path: FilePath, rows: int = 1 << 20) -> Iterator[Piece]:
    """Pieces of at most ``rows`` rows of a file whose columns must have names as in the header of a CSV file.

    Raises:
        DataError: names the row, from 1.
    """
    import polars

    try:
        wanted = _wanted(path, polars.read_parquet_schema(Path(path)))
        table = polars.scan_parquet(Path(path)).select(wanted)
        work = Work(f"reading {Path(path).name}", table.select(polars.len()).collect().item())
        for start in range(0, int(work.size), rows):
            yield _piece(path, table.slice(start, rows).collect(), start)
            work.at(start + rows)
    # PanicException, which polars raises for some damaged files, is no Exception.
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException, OSError) as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise DataError(f"{path}: the Parquet data cannot be read ({reason}).") from error


def _piece(path: FilePath, frame: Any, start: int) -> Piece:
    """The piece that begins at row ``start`` (from 0) of the file."""
    import polars

    user, item, *rating = frame.get_columns()
    values = [column.cast(polars.Float64, strict=False) for column in rating]
    empty = frame.select(polars.any_horizontal(polars.all().is_null())).to_series()
    unfit = empty
    for value in values:
        unfit = unfit | ~value.is_between(-LARGEST, LARGEST).fill_null(False)
    if unfit.any():
        row = unfit.arg_true()[0]
        place = f"{path}, row {start + row + 1}"
        if empty[row]:
            raise DataError(f"{place}: expected a user, an item and its rating. Found an empty cell.")
        raise DataError(f"{place}: expected a rating that is a finite number. Found {shortened(rating[0][row])}.")
    users, items = (sound(column.cast(polars.String)) for column in (user, item))
    return Piece(users, items, values[0].to_numpy().astype(np.float32) if values else None)


def _wanted(path: FilePath, schema: Mapping[str, Any]) -> list[str]:
    """Names of the columns of users, items and ratings; DataError if they are missing or of other types."""
    import polars

    names = list(schema)
    columns = named_columns(names)
    if columns is None:
        raise DataError(f"{path}: expected columns such as {NAMES}. Found {names_shown(names)}.")
    user, item, *rating = wanted = [names[column] for column in columns]
    for name in (user, item):
        kind = schema[name]
        if not (kind.is_integer() or kind in (polars.String, polars.Categorical, polars.Enum)):
            raise DataError(f"{path}: expected names or integers in column {name!r}. Found {kind}.")
    for name in rating:
        if not schema[name].is_numeric():
            raise DataError(f"{path}: expected numbers in column {name!r}. Found {schema[name]}.")
    return wanted


def sound(column: Any) -> Any:
    """A column of a file; PolarsError if damage made its text no UTF-8, at which all that reads it would panic."""
    import polars

    return column.cast(polars.Binary).cast(polars.String) if column.dtype == polars.String else column
