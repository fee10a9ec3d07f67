"""The glossary has every letter and word once, and pages use its words and not those that it replaced."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.pages import PAGES, PROJECT, name_of

NOTATION = PROJECT / "docs" / "notation.md"
# Pages of names that stand in code, and logs of what was done when the words were others.
LOGS = {"changelog.md", "log-benchmarks.md", "log-recipes.md"}
OLD = re.compile(
    r"\b(generations?|stamp(s|ed)?|heirs?|waypoints?|bends?|bent|deflat\w+|withhold|withheld|fold(s|ed)?)\b",
    re.IGNORECASE,
)


def terms() -> list[str]:
    """The entries of the first column, those with a comma taken apart; words in brackets and uses left out."""
    lines = NOTATION.read_text(encoding="utf-8").splitlines()
    rows = [line.split("|")[1].strip() for line in lines if line.startswith("| ")][1:]
    return [part.strip() for row in rows for part in re.sub(r" \(.*\)|, …", "", row).split(", ")]


def test_every_letter_and_word_stands_once() -> None:
    found = terms()
    assert len(found) > 70
    assert sorted(found) == sorted(set(found))


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in LOGS], ids=name_of)
def test_pages_use_the_words_of_the_glossary(page: Path) -> None:
    assert [match[0] for match in OLD.finditer(page.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("drawing", sorted((PROJECT / "docs" / "figures").glob("*.svg")), ids=name_of)
def test_drawings_use_the_words_of_the_glossary(drawing: Path) -> None:
    assert [match[0] for match in OLD.finditer(drawing.read_text(encoding="utf-8"))] == []
