"""Files of judged pairs and of analogies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from widehead.data import read_analogies, read_word_pairs
from widehead.errors import DataError


def written(folder: Path, text: str) -> Path:
    path = folder / "test.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_pairs(tmp_path: Path) -> None:
    path = written(tmp_path, "# who said so\ncar\tauto 9.5\n\n old new  1\n")
    assert read_word_pairs(path) == [("car", "auto", 9.5), ("old", "new", 1.0)]


def test_analogies(tmp_path: Path) -> None:
    path = written(tmp_path, "a b c d\n: capitals\nAthens Greece Oslo Norway\n\n: plural\ncar cars cat cats\n")
    assert read_analogies(path) == {
        "": [("a", "b", "c", "d")],
        "capitals": [("Athens", "Greece", "Oslo", "Norway")],
        "plural": [("car", "cars", "cat", "cats")],
    }


def test_a_section_that_goes_on_is_one(tmp_path: Path) -> None:
    path = written(tmp_path, ": x\na b c d\n: y\na b c e\n: x\na b c f\n")
    assert [len(section) for section in read_analogies(path).values()] == [2, 1]


@pytest.mark.parametrize(
    ("read", "text", "said"),
    [
        (read_word_pairs, "a b 1\na b\n", "line 2: expected 'word word number'. Found 'a b'"),
        (read_word_pairs, "a b c\n", "line 1: expected 'word word number'"),
        (read_word_pairs, "a b nan\n", "line 1: expected 'word word number'"),
        (read_word_pairs, "a b 1\n", "expected at least two pairs of words. Found 1"),
        (read_analogies, ": x\na b c\n", "line 2: expected four words or ': section'. Found 'a b c'"),
        (read_analogies, ": x\n", "expected analogies, four words a line. Found none"),
    ],
)
def test_files_of_something_else(tmp_path: Path, read: Callable[[Path], object], text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read(written(tmp_path, text))
