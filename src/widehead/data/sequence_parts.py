"""Items of sequences while they are read: all of them, or those of a share of the sequences.

Letters: m sequences, n items of all of them, D distinct ones.
"""

from __future__ import annotations

from array import array

import numpy as np

from widehead.data.vocabulary import Vocabulary, name_order
from widehead.split import Share

SHOWN = 3
"""Items that people see of what was read, the first ones."""


class ItemCodes:
    """Items as numbers by appearance, and how often each is there."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}
        self.counts = array("q")

    def code(self, name: str) -> int:
        """The number of one more item."""
        found = self.known.setdefault(name, len(self.known))
        if found == len(self.counts):
            self.counts.append(0)
        self.counts[found] += 1
        return found

    def numbered(self, items: Vocabulary | None) -> tuple[np.ndarray, Vocabulary]:
        """(D,) the id of each number, −1 if ``items`` lacks it, and what ids mean; None: all items that were there."""
        names = list(self.known)
        if items is not None:
            return items.ids(names), items
        order = name_order(names, np.asarray(self.counts))
        id_of = np.empty(len(names), dtype=np.int64)
        id_of[order] = np.arange(len(names))
        return id_of, Vocabulary(names[i] for i in order)


class Lists:
    """Sequences one after the other.

    Args:
        share: of the sequences, of which alone items are kept; None for all.

    Attributes:
        codes: of the items that are kept. first: of the first ones of all. lengths: (m,) of all sequences.
    """

    def __init__(self, share: Share | None) -> None:
        self._share, self.items = share, ItemCodes()
        self.codes, self.lengths, self.first = array("q"), array("q"), list[int]()

    def add(self, names: list[str]) -> None:
        codes = [self.items.code(name) for name in names]
        self.first += codes[: SHOWN - len(self.first)]
        if self._share is None or self._share.holds(len(self.lengths)):
            self.codes.extend(codes)
        self.lengths.append(len(codes))


class Table:
    """Rows of a user, an item and, perhaps, a time, in any order; the items of a user are a sequence.

    Args:
        share: of the users, by their numbers; None for all. Rows of the first users are kept whoever has them, as
            people see their items.

    Attributes:
        lengths, latest: (m,) rows of all users, and their last times.
    """

    def __init__(self, share: Share | None) -> None:
        self._share, self.items = share, ItemCodes()
        self.users: dict[str, int] = {}
        self._rows, self._codes, self._times = array("q"), array("q"), array("d")
        self.lengths, self.latest = array("q"), array("d")

    def add(self, user: str, item: str, *time: float) -> None:
        row, code = self.users.setdefault(user, len(self.users)), self.items.code(item)
        if row == len(self.lengths):
            self.lengths.append(0)
            self.latest.extend(time)
        self.lengths[row] += 1
        if time:
            self.latest[row] = max(self.latest[row], *time)
        if row < SHOWN or self._share is None or self._share.holds(row):
            self._rows.append(row)
            self._codes.append(code)
            self._times.extend(time)

    @property
    def begins_with_names(self) -> bool:
        """Whether the first row is of words and all others of numbers, so that it must be a header."""
        columns = [(list(self.users), self.lengths), (list(self.items.known), self.items.counts)]
        return sum(self.lengths) > 1 and all(
            counts[0] == 1 and not names[0].isdigit() and all(map(str.isdigit, names[1:])) for names, counts in columns
        )

    def in_order(self) -> tuple[np.ndarray, list[int]]:
        """Codes of the items that are kept, user by user and by time, and of the first ones of all."""
        rows, codes, times = map(np.asarray, (self._rows, self._codes, self._times))
        place = np.argsort(times, kind="stable") if len(times) else np.arange(len(rows))
        place = place[np.argsort(rows[place], kind="stable")]
        first = codes[place[:SHOWN]].tolist()
        if self._share is not None:
            place = place[self._share.holds(rows[place])]
        return codes[place], first

    def order(self) -> np.ndarray:
        """(m,) int64 users by the times of their last items; as they come, if there are no times."""
        if not self.latest:
            return np.arange(len(self.lengths))
        return np.argsort(np.asarray(self.latest), kind="stable")
