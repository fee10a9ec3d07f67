"""Which user took which item: files to a users × items matrix, and the pairing of a training with a test file.

The format is told by the content:

* the file starts with the bytes ``PAR1``: Parquet with named columns;
* otherwise the first line that is not blank decides: with a tab it is TSV, else with a comma it is CSV, each of
  (user, item[, rating]) with or without a header (see ``tables``);
* otherwise it is a list for each user, "user item item …" separated by spaces. No line of it may hold a tab or a
  comma, so "7 12 5" always means that user 7 took items 12 and 5, never a rating. A user may have no items, and the
  lines of one user are joined.
"""

from __future__ import annotations

import itertools
import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from widehead.data.files import FilePath, first_bytes, first_filled, open_text, shortened
from widehead.data.sparse import CSR, binary, csr_from_pairs
from widehead.data.tables import Row, parquet_rows, separated_rows
from widehead.data.vocabulary import Vocabulary, name_order
from widehead.errors import DataError

__all__ = ["Interactions", "Pair", "pair", "read_interactions"]

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Interactions:
    """Pairs of users and items.

    Attributes:
        matrix: (users, items) scipy CSR, float32: ratings, or ones; of a repeated pair the last rating stands.
        users: names of the rows.
        items: names of the columns.
        unreachable: (users,) int64, for each user the number of distinct items that have no column.
        unknown_users: users of the file that have no row, and that are therefore left out.
        unknown_items: items of the file that have no column.
    """

    matrix: CSR
    users: list[str]
    items: Vocabulary
    unreachable: np.ndarray
    unknown_users: list[str] = field(default_factory=list)
    unknown_items: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Pair:
    """A training and a test file with the same rows and columns; ``test`` says what the training file lacks.

    Attributes:
        train: as it was.
        test: rows and columns as in ``train``; users without test items have empty rows.
        repeated: number of pairs that are in both.
    """

    train: Interactions
    test: Interactions
    repeated: int

    def __str__(self) -> str:
        train, test = self.train.matrix, self.test.matrix
        return (
            f"{train.shape[0]} users × {train.shape[1]} items; {train.nnz} training and {test.nnz} test pairs. "
            f"In the test file alone: {len(self.test.unknown_users)} users (left out) and "
            f"{len(self.test.unknown_items)} items ({int(self.test.unreachable.sum())} pairs count as missed). "
            f"{self.repeated} pairs are in both files."
        )


def read_interactions(
    path: FilePath, *, items: Vocabulary | None = None, users: Sequence[str] | None = None
) -> Interactions:
    """Read a file of users and items; the format is told by the content, as the module says.

    Args:
        path: the file, plain or compressed by gzip, xz or zstd.
        items: the columns, where they are given. Otherwise by number if all items are numbers, else by frequency.
        users: names of the rows, where they are given. Otherwise in the order of the file.

    Raises:
        DataError: the file cannot be read, or holds no pair; names the line.
    """
    table = _Table()
    if first_bytes(path).startswith(b"PAR1"):
        table.add_rows(path, parquet_rows(path), "row")
    else:
        with open_text(path) as lines:
            table.add_lines(path, lines)
    if not table.user_ids:
        raise DataError(
            f"{path}: expected pairs of users and items, such as 'user item item …', 'user,item' or "
            "'user<tab>item<tab>rating' on each line. Found no item on any line."
        )
    return _aligned(table, items, users)


def pair(train: Interactions, test: Interactions) -> Pair:
    """Give a test file the rows and columns of a training file, matching users and items by name.

    Items that the training file lacks are counted for each user (``test.unreachable``): they are relevant, but no
    model can return them. Users that it lacks are listed in ``test.unknown_users``: nothing is known about them.
    """
    table = _Table(list(test.users), list(test.items))
    coo = test.matrix.tocoo()
    table.user_ids, table.item_ids = array("q", coo.row.astype(np.int64)), array("q", coo.col.astype(np.int64))
    table.ratings = array("d", coo.data.astype(np.float64))
    aligned = _aligned(table, train.items, train.users)
    repeated = binary(train.matrix).multiply(binary(aligned.matrix)).nnz
    return Pair(train, _with_earlier_losses(aligned, test), int(repeated))


