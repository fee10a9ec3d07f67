"""Text files of users and items as columns of polars, a block of lines at a time.

Only what has one reading is read here. All else is refused as ``Doubtful``, without a reason: then
``pairs.pairs_by_lines`` reads the file, or says what is wrong with it.
"""

import contextlib
import csv
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from widehead.data.files import FilePath, byte_chunks
from widehead.data.tables import LARGEST, cell_reader, named_columns, unnamed_columns

_LONGEST_CELL = 1 << 16  # bytes; the reader of lines refuses 2¹⁷ characters
_WIDE = "\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_WHITE = "\t\n\v\f\r\x1c\x1d\x1e\x1f " + _WIDE  # what str.strip() takes off and str.split() splits at
_WIDE_WHITE = [character.encode() for character in _WIDE]
_SPACE = 32  # and below it control characters and line ends
_BLANK_LINES = re.compile(rb"(?:[ \r]*\n)*")


class Doubtful(Exception):
    """A file that should be read line by line."""


class Piece(NamedTuple):
    """Some pairs of a file: columns of polars without nulls and (n,) float32 ratings or None.

    Names are strings, or UInt32 if ``str`` gives them back.

    ``counts``, if there are any, say how many of the items each user has; otherwise each user has one.
    """

    users: Any
    items: Any
    ratings: np.ndarray | None = None
    counts: np.ndarray | None = None


def list_pieces(path: FilePath, size: int) -> Iterator[Piece]:
    """'user item item …' lines, about ``size`` bytes at a time. Raises Doubtful."""
    for block in _blocks(path, size):
        text = _unix(block)
        separators = np.frombuffer(text, dtype=np.uint8)
        separators = separators[separators <= _SPACE]
        if _has_wide_white(text) or b"," in text or not bool(((separators == 10) | (separators == 32)).all()):
            raise Doubtful
        # A name for each separator, empty ones too; the separator tells which line the next name is on.
        names = _frame(text.replace(b" ", b"\n"), ",", 1, [0]).to_series()
        line = np.zeros(len(names), dtype=np.int64)
        np.cumsum(separators[: len(names) - 1] == 10, out=line[1:])
        filled = names.is_not_null()
        names, line = names.filter(filled), line[filled.to_numpy()]
        first = np.ones(len(line), dtype=bool)
        first[1:] = line[1:] != line[:-1]
        users = np.flatnonzero(first)
        yield Piece(
            names.gather(users), names.gather(np.flatnonzero(~first)), counts=np.diff(users, append=len(line)) - 1
        )


def table_pieces(path: FilePath, first: str, separator: str, size: int) -> Iterator[Piece]:
    """Rows of CSV or TSV, about ``size`` bytes at a time; ``first`` is the first line that is not blank.

    Raises:
        Doubtful: see the module.
        DataError: the file cannot be read, or may have a header in words that are not known.
    """
    try:
        header = next(cell_reader([first], separator))
    except csv.Error as error:
        raise Doubtful from error
    named = named_columns(header)
    columns = named or unnamed_columns(path, 1, header)
    for number, block in enumerate(_blocks(path, size)):
        rows = _without_start(block, first, named is not None) if number == 0 else block
        if not rows:
            continue
        piece = _table(rows, separator, columns, len(header))
        if number == 0 and named is None:
            _check_first_row(piece)
        yield piece


def _without_start(block: bytes, first: str, header: bool) -> bytes:
    """The first block from the first line on that is no blank one and no header."""
    block = _unix(block)
    blank = _BLANK_LINES.match(block)
    rows = block[blank.end() :] if blank else block
    if not rows.startswith(first.encode()):
        raise Doubtful
    return rows.partition(b"\n")[2] if header else rows


def _check_first_row(piece: Piece) -> None:
    """Refuse what may be a header: a first row of words, then numbers."""
    import polars

    users, items = piece.users.cast(polars.String), piece.items.cast(polars.String)
    pairs = (user.isdigit() and item.isdigit() for user, item in zip(users, items, strict=True))
    if not (users[0].isdigit() or items[0].isdigit()) and all(itertools.islice(pairs, 1, None)):
        raise Doubtful


def _table(block: bytes, separator: str, columns: list[int], width: int) -> Piece:
    """The rows of a block of ``width`` columns."""
    text = _unix(block)
    if b"\0" in text:
        raise Doubtful
    cells = _frame(text, separator, width, columns[:2])
    if _is_untidy(text, separator, cells):
        cells = _tidied(text, separator, _frame(text, separator, width))
    user, item, *rating = (cells[str(column)] for column in columns)
    if user.null_count() or item.null_count():
        raise Doubtful
    return Piece(user, item, _numbers(rating[0]) if rating else None)


