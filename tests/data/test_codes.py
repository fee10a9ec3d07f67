"""Codes of names against a dictionary, whatever the hashes are."""

from __future__ import annotations

import numpy as np
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from widehead.data import codes as codes_module
from widehead.data.codes import Codes


class Column:
    """What ``Codes`` needs of a polars Series, with ``spread`` slots to start from at most."""

    def __init__(self, names: list[str], spread: int) -> None:
        self.series, self.spread = polars.Series(names, dtype=polars.String), spread
        self.dtype = self.series.dtype

    def __len__(self) -> int:
        return len(self.series)

    def hash(self, seed: int) -> polars.Series:
        hashes = self.series.hash(seed).to_numpy()
        if seed == codes_module._START:
            hashes = hashes % np.uint64(self.spread) << np.uint64(60)
        return polars.Series(hashes)

    def cast(self, kind: type[polars.String]) -> Column:
        assert kind is polars.String
        return self

    def gather(self, rows: np.ndarray) -> polars.Series:
        return self.series.gather(rows)


SMALL = st.lists(st.integers(0, 40), max_size=40)
LARGE = st.lists(st.integers(0, 40) | st.sampled_from([2**25 - 1, 2**25, 2**32 - 1]), max_size=40)
NAMES = st.lists(st.integers(0, 40).map(str) | st.text(max_size=2), max_size=40)


@pytest.mark.parametrize("spread", [1, 3, 16])
@given(pieces=st.lists(NAMES, max_size=5))
def test_codes_are_those_of_a_dictionary(spread: int, pieces: list[list[str]]) -> None:
    known: dict[str, int] = {}
    codes = Codes()
    for names in pieces:
        found = codes.add(Column(names, spread))
        assert found.dtype == np.int64
        assert found.tolist() == [known.setdefault(name, len(known)) for name in names]
    assert codes.size == len(known)
    assert codes.names() == list(known)


@given(pieces=st.lists(SMALL, max_size=3) | st.lists(SMALL | LARGE | NAMES, max_size=5))
def test_numbers_are_names(pieces: list[list[int] | list[str]]) -> None:
    known: dict[str, int] = {}
    codes = Codes()
    for names in pieces:
        numbers = bool(names) and isinstance(names[0], int)
        found = codes.add(polars.Series(names, dtype=polars.UInt32 if numbers else polars.String))
        assert found.tolist() == [known.setdefault(str(name), len(known)) for name in names]
    assert codes.names() == list(known)


def test_many_names() -> None:
    names = [f"n{i * i % 70_001}" for i in range(100_000)]
    codes, known = Codes(), {name: i for i, name in enumerate(dict.fromkeys(names))}
    series = polars.Series(names)
    found = np.concatenate([codes.add(series[start : start + 9_000]) for start in range(0, len(names), 9_000)])
    assert found.tolist() == [known[name] for name in names]
