"""Users and items: formats told by the content, names, duplicates, pairs of files, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
from support.packing import PACK

from widehead.data import Interactions, Vocabulary, pair, read_interactions
from widehead.errors import DataError


def read(folder: Path, text: str | bytes, **options: Any) -> Interactions:
    path = folder / "pairs"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_interactions(path, **options)


def refusal(folder: Path, text: str | bytes) -> str:
    with pytest.raises(DataError) as caught:
        read(folder, text)
    message = str(caught.value)
    assert message.startswith(str(folder / "pairs"))
    assert "\n" not in message
    return message.removeprefix(str(folder / "pairs"))


def pairs(found: Interactions) -> dict[tuple[str, str], float]:
    coo = found.matrix.tocoo()
    return {(found.users[r], found.items[c]): float(v) for r, c, v in zip(coo.row, coo.col, coo.data, strict=True)}


ONES = {("u", "a"): 1.0, ("u", "b"): 1.0, ("v", "b"): 1.0}
RATED = {("u", "a"): 2.0, ("u", "b"): 0.0, ("v", "b"): -1.5}
SAME = {
    "lists": "u a b\nv b\n",
    "lists, user twice, an item twice": "u a\nv b b\nu b a\n",
    "lists, more spaces and lines": "\n  u  a b \n\nv b",
    "csv": "u,a\nu,b\nv,b\n",
    "csv with a header": "user,item\nu,a\nu,b\nv,b\n",
    "csv with spaces and blank lines": "\n u , a \n\n u,b\n,\nv,b\n",
    "csv with quotes": '"user_id","item_id"\n"u","a"\nu,"b"\nv,b\n',
    "csv, windows": "User-ID,Item ID\r\nu,a\r\nu,b\r\nv,b\r\n",
    "tsv": "u\ta\nu\tb\nv\tb\n",
    "tsv, other order and columns": "movieId\tday\tuserId\na\tx,y\tu\nb\t\tu\nb\tz\tv\n",
}
SAME_RATED = {
    "csv": "u,a,2\nu,b,0\nv,b,-1.5\n",
    "csv with a header": "rating,x,item,user\n2,,a,u\n0,,b,u\n-1.5,,b,v\n",
    "tsv": "u\ta\t2.0\nu\tb\t0e3\nv\tb\t-15e-1\n",
    "the last of equal pairs stands": "u,a,5\nu,b,0\nv,b,-1.5\nu,a,2\n",
}


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("kind", SAME)
def test_formats_without_ratings(tmp_path: Path, kind: str, packing: str) -> None:
    found = read(tmp_path, PACK[packing](SAME[kind].encode()))
    assert pairs(found) == ONES
    assert found.users == ["u", "v"]
    assert found.items.names == ["b", "a"]  # by frequency
    assert found.matrix.dtype == np.float32
    assert found.matrix.has_canonical_format
    assert found.unreachable.tolist() == [0, 0]


@pytest.mark.parametrize("kind", SAME_RATED)
def test_formats_with_ratings(tmp_path: Path, kind: str) -> None:
    found = read(tmp_path, SAME_RATED[kind])
    assert pairs(found) == RATED
    assert found.matrix.nnz == 3  # the rating 0 is stored


def test_spaces_never_make_ratings(tmp_path: Path) -> None:
    found = read(tmp_path, "7 12 5\n")
    assert pairs(found) == {("7", "12"): 1.0, ("7", "5"): 1.0}


def test_numbers_keep_their_order(tmp_path: Path) -> None:
    found = read(tmp_path, "u 3 0 10\nv 2 1 2 9 8 7 6 5 4\n")
    assert found.items.names == [str(i) for i in range(11)]
    assert found.matrix[0].indices.tolist() == [0, 3, 10]


def test_users_without_items_are_kept(tmp_path: Path) -> None:
    found = read(tmp_path, "u\nv a\nw\n")
    assert found.users == ["u", "v", "w"]
    assert found.matrix.shape == (3, 1)
    assert np.diff(found.matrix.indptr).tolist() == [0, 1, 0]


def test_names_may_hold_anything_a_quoted_cell_may(tmp_path: Path) -> None:
    found = read(tmp_path, 'u,"a, b"\nu,"two\nlines"\nv,"a ""quoted"" word"\n')
    assert set(found.items) == {"a, b", "two\nlines", 'a "quoted" word'}
    assert set(read(tmp_path, 'u\t"Weird Al"\nu\t"open\n').items) == {'"Weird Al"', '"open'}


def _parquet(folder: Path, **columns: Any) -> bytes:
    polars.DataFrame(columns).write_parquet(folder / "made")
    return (folder / "made").read_bytes()


def test_parquet(tmp_path: Path) -> None:
    users, items = ["u", "u", "v"], ["a", "b", "b"]
    assert pairs(read(tmp_path, _parquet(tmp_path, item=items, extra=[1, 2, 3], user=users))) == ONES
    rated = _parquet(tmp_path, user_id=users, item_id=items, rating=[2.0, 0.0, -1.5])
    assert pairs(read(tmp_path, rated)) == RATED
    numbers = read(tmp_path, _parquet(tmp_path, UserId=[5, 5], ItemId=[1, 0], Rating=[1, 4]))
    assert pairs(numbers) == {("5", "1"): 1.0, ("5", "0"): 4.0}
    kinds = polars.Series(values=items, dtype=polars.Categorical)
    assert pairs(read(tmp_path, _parquet(tmp_path, user=users, item=kinds))) == ONES


def test_parquet_refusals(tmp_path: Path) -> None:
    two = ["u", "v"]
    assert "expected columns such as user,item" in refusal(tmp_path, _parquet(tmp_path, who=two, what=two))
    assert "integers in column 'item'. Found Float64" in refusal(
        tmp_path, _parquet(tmp_path, user=two, item=[1.0, 2.0])
    )
    text = _parquet(tmp_path, user=two, item=two, rating=two)
    assert "expected numbers in column 'rating'. Found String" in refusal(tmp_path, text)
    empty_cell = _parquet(tmp_path, user=["u", None], item=two)
    assert ", row 2: expected a user, an item and its rating" in refusal(tmp_path, empty_cell)
    infinite = _parquet(tmp_path, user=two, item=two, rating=[1.0, float("inf")])
    assert ", row 2: expected a rating that is a finite number. Found inf" in refusal(tmp_path, infinite)
    whole = _parquet(tmp_path, user=two, item=two)
    assert "the Parquet data cannot be read" in refusal(tmp_path, whole[:-9])
    assert "the Parquet data cannot be read" in refusal(tmp_path, b"PAR1")
    nothing = _parquet(
        tmp_path, user=polars.Series(values=[], dtype=polars.String), item=polars.Series(values=[], dtype=polars.Int64)
    )
    assert "Found no item" in refusal(tmp_path, nothing)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "u a\nv\tb\n",
            ", line 2: expected 'user item item …' separated by spaces, as on the first line. Found a tab.",
        ),
        (
            "\nu a\nv,b\n",
            ", line 3: expected 'user item item …' separated by spaces, as on the first line. Found a comma.",
        ),
        ("u,a\nv\n", ", line 2: expected 2 columns, as in the first row. Found 1."),
        ("u,a\nv,b,3\n", ", line 2: expected 2 columns, as in the first row. Found 3."),
        ("u,a\nv,\n", ", line 2: expected a user and an item. Found an empty cell."),
        ("u\ta\n\n \tb\n", ", line 3: expected a user and an item. Found an empty cell."),
        ("u,a,1\nv,b,x\n", ", line 2: expected a rating that is a finite number. Found 'x'."),
        ("u,a,1\nv,b,\n", ", line 2: expected a rating that is a finite number. Found ''."),
        ("u,a,nan\n", ", line 1: expected a rating that is a finite number. Found 'nan'."),
        ("u,a,1e39\n", ", line 1: expected a rating that is a finite number. Found '1e39'."),
        ("u,a,-inf\n", ", line 1: expected a rating that is a finite number. Found '-inf'."),
        ("1,2,3,4\n", ", line 1: expected 2 or 3 columns (user, item[, rating]), or a header that names them"),
        ("user,thing\nu,a\n", ", line 1: expected a header that names them, such as user,item,rating"),
        ("who,what,rating\nu,a,1\n", ", line 1: expected a rating that is a finite number. Found 'rating'."),
        ('u,"a\nv,b\n', "expected separated columns. Found: unexpected end of data."),
        ('u,"a"b\n', ", line 1: expected separated columns. Found:"),
        ("u\nv\n", ": expected pairs of users and items, such as 'user item item …'"),
        ("user,item\n", ": expected pairs of users and items"),
        (",\n \n", ": expected pairs of users and items"),
        ("\n \n", ": expected pairs of users and items"),
        ("", ": the file is empty."),
        (b"u a\0\n", ", line 1: expected a text file. Found a zero byte"),
        (b"u a\nv \xff\n", ", line 2: expected UTF-8 text. Found byte 0xff"),
    ],
)
def test_refusals_name_the_line(tmp_path: Path, text: str | bytes, words: str) -> None:
    assert words in refusal(tmp_path, text)


def test_a_header_without_known_names_is_refused_where_all_the_rest_are_numbers(tmp_path: Path) -> None:
    assert ", line 1: expected" in refusal(tmp_path, "who,what\n1,2\n3,4\n")
    assert len(read(tmp_path, "x,7\n1,2\n").users) == 2


def test_given_rows_and_columns(tmp_path: Path) -> None:
    found = read(tmp_path, "v,b\nx,a\nu,z\nu,z\nu,y\nx,q\n", users=["u", "v", "w"], items=Vocabulary(["a", "b"]))
    assert pairs(found) == {("v", "b"): 1.0}
    assert found.matrix.shape == (3, 2)
    assert found.unreachable.tolist() == [2, 0, 0]  # z counts once
    assert found.unknown_users == ["x"]
    assert found.unknown_items == ["z", "y", "q"]


def test_a_pair_of_files_is_matched_by_name(tmp_path: Path) -> None:
    train = read(tmp_path, "u,a,5\nv,b,4\nw,c,3\n")
    test = read(tmp_path, "w,a,2\nu,d,1\nu,e,1\nnew,a,1\nv,b,1\n")
    matched = pair(train, test)
    assert matched.train is train
    assert pairs(matched.test) == {("w", "a"): 2.0, ("v", "b"): 1.0}
    assert matched.test.users == train.users
    assert matched.test.items == train.items
    assert matched.test.matrix.shape == train.matrix.shape
    assert matched.test.unreachable.tolist() == [2, 0, 0]
    assert matched.test.unknown_users == ["new"]
    assert matched.test.unknown_items == ["d", "e"]
    assert matched.repeated == 1
    assert "1 users (left out) and 2 items (2 pairs count as missed)" in str(matched)


def test_a_pair_counts_each_missed_item_of_a_user_once_whatever_was_known_before(tmp_path: Path) -> None:
    train = read(tmp_path, "u a b\nv c\n")
    again = read(tmp_path, "v a x y\nz a\n", users=train.users, items=train.items)
    assert pair(train, again).test.unreachable.tolist() == [0, 2]
    assert pair(train, again).test.unknown_users == ["z"]


def test_a_zero_rating_in_both_files_is_a_repeated_pair(tmp_path: Path) -> None:
    rated = read(tmp_path, "u,a,0\nu,b,1\n")
    assert pair(rated, rated).repeated == 2
