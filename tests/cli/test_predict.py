"""What `predict` answers: each line of the input, nothing to what nothing is known of, names as they are."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from support.cli_runs import FILES, Called, call

from widehead.cli import main
from widehead.cli.console import printable, say

Trained = dict[str, tuple[Path, Called]]

# For each job, lines of which something and lines of which nothing is known, and the names in the answer.
UNKNOWN: dict[str, tuple[list[str], list[str], list[bool]]] = {
    "recommender": (["ann i0 i1", "bob x y", "dan x i2"], ["ann", "bob", "dan"], [True, False, True]),
    "language-model": (
        ["w1 w2", "", "!!!", "zzz yyy", "zzz w1", '<doc id="1">', "w1 zzz", "  "],
        ["w1 w2", "", "", "zzz yyy", "zzz w1", "", "w1 zzz", ""],
        [True, False, False, False, True, False, True, False],
    ),
    "word-embeddings": (
        ["w1 w2", "", "!!!", "zzz", "zzz w1", "w1 zzz"],
        ["w1 w2", "", "", "zzz", "zzz w1", "w1 zzz"],
        [True, False, False, False, True, False],
    ),
    "multilabel": (
        ["t3x1", "zzz", "", "L1\tzzz", "L1\tt3x1 zzz"],
        ["1", "2", "3", "4", "5"],
        [True, False, False, False, True],
    ),
    "next-item": (
        ["i3 i4", "zzz", "", "i3 zzz", "  "],
        ["i3 i4", "zzz", "", "i3 zzz", ""],
        [True, False, False, True, False],
    ),
}


@pytest.mark.parametrize("job", FILES)
@pytest.mark.parametrize("last", ["", "\n"])
def test_what_nothing_is_known_of_has_no_classes_and_is_counted(
    job: str, last: str, trained: Trained, tmp_path: Path
) -> None:
    lines, names, known = UNKNOWN[job]
    (tmp_path / "in.txt").write_text("\n".join(lines) + last)
    ask = ["predict", trained[job][0] / "run", tmp_path / "in.txt", "--top", "2"]
    called = call(*ask, "--json")
    answers = json.loads(called.out)["predictions"]
    assert [answer["name"] for answer in answers] == names
    assert [len(answer["classes"]) for answer in answers] == [2 * is_known for is_known in known]
    assert [len(answer["scores"]) for answer in answers] == [2 * is_known for is_known in known]
    count = f"widehead: {known.count(False)} of {len(known)} inputs have no classes: "
    assert called.err.startswith(count)
    assert called.err.count("\n") == 1
    for_people = call(*ask)
    assert for_people.err == called.err
    assert for_people.out == "".join(f"{answer['name']}: {', '.join(answer['classes'])}\n" for answer in answers)
    assert (called.code, for_people.code) == (0, 0)


# -- names ------------------------------------------------------------------------------------------------------------

NAMES = [
    *("می\u200cخواهم", "ක්\u200dෂ", "a\u00a0b", "天\u3000地", "co\u00adop", "\ue000"),
    *("\ufeffx", "👩\u200d🚀", "e\u0301", "\U000e0041", "\u200b"),
]
CONTROLS = ["\x1b[31m", "\x07", "\x7f", "\x85", "\x9b0m", "\u2028", "\u202e", "\u2066x\u2069", "\u200f", "\u061c"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("name", NAMES)
def test_names_are_printed_as_they_are(name: str) -> None:
    assert printable(name) == name


@pytest.mark.parametrize("name", CONTROLS)
def test_only_a_terminal_is_kept_from_control_characters(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, kept in ((Terminal(), False), (io.StringIO(), True)):
        monkeypatch.setattr(sys, "stderr", stream)
        say(f"<{name}>")
        assert (f"<{name}>\n" == stream.getvalue()) == kept
        assert ("\ufffd" in stream.getvalue()) != kept


@pytest.fixture(scope="module")
def of_names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of items with such names, and a file to ask for all but the first."""
    folder = tmp_path_factory.mktemp("names")
    lines = [f"u{i}\t{item}" for i in range(40) for item in ITEMS[i % 4 : i % 4 + 5]]
    (folder / "train.tsv").write_text("\n".join(["user\titem", *lines]), encoding="utf-8")
    (folder / "in.tsv").write_text(f"user\titem\n{USER}\t{ITEMS[0]}\n", encoding="utf-8")
    sizes = ["--width", "4", "--epochs", "1", "--head", "full", "--at", "2"]
    assert call("train", "recommender", folder / "train.tsv", "--out", folder / "run", "--quiet", *sizes).code == 0
    return folder


ITEMS = [*NAMES[:6], "x\x1b[31m", "y\u202e"]
USER = "می\u200cخواهم\x1b"


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_predict_names_items_and_users_as_they_are(
    stream: type[io.StringIO], of_names: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = stream()
    monkeypatch.setattr(sys, "stdout", out)
    with pytest.raises(SystemExit):
        main(["predict", str(of_names / "run"), str(of_names / "in.tsv"), "--top", "7"])
    name, _, classes = out.getvalue().removesuffix("\n").partition(": ")
    shown = printable if stream is Terminal else str
    assert name == shown(USER)
    assert set(classes.split(", ")) == {shown(item) for item in ITEMS[1:]}
