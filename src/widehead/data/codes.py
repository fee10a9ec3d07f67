"""Names as numbers in order of appearance, a column of polars at a time.

Letters: n names of a column, c distinct names so far.
"""

from typing import Any

import numpy as np

_KEY, _START = 1, 2  # seeds of two hashes
_SLOTS = 2  # at least so many for each name


class Codes:
    """Gives each new name the next code 0, 1, 2, …: what a dictionary does, by passes over whole columns.

    A hash table with linear probing. One 64-bit hash of a name tells the slot to start from, another one is compared;
    the names themselves are not. The probability that any two of c names are taken for one is about c/2⁶⁶, 10⁻¹² for
    10⁸ names.
    """

    def __init__(self) -> None:
        #: distinct names so far
        self.size = 0
        self._names: list[Any] = []
        # Row i + 1 belongs to code i: the hash that is compared, which is never 0, and the one of the slot.
        self._hashes = np.zeros((2, 1), dtype=np.uint64)
        # Code + 1, or 0 if the slot is free.
        self._slots = np.zeros(0, dtype=np.int64)

    def add(self, names: Any) -> np.ndarray:
        """(n,) int64 codes of a polars Series of n strings, none of them null."""
        n = len(names)
        self._make_room(n)
        hashes = self._hashes[:, self.size + 1 : self.size + 1 + n]
        hashes[0] = names.hash(_KEY).to_numpy() | np.uint64(1)
        hashes[1] = names.hash(_START).to_numpy()
        found, slot = self._find(hashes)
        late = np.flatnonzero(found > self.size)
        if len(late):
            first = found[late] - (self.size + 1)
            new = late[first == late]
            code = np.empty(n, dtype=found.dtype)
            code[new] = np.arange(self.size + 1, self.size + 1 + len(new))
            found[late] = code[first]
            self._slots[slot[new]] = code[new]
            hashes[:, : len(new)] = hashes[:, new]
            self._names.append(names.gather(new))
            self.size += len(new)
        return found.astype(np.int64) - 1

    def names(self) -> list[str]:
        """The c names, in the order of their codes."""
        return [name for part in self._names for name in part.to_list()]

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
        found = slots[slot]
        rows = np.flatnonzero(known[found] != keys)
        while len(rows):
            free = rows[found[rows] == 0][::-1]  # reversed, so that of rows with one slot the first writes last
            slots[slot[free]] = free + (self.size + 1)
            now = slots[slot[rows]]
            found[rows] = now
            rows = rows[known[now] != keys[rows]]
            slot[rows] = (slot[rows] + 1) & (len(slots) - 1)
            found[rows] = slots[slot[rows]]
        return found, slot
