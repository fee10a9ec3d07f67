"""Tests of word vectors: pairs of words that people judged, and analogies."""

import math
from collections.abc import Iterator

from widehead.data.files import FilePath, named, open_text, shortened
from widehead.errors import DataError


def read_word_pairs(path: FilePath) -> list[tuple[str, str, float]]:
    """Pairs of words, and how near people judged them: ``word word number`` a line, as WordSim-353, SimLex and MEN.

    Fields stand between spaces or tabs. Blank lines and those that start with # are left out.

    Raises:
        DataError: the file cannot be read, a line is something else (names it), or there are fewer than two pairs.
    """
    pairs = []
    for number, line in _lines(path):
        fields = line.split()
        if len(fields) != 3 or (judged := _number(fields[2])) is None:
            raise DataError(f"{path}, line {number}: expected 'word word number'. Found {shortened(line)}.")
        pairs.append((fields[0], fields[1], judged))
    if len(pairs) < 2:
        raise DataError(f"{named(path)}: expected at least two pairs of words. Found {len(pairs)}.")
    return pairs


def read_analogies(path: FilePath) -> dict[str, list[tuple[str, str, str, str]]]:
    """Analogies by section, in the format of word2vec's questions-words.txt.

    A line ``: name`` begins a section; all others are four words ``a b c d``, of which d is to c as b is to a. Those
    before the first section belong to one without a name. Blank lines and those that start with # are left out.

    Raises:
        DataError: the file cannot be read, a line is something else (names it), or there is no analogy.
    """
    section = ""
    sections: dict[str, list[tuple[str, str, str, str]]] = {}
    for number, line in _lines(path):
        if line.startswith(":"):
            section = line[1:].strip()
            continue
        fields = line.split()
        if len(fields) != 4:
            raise DataError(f"{path}, line {number}: expected four words or ': section'. Found {shortened(line)}.")
        a, b, c, d = fields
        sections.setdefault(section, []).append((a, b, c, d))
    if not sections:
        raise DataError(f"{named(path)}: expected analogies, four words a line. Found none.")
    return sections


def _lines(path: FilePath) -> Iterator[tuple[int, str]]:
    """Numbers from 1 and lines that are neither blank nor a comment, without white space around them."""
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            if (text := line.strip()) and not text.startswith("#"):
                yield number, text


def _number(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None
