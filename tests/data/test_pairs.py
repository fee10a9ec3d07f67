"""The two ways to read users and items against each other: by polars, a piece at a time, and line by line."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.packing import PACK

from widehead.data import pairs as pairs_module
from widehead.data.pairs import Pairs, pairs_by_lines, read_pairs
from widehead.data.parquet import parquet_pieces
from widehead.data.pieces import Piece
from widehead.errors import DataError

NAMES = ["u", "a", "007", "7", "1.0", "-3", "1e3", "é", "x y", "NULL", "nan", "user", "item", "#c", "a\u2028", "²"]
ODD = [
    "",
    " ",
    " a",
    "a ",
    "\xa0b",
    "\u200b",
    '"',
    'a"b',
    '"a"',
    '"a,b"',
    '"a""b"',
    '""',
    "\x1c",
    "\x1cb",
    "a\tb",
    "a,b",
    "\r",
]
CELLS = st.sampled_from(NAMES) | st.sampled_from(ODD) | st.text(max_size=3)
RATINGS = st.sampled_from(
    ["1", "2.5", "-1e-3", "+4", ".5", "5.", " 1 ", "nan", "inf", "1e39", "1_0", "٣", "", "x", '"3"']
)
ENDS = st.sampled_from(["\n", "\r\n"])
STARTS = st.sampled_from(
    ["", "\ufeff", "\n", " \n\r\n", "user,item,rating\n", "item\tuser\n", '"user_id","x","item_id"\n']
)
SIZES = st.sampled_from([1, 8, 30, 4096])


def outcome(read: Callable[[], Pairs]) -> Pairs | str:
    try:
        return read()
    except DataError as error:
        return str(error)


def assert_same(path: Path, size: int) -> None:
    fast, slow = outcome(lambda: read_pairs(path, size)), outcome(lambda: pairs_by_lines(path))
    if isinstance(fast, str) or isinstance(slow, str):
        assert fast == slow
        return
    assert (fast.users, fast.items) == (slow.users, slow.items)
    for name in ("user_ids", "item_ids", "ratings"):
        left, right = getattr(fast, name), getattr(slow, name)
        assert (left is None) == (right is None)
        if left is not None:
            assert left.dtype == right.dtype
            assert np.array_equal(left, right)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pairs") / "pairs"


@settings(max_examples=100)
@given(
    start=STARTS,
    separator=st.sampled_from([",", "\t", " "]),
    rows=st.lists(st.tuples(CELLS, CELLS, RATINGS), max_size=6),
    widths=st.lists(st.integers(1, 3), min_size=1, max_size=2),
    end=ENDS,
    last=st.booleans(),
    size=SIZES,
)
def test_any_table_or_list(
    path: Path,
    start: str,
    separator: str,
    rows: list[tuple[str, ...]],
    widths: list[int],
    end: str,
    last: bool,
    size: int,
) -> None:
    lines = [separator.join(row[: widths[i % len(widths)]]) for i, row in enumerate(rows)]
    path.write_bytes((start + end.join(lines) + end * last).encode())
    assert_same(path, size)


@settings(max_examples=120)
@given(
    header=st.sampled_from([[], ["user", "item"], ["item", "note", "user", "rating"]]),
    names=st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)), min_size=1, max_size=30),
    note=st.lists(st.sampled_from(["", "text", "a, b", '"']), min_size=1),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    end=ENDS,
    size=SIZES,
    packing=st.sampled_from(list(PACK)),
)
def test_sound_tables(
    path: Path,
    header: list[str],
    names: list[tuple[str, str]],
    note: list[str],
    quoting: int,
    end: str,
    size: int,
    packing: str,
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, quoting=quoting, lineterminator=end)  # type: ignore[arg-type]
    writer.writerows([header] * bool(header))
    for i, (user, item) in enumerate(names):
        writer.writerow([item, note[i % len(note)], user, i / 4] if len(header) == 4 else [user, item])
    path.write_bytes(PACK[packing](text.getvalue().encode()))
    assert_same(path, size)


ANY_TEXT = (st.binary(max_size=60) | st.text(max_size=40).map(str.encode)).filter(lambda data: data[:4] != b"PAR1")


@given(data=ANY_TEXT, size=SIZES)
@example(data=b"u,a\n\xff,b\n", size=4)
@example(data=b"u,a\nv,b\0\n", size=4096)
@example(data=b"who,what\n1,2\n3,4\n", size=4)
def test_any_bytes(path: Path, data: bytes, size: int) -> None:
    path.write_bytes(data)
    assert_same(path, size)


def test_cells_that_the_reader_of_lines_finds_too_long(path: Path) -> None:
    path.write_text(f"u,a\nv,{'a' * 200_000}\n")
    assert_same(path, 1 << 22)
    path.write_text(f"u,a\nv,{'a' * 70_000}\n")
    assert_same(path, 1 << 22)


def test_white_space_is_that_of_python(path: Path) -> None:
    for code in range(0x3001):
        if chr(code).isspace() and code not in (10, 13):
            path.write_text(f"u,a{chr(code)}\n{chr(code)}v,{chr(code)}b\n", encoding="utf-8")
            assert_same(path, 1 << 22)
            path.write_text(f"u a{chr(code)}b\nv{chr(code)}c\n", encoding="utf-8")
            assert_same(path, 1 << 22)


READ_BY_POLARS = {
    "csv": "u1,i2\nu2,i2\n",
    "csv, no last line end": "u1,i2\nu2,i2",
    "csv, header": "user,x,item\nu,,a\nv,3,b\n",
    "csv, windows": "user,item\r\nu,a\r\nv,b\r\n",
    "csv, quotes": '"user","item"\n"u","a"\n"v","b c"\nw,5" disk\n',
    "csv, white space": "\n\nu , a b\n v,\u2003b\n\n",
    "csv, ratings": "\ufeffu,a,1\nv,b,2.5\n",
    "csv, unicode": "ü,a\nv,é\n",
    "csv, numbers": "007,1.0\n7,1\n",
    "tsv": 'u\t"a\nv\tb, c\n',
    "lists": "7 12 5\n\n8\n 9  12\n",
    "lists, unicode": "ü 12 5\r\n8 5\r\n",
}


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("kind", READ_BY_POLARS)
def test_ordinary_files_are_read_by_polars(
    tmp_path: Path, kind: str, packing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pairs"
    path.write_bytes(PACK[packing](READ_BY_POLARS[kind].encode()))
    assert_same(path, 1 << 22)
    monkeypatch.setattr(pairs_module, "pairs_by_lines", None)
    assert len(read_pairs(path).user_ids) >= 2


@pytest.mark.parametrize("rows", [1, 2, 100])
def test_parquet_by_pieces(path: Path, rows: int) -> None:
    frame = polars.DataFrame({"user": ["u", "v", "u"], "item": [7, 1, 7], "rating": [1.0, 2.0, None]})
    frame[:2].write_parquet(path)
    pieces = list(parquet_pieces(path, rows))
    assert [name for piece in pieces for name in piece.items] == ["7", "1"]
    assert np.concatenate([piece.ratings for piece in pieces]).tolist() == [1.0, 2.0]
    frame.write_parquet(path)
    with pytest.raises(DataError, match="row 3: expected a user, an item and its rating"):
        list(parquet_pieces(path, rows))


def test_columns_of_ids_are_joined_one_after_the_other_and_their_parts_given_up() -> None:
    """So that the most there is at a time are three columns: parts of one, and another twice."""
    count, pieces = 20_000, 40
    column = 8 * count * pieces
    names = polars.Series(["a", "b"] * (count // 2))
    tracemalloc.start()
    try:
        found = pairs_module._by_pieces(Piece(names, names) for _ in range(pieces))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.user_ids.tolist() == found.item_ids.tolist() == [0, 1] * (count * pieces // 2)
    assert 2.5 * column < peak < 3.5 * column


def peak_of_reading(folder: Path, rows: int, users: int, items: int) -> None:
    """The least peak of up to three processes: polars keeps what is freed for a time, more in some than in others."""
    script, limit = Path(__file__).parents[1] / "support/reading_peak.py", 3 * rows * 2 * 8
    arguments, peaks = [str(rows), str(users), str(items), str(folder / "pairs.csv")], list[int]()
    while len(peaks) < 3 and (not peaks or peaks[-1] >= limit):
        done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=True)
        found = json.loads(done.stdout)
        assert found["shape"] == [users, items]
        assert rows * 0.98 < found["entries"] <= rows
        assert found["kinds"] == ["int64", "int64"]
        peaks.append(found["bytes"])
    assert min(peaks) < limit


def test_reading_takes_at_most_three_copies_of_the_ids(tmp_path: Path) -> None:
    peak_of_reading(tmp_path, 10_000_000, 50_000, 20_000)


@pytest.mark.slow
def test_fifty_million_pairs(tmp_path: Path) -> None:
    peak_of_reading(tmp_path, 50_000_000, 1_000_000, 500_000)
