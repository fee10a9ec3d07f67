"""What is said of a file of users and items: its sizes, its first names, and how it is laid out."""

from __future__ import annotations

from pathlib import Path

import polars
import pytest

from widehead.data import read_interactions
from widehead.data.layout import look
from widehead.errors import DataError

SAID = {
    "u a b\nv b\n": "2 users × 2 items, 3 pairs, no ratings; first users u, v; first items b, a; "
    "lists, that of line 1 for the user u",
    "u,a\nu,a\nv,b\n": "2 users × 2 items, 2 pairs (1 repeats left out), no ratings; first users u, v; first items a, "
    "b; no header, so line 1 was read as a pair: u, a",
    "\n\nu\ta\t2\nv\tb\t4.5\n": "2 users × 2 items, 2 pairs, ratings 2 to 4.5; first users u, v; first items a, b; "
    "no header, so line 3 was read as a pair: u, a, 2",
    "day,User-ID,item,stars\n1,u,a,3\n": "1 users × 1 items, 1 pairs, ratings 3 to 3; first users u; first items a; "
    "users from User-ID; items from item; ratings from stars",
    'u,"Fox, the"\nv,\x1b[31m\n': "2 users × 2 items, 2 pairs, no ratings; first users u, v; "
    "first items '\\x1b[31m', 'Fox, the'; no header, so line 1 was read as a pair: u, 'Fox, the'",
}


@pytest.mark.parametrize("text", SAID)
def test_what_was_read_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "pairs").write_text(text)
    assert str(read_interactions(tmp_path / "pairs")) == SAID[text]


@pytest.mark.parametrize(
    ("header", "rated"),
    [
        ("user_id:token\titem_id:token", False),
        ("timestamp:float\titem_id:token\tuser_id:token", False),
        ("user_id:token\trating:float\titem_id:token", True),
        ('"userId"\t"movieId"', False),
    ],
)
def test_types_and_quotes_in_a_header_are_no_part_of_its_names(tmp_path: Path, header: str, rated: bool) -> None:
    cells = {"user": "u", "movie": "a", "item": "a"}
    row = [next((v for k, v in cells.items() if k in name.lower()), "3") for name in header.split("\t")]
    (tmp_path / "pairs").write_text(f"{header}\n" + "\t".join(row) + "\n")
    found = read_interactions(tmp_path / "pairs")
    assert (found.users, found.items.names, found.has_ratings) == (["u"], ["a"], rated)


def test_a_column_of_sequences_is_no_column_of_items(tmp_path: Path) -> None:
    (tmp_path / "pairs").write_text("user_id:token\titem_id:token_seq\nu\ta b\n")
    with pytest.raises(DataError, match="line 1: expected a header that names them"):
        read_interactions(tmp_path / "pairs")


def test_lists_that_look_like_rows_are_doubted(tmp_path: Path) -> None:
    path = tmp_path / "pairs"
    path.write_text("1 2 5\n1 3 4\n2 2 4\n2 4 4\n")
    assert "(all of 3 fields: if the third is a rating, put tabs or commas" in str(look(path))
    path.write_text("1 2 5\n2 3 4\n3 2 4\n4 4 4\n")
    assert str(look(path)) == "lists, that of line 1 for the user 1"


def test_columns_of_parquet(tmp_path: Path) -> None:
    polars.DataFrame({"day": [1], "userId": ["u"], "asin": ["a"]}).write_parquet(tmp_path / "pairs")
    layout = look(tmp_path / "pairs")
    assert (layout.columns, str(layout)) == ("day, userId, asin", "users from userId; items from asin")
