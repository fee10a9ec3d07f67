"""Names and their ids: words, items, labels.

A vocabulary is saved as UTF-8 text, one name a line, in the order of the ids. Control characters, the byte-order
mark, lone surrogates and the backslash are written as a backslash, u and four hexadecimal digits, so that every name
fits on its line.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from widehead.data.files import FilePath, open_text
from widehead.errors import DataError

_ESCAPED = re.compile(r"[\\\x00-\x1f\x7f\ufeff\ud800-\udfff]")
_CODE = re.compile(r"\\u([0-9a-f]{4})")
_NUMBER = "^(?:0|[1-9][0-9]{0,17})$"


class Vocabulary:
    """Names with the ids 0, 1, 2, … in the order given.

    Args:
        names: distinct strings.
        unknown: the one of the names that stands for every name that is not among them, or None.

    Raises:
        ValueError: a name occurs twice, or ``unknown`` is not among the names.

    >>> words = Vocabulary.from_counts({"a": 5, "b": 9, "rare": 1}, minimum=2, unknown="<unk>")
    >>> list(words), words.id("b"), words.id("rare")
    (['b', 'a', '<unk>'], 0, 2)
    """

    __slots__ = ("_ids", "names", "unknown")

    def __init__(self, names: Iterable[str], unknown: str | None = None) -> None:
        self.names = list(names)
        self._ids = {name: i for i, name in enumerate(self.names)}
        self.unknown = unknown
        if len(self._ids) < len(self.names):
            second, first = _first_repeat(self.names)
            raise ValueError(f"Names should be distinct. Found {self.names[second]!r} as {first} and as {second}.")
        if unknown is not None and unknown not in self._ids:
            raise ValueError(f"Parameter `unknown` should be one of the names. Found {unknown!r}.")

    @classmethod
    def from_counts(
        cls,
        counts: Mapping[str, int],
        *,
        minimum: int = 1,
        max_size: int | None = None,
        unknown: str | None = None,
        keep: Iterable[str] = (),
    ) -> Vocabulary:
        """Names by descending count, then by name.

        Args:
            counts: how often each name occurs.
            minimum: names that occur less often are left out.
            max_size: at most this many names, the most frequent ones, or None.
            unknown: name for all that are left out; it is placed by their counts, added to its own.
            keep: names that stay (by count, 0 if not counted) whatever the other arguments say.
        """
        reserved = {*keep, *([] if unknown is None else [unknown])}
        ordered = sorted(((n, c) for n, c in counts.items() if n not in reserved), key=_by_count)
        room = None if max_size is None else max(0, max_size - len(reserved))
        chosen = [(n, c) for n, c in ordered[:room] if c >= minimum]
        left_out = sum(c for _, c in ordered[len(chosen) :])
        extra = [(n, counts.get(n, 0) + (left_out if n == unknown else 0)) for n in reserved]
        return cls((n for n, _ in sorted([*chosen, *extra], key=_by_count)), unknown)

    @classmethod
    def load(cls, path: FilePath, unknown: str | None = None) -> Vocabulary:
        """Read what ``save`` wrote, or any text file with one name a line. Raises DataError, with the line."""
        with open_text(path) as lines:
            names = [_CODE.sub(lambda code: chr(int(code[1], 16)), line) for line in lines]
        try:
            return cls(names, unknown)
        except ValueError as error:
            if len(set(names)) == len(names):
                raise DataError(f"{path}: expected the name {unknown!r} among the lines. Found none.") from error
            second, first = _first_repeat(names)
            raise DataError(
                f"{path}, line {second + 1}: expected distinct names. Found {names[second]!r} again (line {first + 1})."
            ) from error

    def save(self, path: FilePath) -> None:
        """Write one name a line; ``unknown`` is not written."""
        lines = (_ESCAPED.sub(lambda c: f"\\u{ord(c[0]):04x}", name) + "\n" for name in self.names)
        with Path(path).open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)

    def id(self, name: str) -> int:
        """The id of a name; of ``unknown`` if the name is not known. Raises KeyError if there is neither."""
        return self._ids[name] if self.unknown is None else self._ids.get(name, self._ids[self.unknown])

    def ids(self, names: Iterable[str]) -> np.ndarray:
        """(n,) int64 ids; names that are not known get the id of ``unknown``, or -1 if there is none."""
        return np.fromiter(map(self._ids.get, names, itertools.repeat(self.unknown_id)), dtype=np.int64)

    @property
    def unknown_id(self) -> int:
        """The id of ``unknown``, or -1 if there is none."""
        return -1 if self.unknown is None else self._ids[self.unknown]

    @property
    def as_dict(self) -> Mapping[str, int]:
        """Names to ids."""
        return self._ids

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> str:
        return self.names[i]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._ids

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.names == other.names and self.unknown == other.unknown

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        unknown = "" if self.unknown is None else f", unknown={self.unknown!r}"
        return f"Vocabulary({len(self)} names{unknown})"


def name_order(names: Sequence[str], counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """(n,) int64 order of columns: by number if all names are numbers, else by descending count, then by name.

    Numbers are non-negative integers without leading zeros, so if they are 0 … n - 1, item 17 is column 17.

    >>> name_order(["10", "9"], [3, 1]), name_order(["b", "c", "a"], [1, 7, 1])
    (array([1, 0]), array([1, 2, 0]))
    """
    import polars

    frame = polars.DataFrame({"name": names, "count": counts}, schema={"name": polars.String, "count": polars.Int64})
    if frame["name"].str.contains(_NUMBER).all():
        order = frame["name"].cast(polars.Int64).arg_sort()
    else:
        order = frame.select(polars.arg_sort_by("count", "name", descending=[True, False])).to_series()
    return order.to_numpy().astype(np.int64)


def _by_count(entry: tuple[str, int]) -> tuple[int, str]:
    return -entry[1], entry[0]


def _first_repeat(names: list[str]) -> tuple[int, int]:
    """Positions of the first name that was there before, and of its first occurrence."""
    seen: dict[str, int] = {}
    for i, name in enumerate(names):
        if seen.setdefault(name, i) != i:
            return i, seen[name]
    raise AssertionError("no name occurs twice")
