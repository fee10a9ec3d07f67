"""Names of classes as the user's data have them: numbers stay numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

_KINDS: Mapping[str, tuple[type, ...]] = {  # a bool is an int to Python
    "bool": (bool, np.bool_),
    "int": (int, np.integer),
    "float": (float, np.floating),
}


class Names:
    """What the classes of a run are called, as an array that ids pick from.

    Args:
        names: D texts, as the run has them.
        kind: "int", "float" or "bool" if they were such in the data, "str" for texts and all else; None if nobody
            knows: numbers then, if all of them are whole.
    """

    def __init__(self, names: Sequence[str], kind: str | None) -> None:
        if kind is None:
            kind = "int" if all(name.isdecimal() and name == str(int(name)) for name in names) else "str"
        self.kind = kind
        self.array = _array(names, kind)

    def of(self, ids: np.ndarray) -> np.ndarray:
        """The names of class ids; −1 stays −1 if names are whole numbers, and is None or NaN else."""
        if self.kind == "int":
            return np.where(ids >= 0, self.array[ids], -1)
        found = self.array[ids].astype(np.float64 if self.kind == "float" else object)
        found[ids < 0] = np.nan if self.kind == "float" else None
        return found


def kind_of(names: Iterable[Any]) -> str:
    """The kind of some names, as `Names` takes it."""
    kinds = {_kind(found) for found in set(map(type, names))}
    return kinds.pop() if len(kinds) == 1 else "str"


def _kind(found: type) -> str:
    return next((kind for kind, types in _KINDS.items() if issubclass(found, types)), "str")


def _array(names: Sequence[str], kind: str) -> np.ndarray:
    if kind == "str":  # of numpy's texts each would take as much memory as the longest
        return np.array(names, dtype=object)
    if kind == "bool":
        return np.array([name == "True" for name in names], dtype=bool)
    return np.array([int(name) if kind == "int" else float(name) for name in names], dtype=np.dtype(kind))


def padded(parts: Sequence[np.ndarray], width: int, fill: float) -> np.ndarray:
    """(m, width) rows of parts one below the other, ``fill`` in the columns that are missing."""
    rows = np.concatenate(parts) if parts else np.empty((0, 0))
    return np.pad(rows, ((0, 0), (0, width - rows.shape[1])), constant_values=fill)
