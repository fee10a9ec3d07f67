"""Plain text as words and as one long array of word ids.

Two ways to cut a text into words:

* "words": runs of letters and digits of any script, in lower case unless told otherwise, by Unicode's word boundaries
  (UAX #29) but for apostrophes and what else stands between two letters or digits: it ends a word, as `_` does.
  Marks (accents, vowel signs, points) and joiners belong to the letter before them, and what is only seen in the
  layout (soft hyphens, signs of direction) is left out. Texts that Unicode calls equal give the same words, because
  the text is composed first (NFC). Lower case has one letter for a letter: ß stays ß, İ becomes i. Chinese, Japanese,
  Thai, Lao, Khmer and Burmese put no spaces between words: what stands between two spaces, zero-width ones too, or
  punctuation marks is one word. Put spaces into such texts first. Lines without a word count for nothing.
* "whitespace": what stands between white space, as it is: for files that are already cut, such as WikiText.
  Every line ends a sentence, the blank ones too, which gives WikiText's published numbers of tokens.

Lines that are ``<doc …>`` or ``</doc>`` markers are left out.
"""

import itertools
import re
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from os import PathLike
from typing import Literal, TypeAlias
from unicodedata import category, normalize

import numpy as np

from widehead.data.files import FilePath, named, open_text, text_blocks
from widehead.data.vocabulary import Vocabulary
from widehead.errors import DataError

Tokens: TypeAlias = Literal["words", "whitespace"]
Text: TypeAlias = FilePath | Sequence[list[str]]
"""A file, or the words of each line."""

END = "</s>"
"""The word that ends a line."""

UNKNOWN = "<unk>"
"""The word that stands for all rare words."""

_MARKER = re.compile(r"^</?doc(?: [^\n]*)?>[ \r]*(?:\n|\Z)", re.MULTILINE)
_ASCII_WORD = re.compile("[A-Za-z0-9]+")
_JOINERS = "\u180e\u200c\u200d"
_ZERO_WIDTH_SPACE = "\u200b"
# Letters to Unicode (UAX #29, ALetter) but signs to Python: of tones and the like, and Hebrew's geresh.
_SIGNS = "\u02c2-\u02c5\u02d2-\u02d7\u02de\u02df\u02e5-\u02ff\u05f3\ua700-\ua721\ua789\ua78a\uab5b"
# Armenian's signs of emphasis, exclamation and question, which stand inside the word.
_INSIDE = "\u055b\u055c\u055e"
_BEYOND = "\U00010000-\U0010ffff"  # the planes of rare scripts and of emoji


def words_of(text: str, tokens: Tokens = "words", lowercase: bool = True) -> list[str]:
    """The words of a text, line ends being ordinary white space.

    >>> words_of("Don't panic: 42 Füße!")
    ['don', 't', 'panic', '42', 'füße']
    """
    if tokens not in ("words", "whitespace"):
        raise ValueError(f"Parameter `tokens` should be 'words' or 'whitespace'. Found {tokens!r}.")
    if tokens == "whitespace":
        return text.split()
    if text.isascii():
        return _ASCII_WORD.findall(text.lower() if lowercase else text)
    if "\n" in text:  # of most languages in Latin letters, many lines are ASCII
        return [word for line in text.split("\n") for word in words_of(line, tokens, lowercase)]
    special, word = _patterns()
    text = normalize("NFC", special.sub(_plain, text))
    if lowercase:
        if "Σ" in text:  # ς at the end of a word, which ``str.lower`` seeks beyond apostrophes, but not beyond spaces
            text = " ".join(word.findall(text))
        text = normalize("NFC", text.replace("İ", "i").lower())  # J̌ is two characters, and ǰ one
    return word.findall(text)


def read_words(path: FilePath, tokens: Tokens = "words", lowercase: bool = True) -> Iterator[list[str]]:
    """The words of each line, markers and lines without words as []. Arguments and errors as for ``encode``."""
    with open_text(path) as lines:
        for line in lines:
            yield words_of(_MARKER.sub("", line), tokens, lowercase)


def count_words(
    text: Text, tokens: Tokens = "words", lowercase: bool = True, *, sentence_ends: bool = True
) -> Counter[str]:
    """How often each word occurs; with ``sentence_ends``, the end of a line counts as the word ``</s>``.

    Arguments and errors as for ``encode``; a file without words is refused.
    """
    counts: Counter[str] = Counter()
    for words in _pieces(text, tokens, lowercase, sentence_ends):
        counts.update(words)
    if not counts.keys() - {END}:
        raise DataError(f"{named(text)}: expected words. Found none.")
    return counts


