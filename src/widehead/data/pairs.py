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
from widehead.split import Share


@dataclass
class Pairs:
    """Pairs of users and items in the order of the file.

    Attributes:
        users, items: distinct names in order of appearance.
        user_ids, item_ids: (n,) int64 positions in ``users`` and ``items``.
        ratings: (n,) float32, or None if the file has none.
        item_counts: how many pairs of the file each item has, if only those of a share of the users are here.
    """

    users: list[str]
    items: list[str]
    user_ids: np.ndarray
    item_ids: np.ndarray
    ratings: np.ndarray | None = None
    item_counts: np.ndarray | None = None

    def counts_of_items(self) -> np.ndarray:
        """(items,) pairs of each in the file."""
        if self.item_counts is not None:
            return self.item_counts
        return np.bincount(self.item_ids, minlength=len(self.items))


def read_pairs(path: FilePath, block: int = 1 << 22, share: Share | None = None) -> Pairs:
    """The pairs of a file, whose format its content tells (see ``interactions``).

    Args:
        path: the file.
        block: bytes of text that polars gets at a time.
        share: of the users, by their numbers; pairs of others are left out while the file is read. None for all.

    Raises:
        DataError: the file cannot be read; names the line.
    """
    if first_bytes(path).startswith(b"PAR1"):
        return _by_pieces(parquet_pieces(path), share)
    with open_text(path) as lines:
        _, first = first_filled(lines)
    separator = separator_of(first)
    try:
        return _by_pieces(
            list_pieces(path, block) if separator is None else table_pieces(path, first, separator, block), share
        )
    except (Doubtful, DataError):
        return pairs_by_lines(path, share)


def pairs_of_piece(piece: Piece) -> Pairs:
    """The pairs of one piece, in its order; without threads, as it may be one line that a server is asked about."""
    users, items = Codes(), Codes()
    ratings = np.empty(0, dtype=np.int64) if piece.ratings is None else piece.ratings
    columns = _user_ids(users, piece), items.add(piece.items), ratings
    return _pairs(users.names(), items.names(), columns)


def pairs_by_lines(path: FilePath, share: Share | None = None) -> Pairs:
    """What ``read_pairs`` gives for text, line by line. Raises DataError, with the line."""
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    user_ids, item_ids, ratings, counts = array("q"), array("q"), array("f"), array("q")
    with open_text(path) as lines:
        skipped, first = first_filled(lines)
        lines = itertools.chain(itertools.repeat("", skipped), [first], lines)
        separator = separator_of(first)
        rows = _list_rows(path, lines) if separator is None else separated_rows(path, lines, separator)
        for user, taken, rating in rows:
            row = users.setdefault(user, len(users))
            numbers = [items.setdefault(item, len(items)) for item in taken]
            if share is not None:
                counts.extend([0] * (len(items) - len(counts)))
                for number in numbers:
                    counts[number] += 1
                if not share.holds(row):
                    continue
            user_ids.extend([row] * len(numbers))
            item_ids.extend(numbers)
            if rating is not None:
                ratings.append(rating)
    known = None if share is None else np.asarray(counts)
    return _pairs(list(users), list(items), map(np.asarray, (user_ids, item_ids, ratings)), known)


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


def _by_pieces(pieces: Iterable[Piece], share: Share | None = None) -> Pairs:
    users, items, kept = Codes(), Codes(), _Kept(share)
    with ThreadPoolExecutor(2) as pool:  # the codes of a piece are found while polars reads the next one
        waiting: list[Future[np.ndarray]] = []
        before: Piece | None = None
        for piece in itertools.chain(pieces, [None]):
            if before is not None:
                user_ids, item_ids = (found.result() for found in waiting)
                kept.add(user_ids, item_ids, before.ratings)
            if piece is not None:
                waiting = [pool.submit(_user_ids, users, piece), pool.submit(items.add, piece.items)]
            before = piece
    columns = map(_joined, (kept.user_ids, kept.item_ids, kept.ratings))
    return _pairs(users.names(), items.names(), columns, kept.counts(items.size))


class _Kept:
    """The pairs that are kept of the pieces of a file, all of them or those of a share of the users."""

    def __init__(self, share: Share | None) -> None:
        self.share, self._counts = share, np.zeros(0, dtype=np.int64)
        self.user_ids: list[np.ndarray] = []
        self.item_ids: list[np.ndarray] = []
        self.ratings: list[np.ndarray] = []

    def add(self, users: np.ndarray, items: np.ndarray, ratings: np.ndarray | None) -> None:
        if self.share is not None:
            more = np.bincount(items, minlength=len(self._counts))
            more[: len(self._counts)] += self._counts
            self._counts, held = more, self.share.holds(users)
            users, items, ratings = users[held], items[held], None if ratings is None else ratings[held]
        self.user_ids.append(users)
        self.item_ids.append(items)
        if ratings is not None:
            self.ratings.append(ratings)

    def counts(self, num_items: int) -> np.ndarray | None:
        """(items,) pairs of each in the file, if not all are kept."""
        return None if self.share is None else np.pad(self._counts, (0, num_items - len(self._counts)))


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """One array of all parts, which are given up: their memory is needed for the next one."""
    whole = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
    parts.clear()
    return whole


def _user_ids(users: Codes, piece: Piece) -> np.ndarray:
    ids = users.add(piece.users)
    return ids if piece.counts is None else np.repeat(ids, piece.counts)


def _pairs(
    users: list[str], items: list[str], columns: Iterable[np.ndarray], item_counts: np.ndarray | None = None
) -> Pairs:
    user_ids, item_ids, ratings = columns
    return Pairs(users, items, user_ids, item_ids, ratings if len(ratings) else None, item_counts)
