"""Names as numbers in order of appearance, a column of polars at a time.

Letters: n names of a column, c distinct names so far.
"""

from typing import Any

import numpy as np

_KEY, _START = 1, 2  # seeds of two hashes
_SLOTS = 2  # at least so many for each name
_NUMBERS = 1 << 25  # numbers below are slots themselves


class Codes:
    """Gives each new name the next code 0, 1, 2, …: what a dictionary does, by passes over whole columns.

    While all names are numbers, a table by number. Then a hash table with linear probing: one 64-bit hash of a name
    tells the slot to start from, another one is compared; the names themselves are not. The probability that any two
    of c names are taken for one is about c/2⁶⁶, 10⁻¹² for 10⁸ names.
    """

    def __init__(self) -> None:
        #: distinct names so far
        self.size = 0
        self._names: list[Any] = []
        self._hashed = False
        # Row i + 1 belongs to code i: the hash that is compared, which is never 0, and the one of the slot.
        self._hashes = np.zeros((2, 1), dtype=np.uint64)
        # Code + 1, or 0 if the slot is free.
        self._slots = np.zeros(0, dtype=np.int32)

    def add(self, names: Any) -> np.ndarray:
        """(n,) int64 codes of a polars Series of n names: strings, or UInt32 for their decimal digits; none null."""
        import polars

        largest = (names.max() or 0) if names.dtype == polars.UInt32 else _NUMBERS
        if not self._hashed and largest >= _NUMBERS:
            self._leave_numbers()
        found, slot = (
            self._find_names(names.cast(polars.String)) if self._hashed else self._find_numbers(names, largest)
        )
        late = np.flatnonzero(found > self.size)
        if len(late):
            first = found[late] - (self.size + 1)
            new = late[first == late]
            code = np.empty(len(names), dtype=found.dtype)
            code[new] = np.arange(self.size + 1, self.size + 1 + len(new))
            found[late] = code[first]
            self._slots[slot[new]] = code[new]
            if self._hashed:
                self._hashes[:, self.size + 1 : self.size + 1 + len(new)] = self._hashes[:, new + self.size + 1]
            self._names.append(names.gather(new))
            self.size += len(new)
        return np.subtract(found, 1, dtype=np.int64)

    def names(self) -> list[str]:
        """The c names, in the order of their codes."""
        import polars

        return [name for part in self._names for name in part.cast(polars.String).to_list()]

    def _find_numbers(self, names: Any, largest: int) -> tuple[np.ndarray, np.ndarray]:
        """As ``_find``, of n numbers."""
        if largest >= len(self._slots):
            self._slots = np.concatenate([self._slots, np.zeros(largest + 1, dtype=np.int32)])
        slot = names.to_numpy()
        found = self._slots.take(slot)
        new = np.flatnonzero(found == 0)[::-1]  # reversed, so that of rows with one number the first writes last
        self._slots[slot[new]] = new + (self.size + 1)
        found[new] = self._slots[slot[new]]
        return found, slot

    def _leave_numbers(self) -> None:
        """Go on with hashes."""
        known, self._names = self._names, []
        self.size, self._hashed, self._slots = 0, True, self._slots[:0]
        for names in known:
            self.add(names)

    def _find_names(self, names: Any) -> tuple[np.ndarray, np.ndarray]:
        """As ``_find``, of n strings, whose hashes are kept behind those of the c names."""
        n = len(names)
        self._make_room(n)
        hashes = self._hashes[:, self.size + 1 : self.size + 1 + n]
        hashes[0] = names.hash(_KEY).to_numpy() | np.uint64(1)
        hashes[1] = names.hash(_START).to_numpy()
        return self._find(hashes)

    def _make_room(self, n: int) -> None:
        """Room for n more names."""
        needed = self.size + n + 1
        if needed > self._hashes.shape[1]:
            hashes = np.zeros((2, 2 * needed), dtype=np.uint64)
            hashes[:, : self.size + 1] = self._hashes[:, : self.size + 1]
            self._hashes = hashes
        if _SLOTS * needed > len(self._slots):
            kind = np.int32 if 2 * needed < 2**31 else np.int64  # half the size is faster by far
            self._slots = np.zeros(1 << (_SLOTS * needed - 1).bit_length(), dtype=kind)
            known, self.size = self.size, 0
            self._find(self._hashes[:, 1 : known + 1])
            self.size = known

    def _find(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n,) code + 1 of each name, or for new ones c + 1 + the first row of the name; and (n,) their slots."""
        (keys, starts), slots, known = hashes, self._slots, self._hashes[0]
        slot = (starts >> np.uint64(65 - len(slots).bit_length())).view(np.int64)
        found = slots.take(slot)  # many times faster than an index here
        rows = np.flatnonzero(known.take(found) != keys)
        while len(rows):
            free = rows[found[rows] == 0][::-1]  # reversed, so that of rows with one slot the first writes last
            slots[slot[free]] = free + (self.size + 1)
            now = slots[slot[rows]]
            found[rows] = now
            rows = rows[known[now] != keys[rows]]
            slot[rows] = (slot[rows] + 1) & (len(slots) - 1)
            found[rows] = slots[slot[rows]]
        return found, slot
