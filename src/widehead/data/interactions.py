"""Which user took which item: files to a users × items matrix, and the pairing of a training with a test file.

The format is told by the content:

* the file starts with the bytes ``PAR1``: Parquet with named columns;
* otherwise the first line that is not blank decides: with a tab it is TSV, else with a comma it is CSV, each of
  (user, item[, rating]) with or without a header (see ``tables``);
* otherwise it is a list for each user, "user item item …" separated by spaces. No line of it may hold a tab or a
  comma, so "7 12 5" always means that user 7 took items 12 and 5, never a rating. A user may have no items, and the
  lines of one user are joined.

Files with other separators and of other programs are refused (see ``foreign``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from widehead.data.files import FilePath, is_file, listed
from widehead.data.layout import Layout, look
from widehead.data.memory import csr_of, is_matrix, pairs_of, row_names
from widehead.data.pairs import Pairs, read_pairs
from widehead.data.sparse import CSR, binary, csr_from_pairs
from widehead.data.vocabulary import Vocabulary, name_order
from widehead.errors import DataError
from widehead.split import Share


@dataclass(frozen=True)
class Interactions:
    """Pairs of users and items.

    Attributes:
        matrix: (users, items) scipy CSR, float32: ratings, or ones; of a repeated pair the last rating stands. In
            several processes it may have the users of a share alone, and so has ``unreachable``.
        users: names of the rows, those of other shares among them.
        items: names of the columns.
        unreachable: (users,) int64, for each user the number of distinct items that have no column.
        unknown_users: users of the file that have no row, and that are therefore left out.
        unknown_items: items of the file that have no column.
        repeats: how many pairs of the file were there before.
        has_ratings: whether the file has a column of ratings.
        layout: how the file is laid out.
    """

    matrix: CSR
    users: list[str]
    items: Vocabulary
    unreachable: np.ndarray
    unknown_users: list[str] = field(default_factory=list)
    unknown_items: list[str] = field(default_factory=list)
    repeats: int = 0
    has_ratings: bool = False
    layout: Layout | None = None

    def __str__(self) -> str:
        values = self.matrix.data
        return self.told(len(values), self.repeats, (values.min(), values.max()) if len(values) else None)

    def told(self, pairs: int, repeats: int, ratings: tuple[float, float] | None) -> str:
        """What was read, with so many pairs, repeats and ratings from one to another, in shares of all processes."""
        left_out = f" ({repeats:,} repeats left out)" if repeats else ""
        rated = f"ratings {ratings[0]:g} to {ratings[1]:g}" if self.has_ratings and ratings else "no ratings"
        return (
            f"{len(self.users):,} users × {len(self.items):,} items, {pairs:,} pairs{left_out}, {rated}; "
            f"first users {listed(self.users)}; first items {listed(self.items)}"
            + (f"; {self.layout}" if self.layout else "")
        )

    def of_share(self, share: Share) -> Interactions:
        """With the rows alone that are of a share of the users."""
        return replace(self, matrix=self.matrix[share.own], unreachable=self.unreachable[share.own])


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

    @property
    def new(self) -> CSR:
        """(users, items) ones: the test pairs that are not in the training file, too."""
        known = binary(self.test.matrix)
        new = known - known.multiply(binary(self.train.matrix))
        new.eliminate_zeros()
        return new

    @property
    def fits(self) -> bool:
        """Whether every test pair is one of a known user and a known item, once, and is new."""
        test = self.test
        return not (self.repeated or test.repeats or test.unknown_users or test.unknown_items)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Training pairs, test pairs, and those of items that have no column."""
        return self.train.matrix.nnz, self.test.matrix.nnz, int(self.test.unreachable.sum())

    def __str__(self) -> str:
        return self.told(*self.sizes)

    def told(self, pairs: int, tests: int, missed: int) -> str:
        """What the files are to one another, with such ``sizes`` in shares of all processes; ``repeated`` is of all."""
        test = self.test
        line = f"{len(test.users):,} users × {len(test.items):,} items; {pairs:,} training and {tests:,} test pairs."
        if self.fits:
            return line
        return (
            f"{line} In the test file alone: {len(test.unknown_users):,} users (left out) and "
            f"{len(test.unknown_items):,} items ({missed:,} pairs count as missed). "
            f"{self.repeated:,} pairs are in both files (left out). {test.repeats:,} test pairs are repeats."
        )


def read_interactions(
    data: Any, *, items: Vocabulary | None = None, users: Sequence[str] | None = None, share: Share | None = None
) -> Interactions:
    """Users and items of a file, whose format is told by the content, as the module says; or of data in memory.

    Args:
        data: the file, plain or compressed by gzip, xz or zstd; what `widehead.data.memory` takes; or what was read
            before. The columns of a matrix are ``items`` in their order, its rows, as lists, ``users``; if these are
            not given, both are numbers.
        items: the columns, if they are given; otherwise by number if all items are numbers, else by frequency.
        users: names of the rows, if they are given; otherwise in the order of the data.
        share: of the users, of which alone pairs are kept; then no ``users`` are given. None for all.

    Raises:
        DataError: the file cannot be read, or holds no pair; names the line. Data in memory are something else.
    """
    assert share is None or users is None
    if is_file(data):
        return _of_file(data, items, users, share)
    if isinstance(data, Interactions):
        found = data
    elif is_matrix(data):
        found = _of_matrix(data, items, users)
    else:
        found = aligned(pairs_of(data, users), items, users)
    if share is None:
        return found
    return replace(found.of_share(share), repeats=found.repeats if share.rank == 0 else 0)  # they are added up


