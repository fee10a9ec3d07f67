"""Sequences of items: the clicks of a session, the history of a user.

The format is told by the content:

* the file starts with the bytes ``PAR1``: Parquet with named columns;
* otherwise the first line that is not blank decides: with a tab it is TSV, else with a comma it is CSV, each of
  (user or session, item[, time]) with or without a header. The items of one user are a sequence, in the order of the
  times or, without times, of the file. Times are numbers or dates as ISO 8601 has them;
* otherwise each line is a sequence, "item item item …" separated by spaces; blank lines are sequences without items.
"""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from widehead.data.files import FilePath, first_bytes, first_lines, is_file, listed, open_text, shortened
from widehead.data.foreign import refuse_foreign, refuse_separators
from widehead.data.memory import is_matrix, is_table, lists_of, name_of, row_names
from widehead.data.pairs import list_lines, separator_of
from widehead.data.parquet import sound
from widehead.data.tables import cell_reader, names_shown, sequence_columns, taken_cells
from widehead.data.vocabulary import Vocabulary, name_order
from widehead.errors import DataError

_EXPECTED = "'item item item …' lines, or a table of users (or sessions), items and times with commas or tabs"
_ROLES = ("sequences", "items", "times")
_NAMES = "user,item,time or session_id,item_id,timestamp"


@dataclass(frozen=True)
class Sequences:
    """Sequences of items.

    Attributes:
        ids: (n,) int64 items of all sequences, one after the other; −1 for those that ``items`` lacks.
        offsets: (m + 1,) int64 where sequences begin.
        items: what the ids mean.
        names: of the sequences: users, numbers of lists in memory, lines as they stand. None if nobody asked.
        order: (m,) int64 the sequences by the times of their last items; as they come, if there are no times.
        layout: how they were laid out, as a sentence ends.
    """

    ids: np.ndarray
    offsets: np.ndarray
    items: Vocabulary
    names: Sequence[str] | None
    order: np.ndarray
    layout: str

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __str__(self) -> str:
        lengths = np.diff(self.offsets)
        first = listed(self.items[i] if i >= 0 else "(unknown)" for i in self.ids[:3].tolist())
        return (
            f"{int((lengths > 0).sum()):,} sequences of {len(self.items):,} items, {len(self.ids):,} in all, "
            f"{int(lengths.max(initial=0)):,} in the longest; first items {first}; {self.layout}"
        )


def read_sequences(data: Any, items: Vocabulary | None = None) -> Sequences:
    """Sequences of a file, whose format is told by the content, as the module says; or of data in memory.

    Args:
        data: the file, plain or compressed by gzip, xz or zstd; lists of items, one for each sequence; or a table of
            pandas or polars with such columns.
        items: what is known; sequences are given names then. None: all that the data hold, by number if all are
            numbers, else by frequency.

    Raises:
        DataError: the file cannot be read, names the line; or data in memory are something else.
    """
    if is_table(data):
        return _of_rows(_memory_rows(data), items, "data in memory")
    if not is_file(data):
        return _of_lists(_memory_lists(data), items, "lists in memory", row_names)
    if first_bytes(data).startswith(b"PAR1"):
        return _of_rows(_parquet_rows(data), items, str(data))
    lines = first_lines(data)
    refuse_foreign(data, lines, _EXPECTED)
    separator = separator_of(lines[0][1]) if lines else None
    if separator is not None or (lines and all(len(line.split()) == 1 for _, line in lines)):
        refuse_separators(data, lines, table=separator is not None)
    if separator is not None:
        return _of_rows(_text_rows(data, separator), items, str(data))
    return _of_lists(_file_lists(data), items, "a sequence on each line", None)


def _of_lists(
    lists: Iterator[list[str]], items: Vocabulary | None, layout: str, names: Callable[[int], list[str]] | None
) -> Sequences:
    """Sequences of lists; they are called by their items if ``names`` does not say how."""
    known: dict[str, int] = {}
    codes, lengths, called = [], [], []
    for row in lists:
        codes += [known.setdefault(name, len(known)) for name in row]
        lengths.append(len(row))
        if items is not None and names is None:
            called.append(" ".join(row))
    offsets = np.cumsum([0, *lengths])
    ids, items_of = _numbered(list(known), np.array(codes, dtype=np.int64), items)
    told = None if items is None else called if names is None else names(len(lengths))
    return Sequences(ids, offsets, items_of, told, np.arange(len(lengths)), layout)


def _numbered(names: list[str], codes: np.ndarray, items: Vocabulary | None) -> tuple[np.ndarray, Vocabulary]:
    """Ids of items that are numbered by appearance, and what they mean."""
    if items is not None:
        return items.ids(names)[codes] if len(codes) else codes, items
    order = name_order(names, np.bincount(codes, minlength=len(names)))
    id_of = np.empty(len(names), dtype=np.int64)
    id_of[order] = np.arange(len(names))
    return id_of[codes], Vocabulary(names[i] for i in order)


@dataclass(frozen=True)
class _Rows:
    """A table: (n,) users, items and, if there are any, times; and what its columns are."""

    users: list[str]
    items: list[str]
    times: np.ndarray | None
    layout: str


