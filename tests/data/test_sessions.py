"""Sequences from files and from memory: one meaning, whatever the format; and what is refused, with its line."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
from support.packing import PACK

from widehead.data import Vocabulary, read_sequences
from widehead.data.sessions import Sequences
from widehead.errors import DataError

LISTS = [["a", "b", "a"], ["c"], ["b", "c"]]


def lists(found: Sequences) -> list[list[str]]:
    ends = zip(found.offsets, found.offsets[1:], strict=False)
    return [[found.items[i] if i >= 0 else "?" for i in found.ids[a:b].tolist()] for a, b in ends]


TEXTS = {
    "lists": "a b a\nc\nb  c \n",
    "table": "u,a\nv,c\nu,b\nu,a\nw,b\nw,c\n",
    "table with times": "u,a,1\nv,c,9\nu,a,3\nu,b,2.5\nw,c,8\nw,b,-1\n",
    "header": "time\tsession_id\twhat\titem_id\n2026-01-02\tu\tx\tb\n2026-01-01T23:00:00Z\tu\tx\ta\n"
    "2026-01-03\tu\tx\ta\n2026-01-09\tv\tx\tc\n2026-01-01\tw\tx\tb\n2026-01-02\tw\tx\tc\n",
    "quotes": 'user,item\r\nu,"a"\r\nv,c\r\nu,b\r\n\r\nu,a\r\nw,b\r\nw,"c"',
}


@pytest.mark.parametrize("text", TEXTS)
def test_formats_mean_the_same(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_text(TEXTS[text])
    found = read_sequences(tmp_path / "file")
    assert lists(found) == LISTS
    assert sorted(found.items) == ["a", "b", "c"]
    assert found.names is None
    again = read_sequences(tmp_path / "file", Vocabulary(["c", "a"]))
    assert lists(again) == [["a", "?", "a"], ["c"], ["?", "c"]]
    assert again.names == (["a b a", "c", "b c"] if text == "lists" else ["u", "v", "w"])


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
def test_packed_files_are_read(tmp_path: Path, pack: Any) -> None:
    (tmp_path / "file").write_bytes(pack(TEXTS["lists"].encode()))
    assert lists(read_sequences(tmp_path / "file")) == LISTS


def test_times_order_items_and_sequences(tmp_path: Path) -> None:
    (tmp_path / "file").write_text(TEXTS["table with times"])
    assert read_sequences(tmp_path / "file").order.tolist() == [0, 2, 1]
    (tmp_path / "file").write_text(TEXTS["table"])
    assert read_sequences(tmp_path / "file").order.tolist() == [0, 1, 2]


def test_items_of_one_time_keep_their_order(tmp_path: Path) -> None:
    """In files and in columns; users whose last times are equal come in the order of the file too."""
    rows = [("u", "c", 2), ("v", "b", 2), ("u", "a", 1), ("u", "b", 2), ("v", "a", 2), ("u", "a", 2), ("w", "c", 1)]
    (tmp_path / "file").write_text("".join(f"{user},{item},{time}\n" for user, item, time in rows))
    table = polars.DataFrame(rows, schema=["user", "item", "time"], orient="row")
    for found in (read_sequences(tmp_path / "file"), read_sequences(table)):
        assert lists(found) == [["a", "c", "b", "a"], ["b", "a"], ["c"]]
        assert found.order.tolist() == [2, 0, 1]


@pytest.mark.parametrize("times", ["dates", "moments", "texts", "numbers", None])
@pytest.mark.parametrize("form", ["parquet", "polars", "pandas"])
def test_tables_of_columns(tmp_path: Path, form: str, times: str | None) -> None:
    columns: dict[str, Any] = {"userId": [7, 8, 7, 7, 9, 9], "item": ["b", "c", "a", "a", "c", "b"]}
    days = [2, 9, 1, 3, 5, 4]
    made = {
        "dates": [date(2026, 1, day) for day in days],
        "moments": [datetime(2026, 1, 1, day) for day in days],
        "texts": [f"2026-01-0{day}" for day in days],
        "numbers": days,
    }
    table = polars.DataFrame(columns if times is None else {**columns, "timestamp": made[times]})
    expected = LISTS if times is not None else [["b", "a", "a"], ["c"], ["c", "b"]]
    data: Any = table
    if form == "pandas":
        data = pytest.importorskip("pandas").DataFrame(table.to_dict(as_series=False))
    if form == "parquet":
        table.write_parquet(data := tmp_path / "file")
    assert lists(read_sequences(data)) == expected
    assert read_sequences(data, Vocabulary("abc")).names == ["7", "8", "9"]


def test_lists_in_memory_are_called_by_their_numbers() -> None:
    found = read_sequences([[1, 2], [], (10,), np.array([2, 1])], Vocabulary(["1", "2"]))
    assert (lists(found), found.names) == ([["1", "2"], [], ["?"], ["2", "1"]], ["0", "1", "2", "3"])
    assert read_sequences([[1, 2], [10]]).items.names == ["1", "2", "10"]


def test_blank_lines_are_sequences_without_items(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("\n\na b\n \nc\n")
    found = read_sequences(tmp_path / "file", Vocabulary("abc"))
    assert lists(found) == [[], [], ["a", "b"], [], ["c"]]
    assert found.names == ["", "", "a b", "", "c"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a b\nc,d\n", "line 2: expected 'item item item …' separated by spaces.*Found a comma"),
        ("a b\nc\td\n", "line 2.*Found a tab"),
        ("u,a,1\nv,b,soon\n", "line 2: expected a time, a number or a date such as .* Found 'soon'"),
        ("u,a,1\nv,b,inf\n", "line 2: expected a time.*Found 'inf'"),
        ("u,a,1\nv,b\n", "line 2: expected 3 columns, as in the first row. Found 2"),
        ("u,a\n\n,b\n", "line 3: expected a user and an item. Found an empty cell"),
        ("u,a,1,2\n", r"line 1: expected 2 or 3 columns \(user, item\[, time\]\).*Found 'u', 'a', '1', '2'"),
        ("item,what\na,1\n", "line 1: expected .* a header that names them, such as user,item,time"),
        ("who,clicked\n1,2\n1,3\n", "expected numbers, as in all other rows, or a header.*Found 'who', 'clicked'"),
        ('u,"a\nv,b\n', "expected separated columns"),
        ('{"a": 1}\n', "line 1: expected .*Found JSON"),
        ("u;a\nv;b\nw;c\n", "Found ';' between the columns"),
        ("", "the file is empty"),
        ("user,item\n", "expected rows of users and items. Found none"),
    ],
)
def test_what_is_no_sequence_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(DataError, match=message) as raised:
        read_sequences(tmp_path / "file")
    assert str(tmp_path / "file") in str(raised.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([[1, None]], "Found an empty one in sequence 0"),
        ([1, 2], "Expected lists of items, one for each sequence"),
        ([["a", "b"], {"a", "b"}], "Expected lists of items, one for each sequence, in their order. Found .* none"),
        (np.eye(3), "Found a matrix"),
        (polars.DataFrame({"user": ["u", None], "item": [1, 2]}), "row 2: expected a user and an item"),
        (polars.DataFrame({"user": ["u"], "item": [1], "time": ["x"]}), "row 1: expected a time"),
        (polars.DataFrame({"user": "u", "item": [1, 2], "time": [date(2026, 1, 1), None]}), "row 2: expected a time"),
        (
            polars.DataFrame({"user": "u", "item": [1, 2], "time": [None, datetime(2026, 1, 1)]}),
            "row 1: expected a time.*Found None",
        ),
        (polars.DataFrame({"a": [1]}), "data in memory: expected .* a header that names them, such as user,item,time"),
        (
            polars.DataFrame({"item": [1], "b": [2]}),
            "data in memory: expected .* a header that names them, such as user,item,time",
        ),
    ],
)
def test_other_data_in_memory_are_refused(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_sequences(data)


def test_parquet_that_is_none_or_has_other_columns_is_refused(tmp_path: Path) -> None:
    polars.DataFrame({"user": [1], "b": [2]}).write_parquet(tmp_path / "file")
    with pytest.raises(DataError, match=r"file: expected columns such as user,item,time.*'user', 'b'"):
        read_sequences(tmp_path / "file")
    (tmp_path / "file").write_bytes((tmp_path / "file").read_bytes()[:-9])
    with pytest.raises(DataError, match="file: the Parquet data cannot be read"):
        read_sequences(tmp_path / "file")


def test_what_was_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("\na b a\nc d\n")
    expected = "2 sequences of 4 items, 5 in all, 3 in the longest; first items a, b, a; a sequence on each line"
    assert str(read_sequences(tmp_path / "file")) == expected
    (tmp_path / "file").write_text("day,sid,item\n1,u,a\n")
    assert str(read_sequences(tmp_path / "file")).endswith("sequences from sid; items from item; times from day")
