"""Formats of other programs and other separators, told by the first lines: refused with what to do, or read."""

from __future__ import annotations

from pathlib import Path

import pytest

from widehead.data import read_interactions, read_multilabel
from widehead.data.files import first_lines
from widehead.data.foreign import refuse_foreign
from widehead.errors import DataError

FOREIGN = {
    '{"user": "u", "item": 3}\n{"user": "v", "item": 4}\n': "JSON",
    "{'reviewerID': 'u', 'asin': '3'}\n": "JSON",
    "[\n {\n": "JSON",
    '["u", "a"]\n["v", "b"]\n': "JSON",
    "%%MatrixMarket matrix coordinate real general\n3 3 2\n1 1 5\n": "MatrixMarket",
    "1 3:0.5 7:1\n0 1:1 9:2\n": "libsvm",
    "0,2 3:0.5 7:1\n1 1:1\n": "libsvm",
    "# Directed graph\n# FromNodeId\tToNodeId\n0\t1\n": "a comment",
    "% bip weighted\n1 2 5 1234567\n": "a comment",
    "version https://git-lfs.github.com/spec/v1\noid sha256:ab\n": "Git LFS",
    "{\\rtf1\\ansi u a}\n": "an RTF document",
    "<!DOCTYPE html>\n<html>\n": "a web page",
    '<?xml version="1.0"?>\n<a b="c d"/>\n': "a web page or XML",
    "<http://x/u> <http://x/took> <http://x/i> .\n": "RDF",
    "@relation pairs\n@data\n1,2\n": "ARFF",
    "INSERT INTO pairs VALUES (1, 2);\n": "SQL",
    "- user: 1\n  item: 2\n": "YAML",
    "user item rating\n7 12 5\n": "a header with spaces",
}
SEPARATED = {
    "7;12;2024-05-01 09:00\n8;13;2024-05-02 10:00\n": ";",
    "7|12|2024-05-01 09:00\n": "|",
    "7::The Fox::4\n8::The Hen, and a cow::3\n": "::",
    "7;12;4,5\n8;12;3,5\n": ";",
    "Ann Lee;12;4\nBob;13;5\nEve Hart;1;2\n": ";",
    "user;item;when\n7;12;May 1\n8;1;May 2\n": ";",
    "Ann Lee|12\nBob|13\nEve|14\n": "|",
    "7;12\n8;13\n": ";",
}
READ = {
    "u a|1 a|2\nv a|2 a|4\nw a|1 a|4\n": 6,  # names of items that hold a bar
    "auth0|a,x\nauth0|b,y\n": 2,
    "user,item\na;b;c,x y\nd;e;f,z\n": 2,
    "ann 3:16 1:1\nbob 4:2\n": 3,
    "[deleted] a b\nu c\n": 3,
    "<b> a b\n": 2,
    "#tag a\n@name b\n-x c\n": 3,
}


def refusal(folder: Path, text: str) -> str:
    (folder / "pairs").write_text(text)
    with pytest.raises(DataError) as caught:
        read_interactions(folder / "pairs")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("text", FOREIGN)
def test_formats_of_other_programs_are_named(tmp_path: Path, text: str) -> None:
    message = refusal(tmp_path, text)
    assert ", line 1: expected 'user item item …' lines, or a table" in message
    assert FOREIGN[text] in message.partition("Found ")[2]


@pytest.mark.parametrize("text", SEPARATED)
def test_other_separators_are_named(tmp_path: Path, text: str) -> None:
    assert f"Found '{SEPARATED[text]}' between the columns; put tabs there." in refusal(tmp_path, text)


@pytest.mark.parametrize("text", READ)
def test_names_of_odd_looks_are_names(tmp_path: Path, text: str) -> None:
    (tmp_path / "pairs").write_text(text)
    assert read_interactions(tmp_path / "pairs").matrix.nnz == READ[text]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"labels": ["a"], "text": "b"}\n', "JSON"),
        ("1,3 5:0.1 7:0.2\n2 1:1 4:1\n", "libsvm"),
        ("1\t5:0.1 7:0.2\n2\t1:1 4:1\n", "libsvm"),
        ("%%MatrixMarket matrix\n", "MatrixMarket"),
    ],
)
def test_documents_of_other_formats_are_named(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "documents").write_text(text)
    with pytest.raises(DataError, match=f"line 1: expected the header .*Found .*{what}"):
        read_multilabel(tmp_path / "documents")


def test_plain_text_may_begin_like_anything_but_data(tmp_path: Path) -> None:
    path = tmp_path / "text"
    for text in ("# A title\nwords\n", "[1] a note\n", "<html>\n", "-- a dash\n", "{\nint x;\n}\n", "1 2:3 4:5\n"):
        path.write_text(text)
        refuse_foreign(path, first_lines(path), "plain text", text=True)
    for text in ('{"text": "a"}\n{"text": "b"}\n', "%%MatrixMarket matrix\n", "{\\rtf1\n"):
        path.write_text(text)
        with pytest.raises(DataError, match=r"line 1: expected plain text. Found"):
            refuse_foreign(path, first_lines(path), "plain text", text=True)
