"""Users and items of a file as numbers: by polars, a piece of the file at a time, or line by line.

The second way is slower by far, understands all that the first one does not, and says what is wrong with a file. If
both read a file, they give the same.
"""

from __future__ import annotations

import itertools
import math
from array import array
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from widehead.data.codes import Codes
from widehead.data.files import FilePath, first_bytes, first_filled, open_text, shortened
from widehead.data.parquet import parquet_pieces
from widehead.data.pieces import LARGEST, Doubtful, Piece, list_pieces, table_pieces
from widehead.data.tables import Row, separated_rows
from widehead.errors import DataError

__all__ = ["Pairs", "pairs_by_lines", "read_pairs"]


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
    separator = _separator(first)
    try:
        return _by_pieces(
            list_pieces(path, block) if separator is None else table_pieces(path, first, separator, block)
        )
    except (Doubtful, DataError):
        return pairs_by_lines(path)


def pairs_by_lines(path: FilePath) -> Pairs:
    """What ``read_pairs`` gives for text, line by line. Raises DataError, with the line."""
    table = _Table()
    with open_text(path) as lines:
        skipped, first = first_filled(lines)
        lines = itertools.chain(itertools.repeat("", skipped), [first], lines)
        separator = _separator(first)
        if separator is None:
            table.add_lists(path, lines)
        else:
            table.add_rows(path, separated_rows(path, lines, separator))
    return table.pairs()


def _separator(first: str) -> str | None:
    """What separates the cells of a file with this first line; None in lists."""
    return "\t" if "\t" in first else "," if "," in first else None


def _by_pieces(pieces: Iterable[Piece]) -> Pairs:
    users, items = Codes(), Codes()
    # Each is one block of memory that grows in place: many small ones would stay with the allocator.
    user_ids, item_ids, ratings = array("q"), array("q"), array("f")
    with ThreadPoolExecutor(2) as pool:  # the codes of a piece are found while polars reads the next one
        waiting: list[tuple[array[int], Future[np.ndarray]]] = []
        for piece in itertools.chain(pieces, [None]):
            for ids, found in waiting:
                ids.frombytes(found.result().data.cast("B"))
            if piece is not None:
                waiting = [
                    (user_ids, pool.submit(_user_ids, users, piece)),
                    (item_ids, pool.submit(items.add, piece.items)),
                ]
                if piece.ratings is not None:
                    ratings.frombytes(piece.ratings.data.cast("B"))
    return _pairs(users.names(), items.names(), user_ids, item_ids, ratings)


def _user_ids(users: Codes, piece: Piece) -> np.ndarray:
    ids = users.add(piece.users)
    return ids if piece.counts is None else np.repeat(ids, piece.counts)


def _pairs(
    users: list[str], items: list[str], user_ids: array[int], item_ids: array[int], ratings: array[float]
) -> Pairs:
    numbers = [np.frombuffer(ids, dtype=np.int64) for ids in (user_ids, item_ids)]
    rated = np.frombuffer(ratings, dtype=np.float32) if ratings else None
    return Pairs(users, items, numbers[0], numbers[1], rated)


class _Table:
    """Pairs as they are read line by line."""

    def __init__(self) -> None:
        self.users: dict[str, int] = {}
        self.items: dict[str, int] = {}
        self.user_ids, self.item_ids, self.ratings = array("q"), array("q"), array("f")

    def add_lists(self, path: FilePath, lines: Iterator[str]) -> None:
        users, items = self.users, self.items
        for number, line in enumerate(lines, 1):
            if "\t" in line or "," in line:
                found = "tab" if "\t" in line else "comma"
                raise DataError(
                    f"{path}, line {number}: expected 'user item item …' separated by spaces, as on the first line. "
                    f"Found a {found}."
                )
            user, *taken = line.split() or [""]
            if user:
                row = users.setdefault(user, len(users))
                self.user_ids.extend([row] * len(taken))
                self.item_ids.extend([items.setdefault(item, len(items)) for item in taken])

    def add_rows(self, path: FilePath, rows: Iterator[Row]) -> None:
        users, items = self.users, self.items
        for row in rows:
            self.user_ids.append(users.setdefault(row.user, len(users)))
            self.item_ids.append(items.setdefault(row.item, len(items)))
            if row.rating is not None:
                self.ratings.append(_rating(path, row.line, row.rating))

    def pairs(self) -> Pairs:
        return _pairs(list(self.users), list(self.items), self.user_ids, self.item_ids, self.ratings)


def _rating(path: FilePath, line: int, rating: str) -> float:
    try:
        value = float(rating)
    except ValueError:
        value = math.nan
    if -LARGEST <= value <= LARGEST:
        return value
    raise DataError(f"{path}, line {line}: expected a rating that is a finite number. Found {shortened(rating)}.")
