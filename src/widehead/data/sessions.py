"""Sequences of items: the clicks of a session, the history of a user.

The format is told by the content:

* the file starts with the bytes ``PAR1``: Parquet with named columns;
* otherwise the first line that is not blank decides: with a tab it is TSV, else with a comma it is CSV, each of
  (user or session, item[, time]) with or without a header. The items of one user are a sequence, in the order of the
  times or, without times, of the file. Times are numbers or dates as ISO 8601 has them;
* otherwise each line is a sequence, "item item item …" separated by spaces; blank lines are sequences without items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from widehead.data.files import FilePath, first_bytes, first_lines, is_file, listed, open_text
from widehead.data.foreign import refuse_foreign, refuse_separators
from widehead.data.memory import is_matrix, is_table, lists_of, name_of, row_names
from widehead.data.pairs import list_lines, separator_of
from widehead.data.sequence_parts import Lists, Table
from widehead.data.session_tables import memory_rows, parquet_rows, text_rows
from widehead.data.vocabulary import Vocabulary
from widehead.errors import DataError
from widehead.split import Share

_EXPECTED = "'item item item …' lines, or a table of users (or sessions), items and times with commas or tabs"


@dataclass(frozen=True)
class Sequences:
    """Sequences of items: all that were read, or those of a share, which `ids` and `offsets` are of then.

    Attributes:
        ids: (n,) int64 items of the sequences here, one after the other; −1 for those that ``items`` lacks.
        offsets: (k + 1,) int64 where those here begin.
        items: what the ids mean.
        names: of the sequences: users, numbers of lists in memory, lines as they stand. None if nobody asked.
        order: (m,) int64 all sequences by the times of their last items; as they come, if there are no times.
        layout: how they were laid out, as a sentence ends.
        lengths: (m,) int64 items of all sequences.
        first: ids of the first items of all.
        share: of the sequences; None if all are here.
    """

    ids: np.ndarray
    offsets: np.ndarray
    items: Vocabulary
    names: Sequence[str] | None
    order: np.ndarray
    layout: str
    lengths: np.ndarray
    first: np.ndarray
    share: Share | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    def __str__(self) -> str:
        first = listed(self.items[i] if i >= 0 else "(unknown)" for i in self.first.tolist())
        return (
            f"{int((self.lengths > 0).sum()):,} sequences of {len(self.items):,} items, {int(self.lengths.sum()):,} in "
            f"all, {int(self.lengths.max(initial=0)):,} in the longest; first items {first}; {self.layout}"
        )

    def places(self, rows: np.ndarray) -> np.ndarray:
        """Where those of the sequences ``rows`` that are here stand among them, in the order given."""
        return rows if self.share is None else rows[self.share.holds(rows)] // self.share.size


def read_sequences(data: Any, items: Vocabulary | None = None, share: Share | None = None) -> Sequences:
    """Sequences of a file, whose format is told by the content, as the module says; or of data in memory.

    Args:
        data: the file, plain or compressed by gzip, xz or zstd; lists of items, one for each sequence; or a table of
            pandas or polars with such columns.
        items: what is known; sequences are given names then. None: all that the data hold, by number if all are
            numbers, else by frequency.
        share: of the sequences, by their numbers: items of others are left out while they are read, and nothing is
            given names. None for all.

    Raises:
        DataError: the file cannot be read, names the line; or data in memory are something else.
    """
    if is_table(data):
        return _of_table(lambda table: memory_rows(data, table), items, share, "data in memory")
    if not is_file(data):
        return _of_lists(_memory_lists(data), items, share, "lists in memory", row_names)
    if first_bytes(data).startswith(b"PAR1"):
        return _of_table(lambda table: parquet_rows(data, table), items, share, str(data))
    lines = first_lines(data)
    refuse_foreign(data, lines, _EXPECTED)
    separator = separator_of(lines[0][1]) if lines else None
    if separator is not None or (lines and all(len(line.split()) == 1 for _, line in lines)):
        refuse_separators(data, lines, table=separator is not None)
    if separator is not None:
        return _of_table(lambda table: text_rows(data, separator, table), items, share, str(data))
    return _of_lists(_file_lists(data), items, share, "a sequence on each line", None)


def _of_lists(
    lists: Iterator[list[str]],
    items: Vocabulary | None,
    share: Share | None,
    layout: str,
    names: Callable[[int], list[str]] | None,
) -> Sequences:
    """Sequences of lists; they are called by their items if ``names`` does not say how."""
    read, called = Lists(share), list[str]()
    is_named = items is not None and share is None
    for row in lists:
        read.add(row)
        if is_named and names is None:
            called.append(" ".join(row))
    count, codes = len(read.lengths), np.asarray(read.codes)
    told = None if not is_named else called if names is None else names(count)
    return _sequences(read, codes, read.first, items, share, names=told, order=np.arange(count), layout=layout)


def _of_table(fill: Callable[[Table], str], items: Vocabulary | None, share: Share | None, name: str) -> Sequences:
    read = Table(share)
    layout = fill(read)
    if not read.users:
        raise DataError(f"{name}: expected rows of users and items. Found none.")
    told = None if items is None or share is not None else list(read.users)
    return _sequences(read, *read.in_order(), items, share, names=told, order=read.order(), layout=layout)


def _sequences(
    read: Lists | Table, codes: np.ndarray, first: list[int], items: Vocabulary | None, share: Share | None, **more: Any
) -> Sequences:
    """Of numbers of items by appearance."""
    lengths = np.array(read.lengths, dtype=np.int64)
    here = lengths if share is None else lengths[share.own]
    id_of, items_of = read.items.numbered(items)
    return Sequences(
        ids=id_of[codes],
        offsets=np.concatenate([[0], np.cumsum(here)]),
        items=items_of,
        lengths=lengths,
        first=id_of[first],
        share=share,
        **more,
    )


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
