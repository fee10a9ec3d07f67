"""Users and items of a file as numbers: by polars, a piece of the file at a time, or line by line.

The second way is slower by far, understands all that the first one does not, and says what is wrong with a file. If
both read a file, they give the same.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from widehead.data.codes import Codes
from widehead.data.files import FilePath, first_bytes, first_filled, open_text
from widehead.data.parquet import parquet_pieces
from widehead.data.pieces import Doubtful, Piece, list_pieces, table_pieces
from widehead.data.tables import Row, separated_rows
from widehead.errors import DataError


@dataclass
class Pairs:
    """Pairs of users and items in the order of the file.

    Attributes:
        users, items: distinct names in order of appearance.
        user_ids, item_ids: (n,) int64 positions in ``users`` and ``items``.
        ratings: (n,) float32, or None if the file has none.
    """

    users: list[str]
    items: list[str]
    user_ids: np.ndarray
    item_ids: np.ndarray
    ratings: np.ndarray | None = None


def read_pairs(path: FilePath, block: int = 1 << 22) -> Pairs:
    """The pairs of a file, whose format its content tells (see ``interactions``).

    Args:
        path: the file.
        block: bytes of text that polars gets at a time.

    Raises:
        DataError: the file cannot be read; names the line.
    """
    if first_bytes(path).startswith(b"PAR1"):
        return _by_pieces(parquet_pieces(path))
    with open_text(path) as lines:
        _, first = first_filled(lines)
    separator = separator_of(first)
    try:
        return _by_pieces(
            list_pieces(path, block) if separator is None else table_pieces(path, first, separator, block)
        )
    except (Doubtful, DataError):
        return pairs_by_lines(path)


def pairs_of_piece(piece: Piece) -> Pairs:
    """The pairs of one piece, in its order; without threads, as it may be one line that a server is asked about."""
    users, items = Codes(), Codes()
    ratings = np.empty(0, dtype=np.int64) if piece.ratings is None else piece.ratings
    columns = _user_ids(users, piece), items.add(piece.items), ratings
    return _pairs(users.names(), items.names(), columns)


def pairs_by_lines(path: FilePath) -> Pairs:
    """What ``read_pairs`` gives for text, line by line. Raises DataError, with the line."""
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    user_ids, item_ids, ratings = array("q"), array("q"), array("f")
    with open_text(path) as lines:
        skipped, first = first_filled(lines)
        lines = itertools.chain(itertools.repeat("", skipped), [first], lines)
        separator = separator_of(first)
        rows = _list_rows(path, lines) if separator is None else separated_rows(path, lines, separator)
        for user, taken, rating in rows:
            row = users.setdefault(user, len(users))
            for item in taken:
                user_ids.append(row)
                item_ids.append(items.setdefault(item, len(items)))
            if rating is not None:
                ratings.append(rating)
    return _pairs(list(users), list(items), map(np.asarray, (user_ids, item_ids, ratings)))


def _list_rows(path: FilePath, lines: Iterator[str]) -> Iterator[Row]:
    for names in list_lines(path, lines, "user item item …"):
        if names:
            yield Row(names[0], names[1:])


def list_lines(path: FilePath, lines: Iterable[str], what: str) -> Iterator[list[str]]:
    """The names on each line, as the first line has them; DataError at one that is of a table."""
    for number, line in enumerate(lines, 1):
        if separator := separator_of(line):
            found = "tab" if separator == "\t" else "comma"
            raise DataError(
                f"{path}, line {number}: expected '{what}' separated by spaces, as on the first line. Found a {found}."
            )
        yield line.split()


def separator_of(line: str) -> str | None:
    """What separates the cells of a line, as of a file that begins with it; None in lists."""
    return "\t" if "\t" in line else "," if "," in line else None


def _by_pieces(pieces: Iterable[Piece]) -> Pairs:
    users, items = Codes(), Codes()
    user_ids: list[np.ndarray] = []
    item_ids: list[np.ndarray] = []
    ratings: list[np.ndarray] = []
    with ThreadPoolExecutor(2) as pool:  # the codes of a piece are found while polars reads the next one
        waiting: list[tuple[list[np.ndarray], Future[np.ndarray]]] = []
        for piece in itertools.chain(pieces, [None]):
            for ids, found in waiting:
                ids.append(found.result())
            if piece is not None:
                waiting = [
                    (user_ids, pool.submit(_user_ids, users, piece)),
                    (item_ids, pool.submit(items.add, piece.items)),
                ]
                if piece.ratings is not None:
                    ratings.append(piece.ratings)
    return _pairs(users.names(), items.names(), map(_joined, (user_ids, item_ids, ratings)))


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """One array of all parts, which are given up: their memory is needed for the next one."""
    whole = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
    parts.clear()
    return whole


def _user_ids(users: Codes, piece: Piece) -> np.ndarray:
    ids = users.add(piece.users)
    return ids if piece.counts is None else np.repeat(ids, piece.counts)


def _pairs(users: list[str], items: list[str], columns: Iterable[np.ndarray]) -> Pairs:
    user_ids, item_ids, ratings = columns
    return Pairs(users, items, user_ids, item_ids, ratings if len(ratings) else None)