def _of_matrix(data: Any, items: Vocabulary | None, users: Sequence[str] | None) -> Interactions:
    matrix = csr_of(data, None if items is None else len(items), "items")
    if users is not None and len(users) != matrix.shape[0]:
        raise DataError(f"Expected {len(users):,} users. Found a matrix with {matrix.shape[0]:,} rows.")
    names = row_names(matrix.shape[0]) if users is None else list(users)
    columns = Vocabulary(row_names(matrix.shape[1])) if items is None else items
    unreachable = np.zeros(len(names), dtype=np.int64)
    return Interactions(matrix, names, columns, unreachable, has_ratings=bool((matrix.data != 1).any()))


def _of_file(
    path: FilePath, items: Vocabulary | None, users: Sequence[str] | None, share: Share | None
) -> Interactions:
    layout = look(path)
    pairs = read_pairs(path, share=share)
    if not pairs.items:
        raise DataError(
            f"{path}: expected pairs of users and items, such as 'user item item …', 'user,item' or "
            "'user<tab>item<tab>rating' on each line. Found no item on any line."
        )
    return replace(aligned(pairs, items, users, share), layout=layout)


def pair(train: Interactions, test: Interactions, share: Share | None = None) -> Pair:
    """Give a test file the rows and columns of a training file, matching users and items by name.

    Items that the training file lacks are counted for each user (``test.unreachable``): they are relevant, but no
    model can return them. Users that it lacks are listed in ``test.unknown_users``: nothing is known about them.

    Args:
        share: of the users, of which alone ``train`` has rows, and the pair has then; None for all.
    """
    coo = test.matrix.tocoo()
    ids = (coo.row.astype(np.int64), coo.col.astype(np.int64))
    found = aligned(Pairs(test.users, test.items.names, *ids, coo.data), train.items, train.users)
    # Something may have been missing already when ``test`` was read with given rows and columns.
    rows = Vocabulary(found.users).ids(test.users)
    np.add.at(found.unreachable, rows[rows >= 0], test.unreachable[rows >= 0])
    found.unknown_users[:0], found.unknown_items[:0] = test.unknown_users, test.unknown_items
    found = replace(found, repeats=test.repeats, has_ratings=test.has_ratings, layout=test.layout)
    if share is not None:
        found = found.of_share(share)
    return Pair(train, found, int(binary(train.matrix).multiply(binary(found.matrix)).nnz))


def aligned(
    pairs: Pairs, items: Vocabulary | None = None, users: Sequence[str] | None = None, share: Share | None = None
) -> Interactions:
    """The matrix of the pairs, in the rows and columns given. The arrays of ``pairs`` are used up.

    Args:
        share: of the users, of which the pairs are; then no ``users`` are given. None for all.
    """
    rows = pairs.users if users is None else list(users)
    # Names that stand for unknown ones count as unknown here. To make a vocabulary takes a second for 10^6 names.
    known = items if items is None or items.unknown is None else Vocabulary(items.names)
    columns, column_of = _columns(pairs) if items is None or known is None else (items, known.ids(pairs.items))
    here = len(rows)
    if share is not None:
        here, pairs.user_ids = share.count(len(rows)), pairs.user_ids // share.size
    row_of = np.arange(here) if users is None else Vocabulary(rows).ids(pairs.users)
    unknown_users, unknown_items = np.flatnonzero(row_of < 0), np.flatnonzero(column_of < 0)
    unreachable = np.zeros(here, dtype=np.int64)
    if len(unknown_users) or len(unknown_items):
        unreachable = _leave_out(pairs, row_of, column_of, here)
    # One after the other, as each array may be gigabytes.
    if users is not None:
        pairs.user_ids = row_of[pairs.user_ids]
    pairs.item_ids = column_of[pairs.item_ids]
    matrix = csr_from_pairs(pairs.user_ids, pairs.item_ids, pairs.ratings, (here, len(columns)))
    return Interactions(
        matrix=matrix,
        users=rows,
        items=columns,
        unreachable=unreachable,
        unknown_users=[pairs.users[i] for i in unknown_users],
        unknown_items=[pairs.items[i] for i in unknown_items],
        repeats=len(pairs.user_ids) - matrix.nnz,
        has_ratings=pairs.ratings is not None,
    )


def _leave_out(pairs: Pairs, row_of: np.ndarray, column_of: np.ndarray, num_rows: int) -> np.ndarray:
    """Take pairs without a row or a column off ``pairs``; returns (rows,) distinct items without one of each row."""
    row, known = row_of[pairs.user_ids], column_of[pairs.item_ids] >= 0
    lost = (row >= 0) & ~known
    lost_pairs = np.unique(np.stack([row[lost], pairs.item_ids[lost]]), axis=1)[0]
    kept = (row >= 0) & known
    pairs.user_ids, pairs.item_ids = pairs.user_ids[kept], pairs.item_ids[kept]
    pairs.ratings = None if pairs.ratings is None else pairs.ratings[kept]
    return np.bincount(lost_pairs, minlength=num_rows)


def _columns(pairs: Pairs) -> tuple[Vocabulary, np.ndarray]:
    """The items in the order of ``name_order``, and the column of each item of the pairs."""
    order = name_order(pairs.items, pairs.counts_of_items())
    column_of = np.empty(len(order), dtype=np.int64)
    column_of[order] = np.arange(len(order))
    return Vocabulary(map(pairs.items.__getitem__, order)), column_of