def encode(
    text: Text, vocabulary: Vocabulary, tokens: Tokens = "words", lowercase: bool = True, *, sentence_ends: bool = True
) -> np.ndarray:
    """A whole text as an (n,) int32 array of word ids.

    Words that the vocabulary lacks get its unknown word's id; if it has none, they are left out.

    Args:
        text: the file, UTF-8, plain or compressed; or the words of each line, which are taken as they are.
        vocabulary: of the words; with ``sentence_ends`` it should hold ``</s>``.
        tokens: "words" or "whitespace", as the module says.
        lowercase: for "words" alone; "whitespace" leaves the text as it stands.
        sentence_ends: put the id of ``</s>`` at the end of each line.

    Raises:
        DataError: the file cannot be read (names the line), or none of its words is in the vocabulary.
        ValueError: ``tokens`` is neither, or ``</s>`` is missing.
    """
    return encode_spans(text, vocabulary, [(0, sys.maxsize)], tokens, lowercase, sentence_ends=sentence_ends)[0]


def encode_spans(
    text: Text,
    vocabulary: Vocabulary,
    spans: Sequence[tuple[int, int]],
    tokens: Tokens = "words",
    lowercase: bool = True,
    *,
    sentence_ends: bool = True,
) -> list[np.ndarray]:
    """Some spans alone of what ``encode`` gives, read at once: (first, end) of words, by their places in the whole.

    Other arguments and errors as for ``encode``.
    """
    if sentence_ends and END not in vocabulary:
        raise ValueError(f"Parameter `vocabulary` should hold {END!r} if sentence_ends is true. Found no such name.")
    kept = [array("i") for _ in spans]  # which grow in place
    end_id, begin, is_there = vocabulary.as_dict.get(END, -1), 0, False
    for part in map(vocabulary.ids, _pieces(text, tokens, lowercase, sentence_ends)):
        ids = part[part >= 0].astype(np.int32)
        is_there = is_there or bool((ids != end_id).any())
        for of_span, (first, end) in zip(kept, spans, strict=True):
            of_span.frombytes(ids[max(first - begin, 0) : max(end - begin, 0)].tobytes())
        begin += len(ids)
    if not is_there:
        raise DataError(f"{named(text)}: expected words of the vocabulary. Found none.")
    return [np.asarray(of_span, dtype=np.int32) for of_span in kept]


def subsample(ids: np.ndarray, threshold: float, seed: int) -> np.ndarray:
    """Leave out words at random, a word of frequency f with probability 1 - √(threshold / f).

    Equation 5 of Mikolov et al. 2013, "Distributed representations of words and phrases", whose threshold is 1e-5.
    """
    if not threshold > 0.0:
        raise ValueError(f"Parameter `threshold` should be positive. Found {threshold}.")
    frequency = np.bincount(ids) / max(len(ids), 1)
    kept = np.sqrt(threshold / np.maximum(frequency, 1e-300))
    return ids[np.random.default_rng(seed).random(len(ids)) < kept[ids]]


def _pieces(text: Text, tokens: Tokens, lowercase: bool, sentence_ends: bool) -> Iterator[list[str]]:
    """Long lists of words, line ends among them as ``</s>`` if wanted; a list ends where a line does."""
    for lines in _line_blocks(text, tokens, lowercase) if isinstance(text, str | PathLike) else [text]:
        piece: list[str] = []
        for words in lines:
            piece += words
            if sentence_ends and (words or tokens == "whitespace"):
                piece.append(END)
        yield piece


def _line_blocks(path: FilePath, tokens: Tokens, lowercase: bool) -> Iterator[Iterator[list[str]]]:
    """The words of each line, a block of the file at a time."""
    for block in text_blocks(path):
        lines = _MARKER.sub("", block).split("\n")
        if not lines[-1]:
            lines.pop()
        yield (words_of(line, tokens, lowercase) for line in lines)


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What `_plain` sees to, and what is a word of the text that it leaves, by the Unicode that this Python knows.

    The characters of the common plane are listed, which is twice as fast as asking for each whether it is a letter.
    """
    common = {chr(code): category(chr(code)) for code in range(0x80, 0x10000)}
    signs = _ranges(c for c, kind in common.items() if kind == "Cf" and c not in _JOINERS + _ZERO_WIDTH_SPACE)
    letters = "0-9A-Za-z" + _ranges(filter(str.isalnum, common))
    marks = _ranges(c for c, kind in common.items() if kind[0] == "M")
    word = rf"[{letters}\w][{letters}{marks}{_JOINERS}{_SIGNS}{_BEYOND}]*"
    return re.compile(f"[_{signs}{_INSIDE}{_BEYOND}]"), re.compile(word)


def _plain(found: re.Match[str]) -> str:
    """Nothing for what is only seen in the layout; letters and marks as they are; a space for the rest."""
    character = found[0]
    if category(character) == "Cf" or character in _INSIDE:
        return ""
    return character if character.isalnum() or category(character)[0] == "M" else " "


def _ranges(characters: Iterable[str]) -> str:
    """Ascending characters as they stand in brackets of a regular expression; none of them is ASCII."""
    runs = itertools.groupby(enumerate(map(ord, characters)), key=lambda place: place[1] - place[0])
    ends = [(codes[0][1], codes[-1][1]) for codes in (list(run) for _, run in runs)]
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ends)
