"""What the columns of a file of users and items are, as messages say it."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from widehead.data.files import FilePath, first_bytes, first_lines, listed
from widehead.data.foreign import NumberedLines, refuse_foreign, refuse_separators
from widehead.data.pairs import separator_of
from widehead.data.tables import cell_reader, named_columns
from widehead.errors import DataError

_EXPECTED = "'user item item …' lines, or a table of users and items with commas or tabs"


@dataclass(frozen=True)
class Layout:
    """How a file of users and items is laid out.

    Attributes:
        header: names of all columns, if the file has a header.
        first: the cells of the first row of a table without one. Lists have neither.
        user: whose the first list is.
        line: of the first row or list.
        doubt: what speaks against a list, or "".
    """

    header: Sequence[str] = ()
    first: Sequence[str] = ()
    user: str = ""
    line: int = 0
    doubt: str = ""

    @property
    def columns(self) -> str:
        """What there is, as refusals name it."""
        if self.header:
            return ", ".join(name if name.isprintable() else repr(name) for name in self.header)[:200]
        return f"{len(self.first)} columns without a header" if self.first else "lists of items, which have none"

    def __str__(self) -> str:
        if self.header:
            columns = named_columns(self.header) or []
            taken = zip(("users", "items", "ratings"), columns, strict=False)
            return "; ".join(f"{what} from {listed([self.header[column]])}" for what, column in taken)
        if self.first:
            return f"no header, so line {self.line} was read as a pair: {listed(self.first)}"
        return f"lists, that of line {self.line} for the user {listed([self.user])}{self.doubt}"


def look(path: FilePath) -> Layout:
    """The layout of a file by its first lines.

    Raises:
        DataError: it cannot be read, or is of a format that would be misread.
    """
    if first_bytes(path).startswith(b"PAR1"):
        return Layout(header=_parquet_names(path))
    lines = first_lines(path)
    if not lines:
        return Layout()
    refuse_foreign(path, lines, _EXPECTED)
    separator = separator_of(lines[0][1])
    return _lists(path, lines) if separator is None else _table(path, lines, separator)


def _lists(path: FilePath, lines: NumberedLines) -> Layout:
    number = lines[0][0]
    rows = [line.split() for _, line in lines]
    if named_columns(rows[0]):
        raise DataError(f"{path}, line {number}: expected {_EXPECTED}. Found a header with spaces; put tabs there.")
    refuse_separators(path, lines, table=False)
    return Layout(user=rows[0][0], line=number, doubt=_doubt(rows))


def _table(path: FilePath, lines: NumberedLines, separator: str) -> Layout:
    first = _cells(lines, separator)
    if named_columns(first):
        return Layout(header=first)
    refuse_separators(path, lines, table=True)
    return Layout(first=first, line=lines[0][0])


def _parquet_names(path: FilePath) -> list[str]:
    """Names of the columns; none if the file is damaged, which its reader says."""
    import polars

    try:
        return list(polars.read_parquet_schema(Path(path)))
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException, OSError):
        return []


def _cells(lines: NumberedLines, separator: str) -> list[str]:
    """The cells of the first row that has some; none if it cannot be read, which the reader of tables says."""
    try:
        rows = cell_reader((line for _, line in lines), separator)
        return next((cells for cells in rows if "".join(cells).strip()), [])
    except csv.Error:
        return []


def _doubt(rows: Sequence[Sequence[str]]) -> str:
    """Lists rarely have one length, a user rarely more than one; rows of a table often do."""
    length = len(rows[0])
    users = {row[0] for row in rows}
    if length not in (3, 4) or len(users) > len(rows) / 2 or any(len(row) != length for row in rows):
        return ""
    return f" (all of {length} fields: if the third is a rating, put tabs or commas between them)"