def _with_earlier_losses(aligned: Interactions, test: Interactions) -> Interactions:
    """Add what was already missing when ``test`` was read with given rows and columns."""
    rows = Vocabulary(aligned.users).ids(test.users)
    unreachable = aligned.unreachable.copy()
    np.add.at(unreachable, rows[rows >= 0], test.unreachable[rows >= 0])
    return replace(
        aligned,
        unreachable=unreachable,
        unknown_users=[*test.unknown_users, *aligned.unknown_users],
        unknown_items=[*test.unknown_items, *aligned.unknown_items],
    )


class _Table:
    """Pairs of a file as they are read: names in order of appearance, and a user, an item and a rating each."""

    def __init__(self, users: Sequence[str] = (), items: Sequence[str] = ()) -> None:
        self.users = {name: i for i, name in enumerate(users)}
        self.items = {name: i for i, name in enumerate(items)}
        self.user_ids, self.item_ids, self.ratings = array("q"), array("q"), array("d")

    def add_lines(self, path: FilePath, lines: Iterator[str]) -> None:
        skipped, first = first_filled(lines)
        lines = itertools.chain(itertools.repeat("", skipped), [first], lines)
        separator = "\t" if "\t" in first else "," if "," in first else None
        if separator is None:
            self._add_lists(path, lines)
        else:
            self.add_rows(path, separated_rows(path, lines, separator), "line")

    def _add_lists(self, path: FilePath, lines: Iterator[str]) -> None:
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

    def add_rows(self, path: FilePath, rows: Iterator[Row], place: str) -> None:
        users, items = self.users, self.items
        for row in rows:
            self.user_ids.append(users.setdefault(row.user, len(users)))
            self.item_ids.append(items.setdefault(row.item, len(items)))
            if row.rating is not None:
                self.ratings.append(_rating(path, row, place))


def _aligned(table: _Table, items: Vocabulary | None, users: Sequence[str] | None) -> Interactions:
    """The matrix of a table, in the rows and columns given."""
    user_names, item_names = list(table.users), list(table.items)
    user_ids, item_ids = (np.frombuffer(ids, dtype=np.int64) for ids in (table.user_ids, table.item_ids))
    counts = np.bincount(item_ids, minlength=len(item_names))
    columns = Vocabulary(name_order(dict(zip(item_names, counts.tolist(), strict=True)))) if items is None else items
    rows = user_names if users is None else list(users)
    row_of, column_of = Vocabulary(rows).ids(user_names), Vocabulary(columns.names).ids(item_names)
    row, column = row_of[user_ids], column_of[item_ids]
    ratings = np.frombuffer(table.ratings, dtype=np.float64) if table.ratings else np.ones(len(row))
    kept = (row >= 0) & (column >= 0)
    lost = (row >= 0) & (column < 0)
    lost_pairs = np.unique(np.stack([row[lost], item_ids[lost]]), axis=1)[0]
    return Interactions(
        matrix=csr_from_pairs(row[kept], column[kept], ratings[kept], (len(rows), len(columns))),
        users=rows,
        items=columns,
        unreachable=np.bincount(lost_pairs, minlength=len(rows)).astype(np.int64),
        unknown_users=[name for name, r in zip(user_names, row_of, strict=True) if r < 0],
        unknown_items=[name for name, c in zip(item_names, column_of, strict=True) if c < 0],
    )


def _rating(path: FilePath, row: Row, place: str) -> float:
    try:
        value = float(row.rating)
    except (ValueError, OverflowError):
        value = math.nan
    if -_LARGEST <= value <= _LARGEST:
        return value
    raise DataError(
        f"{path}, {place} {row.line}: expected a rating that is a finite number. Found {shortened(row.rating)}."
    )
