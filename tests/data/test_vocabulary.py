"""Names and ids: order, unknown names, files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from widehead.data import Vocabulary
from widehead.data.vocabulary import name_order
from widehead.errors import DataError


def test_names_and_ids() -> None:
    names = Vocabulary(["b", "a", "c"])
    assert [names.id(name) for name in names] == [0, 1, 2]
    assert names[1] == "a"
    assert "c" in names
    assert "d" not in names
    assert names.ids(["c", "d", "b"]).tolist() == [2, -1, 0]
    assert names.unknown_id == -1
    with pytest.raises(KeyError):
        names.id("d")


def test_the_unknown_name_stands_for_all_others() -> None:
    names = Vocabulary(["a", "<unk>"], unknown="<unk>")
    assert names.id("x") == names.unknown_id == 1
    assert names.ids(["x", "a", "<unk>"]).tolist() == [1, 0, 1]


def test_repeated_names_and_a_missing_unknown_are_refused() -> None:
    with pytest.raises(ValueError, match="Found 'b' as 1 and as 3"):
        Vocabulary(["a", "b", "c", "b", "a"])
    with pytest.raises(ValueError, match=r"`unknown` should be one of the names\. Found 'x'"):
        Vocabulary(["a"], unknown="x")


def test_counts_decide_the_order_then_names() -> None:
    counts = {"d": 1, "b": 5, "c": 5, "a": 2}
    assert Vocabulary.from_counts(counts).names == ["b", "c", "a", "d"]
    assert Vocabulary.from_counts(counts, minimum=2).names == ["b", "c", "a"]
    assert Vocabulary.from_counts(counts, max_size=2).names == ["b", "c"]
    assert Vocabulary.from_counts({}).names == []


def test_the_unknown_name_is_placed_by_what_it_stands_for() -> None:
    counts = {"a": 9, "b": 3, "rare": 2, "seldom": 2, "<unk>": 1}
    # 1 of its own and 4 left out: between a and b.
    assert Vocabulary.from_counts(counts, minimum=3, unknown="<unk>").names == ["a", "<unk>", "b"]
    assert Vocabulary.from_counts({"a": 2}, unknown="<unk>").names == ["a", "<unk>"]
    assert Vocabulary.from_counts(counts, max_size=2, unknown="<unk>").names == ["a", "<unk>"]


def test_kept_names_stay() -> None:
    assert Vocabulary.from_counts({"a": 2, "</s>": 1}, minimum=2, keep=["</s>", "x"]).names == ["a", "</s>", "x"]


def ordered(counts: dict[str, int]) -> list[str]:
    names = list(counts)
    return [names[i] for i in name_order(names, list(counts.values()))]


def test_the_order_of_columns() -> None:
    assert ordered({"10": 5, "2": 1, "0": 1}) == ["0", "2", "10"]
    assert ordered({"10": 5, "02": 7}) == ["02", "10"]  # a leading zero: names, by count
    assert ordered({"-1": 1, "3": 1}) == ["-1", "3"]
    assert ordered({"9" * 30: 1, "1": 2}) == ["1", "9" * 30]
    assert ordered({}) == []


@given(names=st.lists(st.text(), unique=True, min_size=1, max_size=8))
def test_any_names_survive_a_file(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "names.txt"
    vocabulary = Vocabulary(names, unknown=names[-1])
    vocabulary.save(path)
    assert path.read_bytes().count(b"\n") == len(names)
    assert Vocabulary.load(path, unknown=names[-1]) == vocabulary


def test_awkward_names_survive_a_file(tmp_path: Path) -> None:
    names = ["", "\\u0041", "a\nb", "\r", "\ufeff", "\0", "\ud800", "tab\there", " spaces "]
    Vocabulary(names).save(tmp_path / "names.txt")
    assert Vocabulary.load(tmp_path / "names.txt").names == names


def test_equality() -> None:
    assert Vocabulary(["a"]) == Vocabulary(["a"])
    assert Vocabulary(["a"]) != Vocabulary(["a"], unknown="a")
    assert Vocabulary(["a"]) != ["a"]
    assert repr(Vocabulary(["a"], unknown="a")) == "Vocabulary(1 names, unknown='a')"


def test_files_that_are_no_vocabulary(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("a\nb\na\n")
    with pytest.raises(DataError, match=r"names.txt, line 3: expected distinct names. Found 'a' again \(line 1\)"):
        Vocabulary.load(path)
    path.write_text("a\nb\n")
    with pytest.raises(DataError, match="expected the name '<unk>' among the lines"):
        Vocabulary.load(path, unknown="<unk>")
    with pytest.raises(DataError, match="there is no such file"):
        Vocabulary.load(tmp_path / "none")
