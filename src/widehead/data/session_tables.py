"""Sequences in tables: rows of a user or session, an item and, perhaps, a time. See ``sessions``."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from widehead.data.files import FilePath, listed, open_text, shortened
from widehead.data.memory import name_of
from widehead.data.parquet import sound
from widehead.data.sequence_parts import Table
from widehead.data.tables import cell_reader, names_shown, sequence_columns, taken_cells
from widehead.errors import DataError

NAMES = "user,item,time or session_id,item_id,timestamp"
"""Of columns, in errors."""

_ROLES = ("sequences", "items", "times")
_PIECE = 1 << 16  # rows of a Parquet file that are made Python's objects together


def text_rows(path: FilePath, separator: str, table: Table) -> str:
    """Add the rows of a text file to ``table``, and say how they are laid out."""
    with open_text(path) as lines:
        reader = cell_reader(lines, separator)
        rows = (cells for cells in reader if "".join(cells).strip())
        try:
            first: list[str] = next(rows, [])
            if not first:
                return ""
            columns = _columns(f"{path}, line {reader.line_num}", first)
            for cells in itertools.chain([] if columns.header else [first], rows):
                table.add(*_cells(f"{path}, line {reader.line_num}", cells, columns, len(first)))
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: expected separated columns. Found: {error}.") from error
    if not columns.header and table.begins_with_names:
        raise DataError(
            f"{path}: expected numbers, as in all other rows, or a header such as {NAMES}. Found "
            f"{names_shown(first)} in the first one."
        )
    return columns.layout


@dataclass(frozen=True)
class _Columns:
    """Where users, items and, if there are any, times stand, and whether the first row says it."""

    taken: list[int]
    header: bool
    layout: str


def _columns(place: str, first: Sequence[str]) -> _Columns:
    if taken := sequence_columns(first):
        return _Columns(taken, True, _layout_of(first[column] for column in taken))
    if len(first) not in (2, 3) or sequence_columns(first, whole=False):
        raise DataError(
            f"{place}: expected 2 or 3 columns (user, item[, time]), or a header that names them, such as {NAMES}. "
            f"Found {names_shown(first)}."
        )
    return _Columns(list(range(len(first))), False, f"no header, so the first row was read as {names_shown(first)}")


def _cells(place: str, cells: list[str], columns: _Columns, width: int) -> tuple[Any, ...]:
    try:
        user, item, *time = taken_cells(cells, width, columns.taken)
    except ValueError as error:
        raise DataError(f"{place}: {error}.") from error
    return (user, item, *(_time(place, text) for text in time))


def _time(place: str, text: Any) -> float:
    """Seconds, or whatever a number counts."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = _date(text)
    if not math.isfinite(value):
        raise DataError(
            f"{place}: expected a time, a number or a date such as 2026-01-31 or 2026-01-31T18:05:00. "
            f"Found {shortened(text)}."
        )
    return value


def _date(text: Any) -> float:
    """Seconds since 1970 of a date, of UTC if it does not say otherwise; NaN if it is none."""
    try:
        found = text if isinstance(text, datetime) else datetime.fromisoformat(str(text))
    except ValueError:
        return math.nan
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def parquet_rows(path: FilePath, table: Table) -> str:
    """The rows of a Parquet file, likewise."""
    import polars

    try:
        header = list(polars.read_parquet_schema(Path(path)))
        taken = [header[column] for column in sequence_columns(header) or []]
        if not taken:
            raise DataError(f"{path}: expected columns such as {NAMES}. Found {names_shown(header)}.")
        columns = [sound(column) for column in polars.scan_parquet(Path(path)).select(taken).collect()]
    # PanicException, which polars raises for some damaged files, is no Exception.
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException, OSError) as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise DataError(f"{path}: the Parquet data cannot be read ({reason}).") from error
    for begin in range(0, len(columns[0]), _PIECE):
        _add_columns(table, str(path), [column[begin : begin + _PIECE].to_list() for column in columns], begin)
    return _layout_of(taken)


def memory_rows(data: Any, table: Table) -> str:
    """The rows of a table of pandas or polars, likewise."""
    header = [str(name) for name in data.columns]
    taken = _columns("data in memory", header).taken
    _add_columns(table, "data in memory", [_listed(data[data.columns[column]]) for column in taken])
    return _layout_of(header[column] for column in taken)


def item_cells(table: Any) -> list[Any]:
    """The cells of a table's column of items; DataError if it has none."""
    taken = _columns("data in memory", [str(name) for name in table.columns]).taken
    return _listed(table[table.columns[taken[1]]])


def _listed(column: Any) -> list[Any]:
    """The cells of a column of pandas or polars; times as whole nanoseconds, None for one that is missing."""
    found = np.asarray(column)
    if found.dtype.kind != "M":
        return list(found.tolist())
    whole = found.astype("datetime64[ns]").astype(np.int64).astype(object)
    whole[np.isnat(found)] = None
    return list(whole.tolist())


def _add_columns(table: Table, name: str, columns: list[list[Any]], begin: int = 0) -> None:
    """Rows that stand in columns, of which ``begin`` were there before."""
    for number, (user, item, *time) in enumerate(zip(*columns, strict=True), begin + 1):
        names = name_of(user), name_of(item)
        if None in names:
            raise DataError(f"{name}, row {number}: expected a user and an item. Found an empty cell.")
        table.add(str(names[0]), str(names[1]), *(_time(f"{name}, row {number}", cell) for cell in time))


def _layout_of(names: Iterable[str]) -> str:
    return "; ".join(f"{what} from {listed([name])}" for what, name in zip(_ROLES, names, strict=False))
