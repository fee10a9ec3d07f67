"""Readers on files made to hurt: huge numbers in small files, data that unpack to gigabytes, tables of odd types."""

from __future__ import annotations

import datetime
import gzip
import itertools
import lzma
import re
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from support.packing import PACK

from widehead.data import files as data_files
from widehead.data import pair, read_interactions, read_multilabel, read_thesaurus
from widehead.data.text import count_words
from widehead.errors import DataError

READERS: dict[str, Callable[[Path], Any]] = {
    "interactions": read_interactions,
    "multilabel": read_multilabel,
    "text": count_words,
    "thesaurus": read_thesaurus,
}


@contextmanager
def little_memory(megabytes: float) -> Iterator[None]:
    """Fail if Python and numpy take more."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < megabytes * 2**20
    finally:
        tracemalloc.stop()


NUMBERS = [
    "0",
    "1",
    "2",
    "3",
    "-1",
    "1e9",
    "2147483647",
    "2147483648",
    "999999999999999999",
    "1" * 5_000,
    "nan",
    "٣",
    "",
]
CELLS = st.sampled_from([*NUMBERS, "a", '"', '"a', "é", "\u200b", "\u2028", "\x1c", "=1+1", "1:1", "0:1e31", ":", "0:"])


@settings(max_examples=100)
@given(
    header=st.lists(st.sampled_from(NUMBERS), min_size=3, max_size=3),
    rows=st.lists(st.tuples(st.lists(CELLS, max_size=2), st.lists(CELLS, max_size=3)), max_size=4),
)
def test_xc_text_of_any_sizes(
    tmp_path_factory: pytest.TempPathFactory, header: list[str], rows: list[tuple[list[str], list[str]]]
) -> None:
    """What the header promises costs nothing; only what is there does."""
    path = tmp_path_factory.getbasetemp() / "xc.txt"
    lines = [" ".join(header), *(f"{','.join(labels)} {' '.join(features)}" for labels, features in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with little_memory(20):
        try:
            found = read_multilabel(path)
        except DataError as error:
            assert re.match(rf"{re.escape(str(path))}(, line \d+)?: ", str(error))  # noqa: PT017
            assert len(str(error)) < 500 + len(str(path))  # noqa: PT017
        else:
            assert found.labels.shape[0] == int(header[0])
            assert bool(np.isfinite(found.features.data).all())


@pytest.mark.parametrize("separator", [" ", ",", "\t"])
@settings(max_examples=100)
@given(rows=st.lists(st.lists(CELLS, min_size=1, max_size=4), min_size=1, max_size=5), named=st.booleans())
def test_tables_and_lists_of_any_cells(
    tmp_path_factory: pytest.TempPathFactory, separator: str, rows: list[list[str]], named: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "table.txt"
    lines = [separator.join(["user", "item", "rating"])] * named + [separator.join(cells) for cells in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    try:
        found = read_interactions(path)
    except DataError as error:
        assert re.match(rf"{re.escape(str(path))}(, line \d+)?: ", str(error))  # noqa: PT017
    else:
        assert found.matrix.nnz > 0
        assert len(set(found.users)) == found.matrix.shape[0]
        assert len(set(found.items)) == found.matrix.shape[1]
        together = pair(found, found)
        assert together.repeated == found.matrix.nnz
        assert not together.test.unreachable.any()


COLUMNS: dict[str, list[Any]] = {
    "integers": [1, 2, 3],
    "big": [2**62, -1, 0],
    "texts": ["a", "b", "a"],
    "odd texts": ["", "a\nb", "a\tb"],
    "zeros": ["\0", "\ud7ff", " "],
    "floats": [1.5, 2.0, float("nan")],
    "infinite": [1.0, float("inf"), -1.0],
    "nothing": [None, None, None],
    "gaps": ["a", None, "b"],
    "flags": [True, False, True],
    "dates": [datetime.date(2020, 1, 1)] * 3,
    "lists": [[1], [2], []],
    "objects": [{"a": 1}] * 3,
    "decimals": [Decimal("1.5")] * 3,
    "bytes": [b"a", b"\xff", b""],
    "durations": [datetime.timedelta(1)] * 3,
}
TABLES = list(itertools.product(COLUMNS, ["integers", "texts", "dates", "odd texts"], [None, *COLUMNS]))


def test_parquet_of_any_types(tmp_path: Path) -> None:
    """Every type as users, items and ratings: read as what it says, or refused with its column or row."""
    path = tmp_path / "table.parquet"
    read = 0
    for users, items, ratings in TABLES:
        columns = {"user": COLUMNS[users], "item": COLUMNS[items]}
        columns |= {} if ratings is None else {"rating": COLUMNS[ratings]}
        polars.DataFrame(columns, strict=False).write_parquet(path)
        try:
            found = read_interactions(path)
        except DataError as error:
            assert re.match(rf"{re.escape(str(path))}(, row \d+)?: ", str(error))  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
            continue
        read += 1
        assert found.matrix.nnz == len(set(zip(map(str, COLUMNS[users]), map(str, COLUMNS[items]), strict=True)))
        assert bool(np.isfinite(found.matrix.data).all())
    assert read > 20


def test_parquet_without_rows_or_columns(tmp_path: Path) -> None:
    for frame in (polars.DataFrame({"user": [], "item": []}), polars.DataFrame(), polars.DataFrame({"user": ["a"]})):
        frame.write_parquet(tmp_path / "table.parquet")
        with pytest.raises(DataError, match=r"table\.parquet: "):
            read_interactions(tmp_path / "table.parquet")


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("packing", [kind for kind in PACK if kind != "plain"])
def test_data_that_unpack_to_gigabytes_of_zeros(tmp_path: Path, reader: str, packing: str) -> None:
    """Refused at the first zero byte. (256 MB here: making more takes long, and reading does not get that far.)"""
    (tmp_path / "bomb").write_bytes(packed_zeros(packing))
    assert (tmp_path / "bomb").stat().st_size < 2**19
    with little_memory(80), pytest.raises(DataError, match=r"bomb, line 1: .*zero byte"):
        READERS[reader](tmp_path / "bomb")


def packed_zeros(packing: str, _made: dict[str, bytes] = {}) -> bytes:  # noqa: B006  made once for all tests
    if packing not in _made:
        _made[packing] = {
            "gzip": lambda data: gzip.compress(data, 6),
            "xz": lambda data: lzma.compress(data, preset=0),
            "zstd": zstandard.compress,
        }[packing](bytes(2**28))
    return _made[packing]


@pytest.mark.parametrize("reader", READERS)
def test_a_line_without_end(tmp_path: Path, reader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of 2 MB stands for that of 1 GB."""
    monkeypatch.setattr(data_files, "_LONGEST_LINE", 2**21)
    (tmp_path / "bomb").write_bytes(gzip.compress(b"first line\n" + b"a" * 2**25, 6))
    with little_memory(20), pytest.raises(DataError, match=r"bomb, line 2: expected lines of at most 2,097,152 bytes"):
        READERS[reader](tmp_path / "bomb") if reader != "multilabel" else list(
            data_files.text_blocks(tmp_path / "bomb")
        )


def test_long_lines_are_read(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"word " * 1_000_000)
    assert count_words(tmp_path / "text")["word"] == 1_000_000


def test_an_xz_header_that_asks_for_all_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Greedy(lzma.LZMAFile):
        def read(self, size: int | None = -1) -> bytes:
            raise MemoryError

    monkeypatch.setattr(data_files.lzma, "LZMAFile", Greedy)
    (tmp_path / "greedy").write_bytes(lzma.compress(b"u i\n"))
    with pytest.raises(DataError, match="greedy: unpacking the xz data needs more memory"):
        read_interactions(tmp_path / "greedy")


def test_a_quote_that_never_ends(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text('user,item\n"u,i\n' + "u,i\n" * 100_000)
    with pytest.raises(DataError, match=r"table\.csv, line \d+: expected separated columns"):
        read_interactions(tmp_path / "table.csv")