def _is_untidy(text: bytes, separator: str, cells: Any) -> bool:
    """Whether cells need more than to be taken as they stand: white space, quotes, empty or missing cells."""
    ends = cells.height - (not text.endswith(b"\n"))
    tabs = cells.height * (cells.width - 1) if separator == "\t" else 0
    quotes = separator == "," and b'"' in text
    nulls = any(column.null_count() for column in cells)
    low = np.count_nonzero(np.frombuffer(text, dtype=np.uint8) <= _SPACE)
    return quotes or nulls or low != ends + tabs or _has_wide_white(text)


def _tidied(text: bytes, separator: str, cells: Any) -> Any:
    """The cells without quotes and white space around them, and without rows of empty cells."""
    import polars

    cell = polars.all()
    if separator == ",":
        # What starts with a quote and is not a whole quoted cell is a part of one.
        cells = cells.select(cell.str.replace('^"([^"]*)"$', "$1"))
        if any(column.str.starts_with('"').any() for column in cells):
            raise Doubtful
    cells = cells.select(cell.str.strip_chars(_WHITE))
    cells = cells.select(polars.when(cell.str.len_bytes() > 0).then(cell))
    cells = cells.filter(polars.any_horizontal(cell.is_not_null()))
    # polars refuses rows of too many cells, but fills up those of too few.
    if text.count(separator.encode()) != cells.height * (cells.width - 1):
        raise Doubtful
    return cells


def _numbers(column: Any) -> np.ndarray:
    """(n,) float32 of strings. Raises Doubtful if one is no finite number."""
    import polars

    numbers = column.cast(polars.Float64, strict=False)
    if not numbers.is_between(-LARGEST, LARGEST).fill_null(False).all():
        raise Doubtful
    return np.asarray(numbers.to_numpy(), dtype=np.float32)


def _frame(text: bytes, separator: str, width: int, numbers: Sequence[int] = ()) -> Any:
    """The cells of a text as strings, quotes as they stand; empty and missing ones are null.

    The columns ``numbers`` become UInt32 if ``str`` gives back all their cells, which takes half the time.
    """
    import polars

    schema = {str(column): polars.String for column in range(width)}
    first = text.partition(b"\n")[0].split(separator.encode())
    if numbers and len(first) == width and all(first[column].isdigit() for column in numbers):
        with contextlib.suppress(Doubtful):
            cells = _read(text, separator, schema | {str(column): polars.UInt32 for column in numbers})
            if _length(cells) == len(text.removesuffix(b"\n")):
                return cells
    return _read(text, separator, schema)


def _read(text: bytes, separator: str, schema: dict[str, Any]) -> Any:
    import polars

    try:
        cells = polars.read_csv(text, has_header=False, separator=separator, quote_char=None, schema=schema)
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException) as error:
        raise Doubtful from error
    if any((column > _LONGEST_CELL).any() for column in cells.select(polars.col(polars.String).str.len_bytes())):
        raise Doubtful
    return cells


def _length(cells: Any) -> int:
    """Bytes of rows and their separators if numbers have neither signs nor zeros before them; -1 if a cell is null."""
    length = cells.height * cells.width - 1
    for column in cells:
        if column.null_count():
            return -1
        if column.dtype.is_integer():
            values = column.to_numpy()
            length += len(values) + sum(
                int(np.count_nonzero(values >= 10**k)) for k in range(1, len(str(values.max())))
            )
        else:
            length += column.str.len_bytes().sum()
    return length


def _blocks(path: FilePath, size: int) -> Iterator[bytes]:
    """The file in blocks of at least ``size`` bytes that end where a line does, without a byte-order mark."""
    kept: list[bytes | memoryview] = []
    held, first = 0, True
    for chunk in byte_chunks(path):
        held += len(chunk)
        end = chunk.rfind(b"\n") + 1 if held >= size else 0
        if end:
            yield _checked(b"".join([*kept, memoryview(chunk)[:end]]), first)
            kept, held, first = [chunk[end:]], len(chunk) - end, False
        elif held > 2 * size:
            raise Doubtful
        else:
            kept.append(chunk)
    if any(kept):
        yield _checked(b"".join(kept), first)


def _checked(block: bytes, first: bool) -> bytes:
    """The block without a byte-order mark. Raises Doubtful if it is not UTF-8."""
    if not block.isascii():
        try:
            block.decode()
        except UnicodeDecodeError as error:
            raise Doubtful from error
    return block.removeprefix(b"\xef\xbb\xbf") if first else block


def _unix(text: bytes) -> bytes:
    """The text without the carriage returns of line ends. Raises Doubtful if there are others."""
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n")
        if b"\r" in text:
            raise Doubtful
    return text


def _has_wide_white(text: bytes) -> bool:
    return not text.isascii() and any(white in text for white in _WIDE_WHITE)