def _of_rows(rows: _Rows, items: Vocabulary | None, name: str) -> Sequences:
    if not rows.items:
        raise DataError(f"{name}: expected rows of users and items. Found none.")
    users: dict[str, int] = {}
    known: dict[str, int] = {}
    user = np.array([users.setdefault(name, len(users)) for name in rows.users])
    codes = np.array([known.setdefault(name, len(known)) for name in rows.items])
    place = np.arange(len(user)) if rows.times is None else np.argsort(rows.times, kind="stable")
    place = place[np.argsort(user[place], kind="stable")]
    offsets = np.cumsum([0, *np.bincount(user)])
    order = np.arange(len(users))
    if rows.times is not None:
        order = np.argsort(rows.times[place][offsets[1:] - 1], kind="stable")
    ids, items_of = _numbered(list(known), codes[place], items)
    return Sequences(ids, offsets, items_of, None if items is None else list(users), order, rows.layout)


def _file_lists(path: FilePath) -> Iterator[list[str]]:
    with open_text(path) as lines:
        yield from list_lines(path, lines, "item item item …")


def _memory_lists(data: Any) -> Iterator[list[str]]:
    if is_matrix(data):
        raise DataError("Expected lists of items in their order, or a table. Found a matrix; do matrix.tolist().")
    for number, row in enumerate(lists_of(data, "items, one for each sequence", ordered=True)):
        names = [name_of(item) for item in row]
        if None in names:
            raise DataError(f"Expected names of items. Found an empty one in sequence {number}.")
        yield [str(name) for name in names]


def _text_rows(path: FilePath, separator: str) -> _Rows:
    users: list[str] = []
    items: list[str] = []
    times: list[float] = []
    with open_text(path) as lines:
        reader = cell_reader(lines, separator)
        rows = (cells for cells in reader if "".join(cells).strip())
        try:
            first: list[str] = next(rows, [])
            if not first:
                return _Rows([], [], None, "")
            columns = _columns(f"{path}, line {reader.line_num}", first)
            for cells in itertools.chain([] if columns.header else [first], rows):
                row = _cells(f"{path}, line {reader.line_num}", cells, columns, len(first))
                users.append(row[0])
                items.append(row[1])
                times += row[2:]
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: expected separated columns. Found: {error}.") from error
    if not columns.header and _is_header(users, items):
        raise DataError(
            f"{path}: expected numbers, as in all other rows, or a header such as {_NAMES}. Found "
            f"{names_shown(first)} in the first one."
        )
    return _Rows(users, items, np.array(times) if len(columns.taken) > 2 else None, columns.layout)


@dataclass(frozen=True)
class _Columns:
    """Where users, items and, if there are any, times stand, and whether the first row says it."""

    taken: list[int]
    header: bool
    layout: str


def _columns(place: str, first: Sequence[str]) -> _Columns:
    if taken := sequence_columns(first):
        whose = zip(_ROLES, taken, strict=False)
        return _Columns(taken, True, "; ".join(f"{what} from {listed([first[column]])}" for what, column in whose))
    if len(first) not in (2, 3) or sequence_columns(first, whole=False):
        raise DataError(
            f"{place}: expected 2 or 3 columns (user, item[, time]), or a header that names them, such as {_NAMES}. "
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


def _is_header(users: list[str], items: list[str]) -> bool:
    """Whether the first row is of words and all others of numbers."""
    words = not (users[0].isdigit() or items[0].isdigit())
    return words and len(users) > 1 and all(map(str.isdigit, users[1:])) and all(map(str.isdigit, items[1:]))


def _parquet_rows(path: FilePath) -> _Rows:
    import polars

    try:
        header = list(polars.read_parquet_schema(Path(path)))
        taken = [header[column] for column in sequence_columns(header) or []]
        if not taken:
            raise DataError(f"{path}: expected columns such as {_NAMES}. Found {names_shown(header)}.")
        cells = [sound(column).to_list() for column in polars.scan_parquet(Path(path)).select(taken).collect()]
    # PanicException, which polars raises for some damaged files, is no Exception.
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException, OSError) as error:
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise DataError(f"{path}: the Parquet data cannot be read ({reason}).") from error
    return _of_columns(str(path), taken, cells)


def _memory_rows(table: Any) -> _Rows:
    header = [str(name) for name in table.columns]
    taken = _columns("data in memory", header).taken
    cells = [_listed(table[table.columns[column]]) for column in taken]
    return _of_columns("data in memory", [header[column] for column in taken], cells)


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


def _of_columns(name: str, header: list[str], columns: list[list[Any]]) -> _Rows:
    users, items = ([name_of(cell) for cell in column] for column in columns[:2])
    for number, pair in enumerate(zip(users, items, strict=True), 1):
        if None in pair:
            raise DataError(f"{name}, row {number}: expected a user and an item. Found an empty cell.")
    times = [_time(f"{name}, row {number}", cell) for column in columns[2:] for number, cell in enumerate(column, 1)]
    layout = "; ".join(f"{what} from {listed([c])}" for what, c in zip(_ROLES, header, strict=False))
    return _Rows(list(map(str, users)), list(map(str, items)), np.array(times) if columns[2:] else None, layout)
