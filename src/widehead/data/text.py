"""Plain text as words and as one long array of word ids.

Two ways to cut a text into words:

* "words": runs of letters and digits (of any script), in lower case unless told otherwise. Lines without such a run
  count for nothing.
* "whitespace": what stands between white space, as it is: for files that are already cut, such as WikiText.
  Every line ends a sentence, the blank ones too, which gives WikiText's published numbers of tokens.

Lines that are ``<doc …>`` or ``</doc>`` markers are left out.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal, TypeAlias

import numpy as np

from widehead.data.files import FilePath, text_blocks
from widehead.data.vocabulary import Vocabulary
from widehead.errors import DataError

Tokens: TypeAlias = Literal["words", "whitespace"]

END = "</s>"
"""The word that ends a line."""

UNKNOWN = "<unk>"
"""The word that stands for all rare words."""

_MARKER = re.compile(r"^</?doc(?: [^\n]*)?>[ \r]*(?:\n|\Z)", re.MULTILINE)
_WORD = re.compile(r"[^\W_]+")
_WORD_OR_LINE_END = re.compile(r"[^\W_]+|\n")


def words_of(text: str, tokens: Tokens = "words", lowercase: bool = True) -> list[str]:
    """The words of a text, line ends being ordinary white space.

    >>> words_of("Don't panic: 42 Füße!")
    ['don', 't', 'panic', '42', 'füße']
    """
    _check(tokens)
    if tokens == "whitespace":
        return text.split()
    return _WORD.findall(text.lower() if lowercase else text)


def read_words(path: FilePath, tokens: Tokens = "words", lowercase: bool = True) -> Iterator[list[str]]:
    """The words of each line that has any, one list a line. Arguments and errors as for ``encode``."""
    for block in text_blocks(path):
        for line in _MARKER.sub("", block).split("\n"):
            if words := words_of(line, tokens, lowercase):
                yield words


def count_words(
    path: FilePath, tokens: Tokens = "words", lowercase: bool = True, *, sentence_ends: bool = True
) -> Counter[str]:
    """How often each word occurs; with ``sentence_ends``, the end of a line counts as the word ``</s>``.

    Arguments and errors as for ``encode``; a file without words is refused.
    """
    counts: Counter[str] = Counter()
    for words in _pieces(path, tokens, lowercase, sentence_ends):
        counts.update(words)
    if not counts.keys() - {END}:
        raise DataError(f"{path}: expected words. Found none.")
    return counts


def encode(
    path: FilePath,
    vocabulary: Vocabulary,
    tokens: Tokens = "words",
    lowercase: bool = True,
    *,
    sentence_ends: bool = True,
) -> np.ndarray:
    """A whole file as an (n,) int32 array of word ids.

    Words that the vocabulary lacks get its unknown word's id; if it has none, they are left out.

    Args:
        path: UTF-8 text, plain or compressed.
        vocabulary: of the words; with ``sentence_ends`` it should hold ``</s>``.
        tokens: "words" or "whitespace", as the module says.
        lowercase: for "words" alone; "whitespace" leaves the text as it stands.
        sentence_ends: put the id of ``</s>`` at the end of each line.

    Raises:
        DataError: the file cannot be read (names the line), or none of its words is in the vocabulary.
        ValueError: ``tokens`` is neither, or ``</s>`` is missing.
    """
    if sentence_ends and END not in vocabulary:
        raise ValueError(f"Parameter `vocabulary` should hold {END!r} if sentence_ends is true. Found no such name.")
    found = map(vocabulary.ids, _pieces(path, tokens, lowercase, sentence_ends))
    ids = [part[part >= 0].astype(np.int32) for part in found]
    encoded = np.concatenate(ids) if ids else np.empty(0, dtype=np.int32)
    if not bool((encoded != vocabulary.as_dict.get(END, -1)).any()):
        raise DataError(f"{path}: expected words of the vocabulary. Found none.")
    return encoded


def subsample(ids: np.ndarray, threshold: float, seed: int) -> np.ndarray:
    """Leave out words at random, a word of frequency f with probability 1 - √(threshold / f).

    Equation 5 of Mikolov et al. 2013, "Distributed representations of words and phrases", whose threshold is 1e-5.
    """
    if not threshold > 0.0:
        raise ValueError(f"Parameter `threshold` should be positive. Found {threshold}.")
    frequency = np.bincount(ids) / max(len(ids), 1)
    kept = np.sqrt(threshold / np.maximum(frequency, 1e-300))
    return ids[np.random.default_rng(seed).random(len(ids)) < kept[ids]]


def _pieces(path: FilePath, tokens: Tokens, lowercase: bool, sentence_ends: bool) -> Iterator[list[str]]:
    """Long lists of words, line ends among them as ``</s>`` if wanted; a list ends where a line does."""
    _check(tokens)
    for block in text_blocks(path):
        text = _MARKER.sub("", block)
        if text and not text.endswith("\n"):
            text += "\n"
        if not sentence_ends:
            yield words_of(text, tokens, lowercase)
        elif tokens == "whitespace":
            yield text.replace("\n", f" {END} ").split()
        else:
            found = _WORD_OR_LINE_END.findall(text.lower() if lowercase else text)
            yield [END if word == "\n" else word for word in _without_empty_lines(found)]


def _without_empty_lines(words: Iterable[str]) -> Iterator[str]:
    """Leave out line ends that follow a line end or nothing."""
    before = "\n"
    for word in words:
        if word != "\n" or before != "\n":
            yield word
        before = word


def _check(tokens: str) -> None:
    if tokens not in ("words", "whitespace"):
        raise ValueError(f"Parameter `tokens` should be 'words' or 'whitespace'. Found {tokens!r}.")
