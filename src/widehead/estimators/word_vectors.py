"""Vectors of words. Letters: D words, d width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch.nn.functional import normalize

from widehead.data import END, UNKNOWN
from widehead.data.files import is_file, shortened
from widehead.errors import DataError, check_whole
from widehead.estimators.base import Estimator
from widehead.jobs.word_embeddings import WordEmbeddings
from widehead.runs.rows import class_rows, ids_of, linear_head, nearest_classes, rows_of
from widehead.targets import SparseTargets


class WordVectors(Estimator):
    """What `widehead train language-model --task word-embeddings` learns, from sentences in memory.

    Sentences are texts, cut as the option ``tokens`` says, or lists of words, which are taken as they are. Words rarer
    than ``minimum_count``, 5 by default, have no vector. The vectors are the rows of the output layer.

    >>> sentences = ["the cat sat", "the dog sat", "a cat ran", "a dog ran"] * 20
    >>> words = WordVectors(sentences, width=3, at=(1,), subsample=1.0)
    >>> words.most_similar("cat", 1)[0][0], words["cat"].shape
    ('dog', (3,))
    """

    job = WordEmbeddings.name
    _data = ("sentences",)

    def fit(self, sentences: Any, y: Any = None) -> Self:
        """Learn the words of sentences.

        Args:
            sentences: texts, or lists of words. y: is not looked at.

        Raises:
            DataError: they are something else, or have no words. ValueError: an option does not fit.
        """
        if is_file(sentences):
            raise DataError(f"Expected a list of sentences. Found {shortened(sentences)}; give its lines.")
        self._train(sentences, {})
        return self

    @property
    def index_to_key(self) -> list[str]:
        """The D words in the order of the rows, frequent ones first; the end of a line and unknown words among them."""
        return list(self._fitted().job.class_names)

    @property
    def vectors(self) -> np.ndarray:
        """(D, d) the vectors of all words."""
        head = linear_head(self._fitted())
        return np.concatenate([rows[:, : head.in_features].cpu().numpy() for _, rows in class_rows(head)])

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and word in self._fitted().class_ids

    def __getitem__(self, words: str | Sequence[str]) -> np.ndarray:
        """(d,) the vector of a word, or (n, d) those of some; DataError if one is not known."""
        several = [words] if isinstance(words, str) else list(words)
        found: np.ndarray = self._rows(several).cpu().numpy()
        return found[0] if isinstance(words, str) else found

    def most_similar(
        self, positive: str | Sequence[str], topn: int = 10, negative: str | Sequence[str] = ()
    ) -> list[tuple[str, float]]:
        """The nearest words, and their cosines with a mean of unit vectors: of words, less that of others.

        Args:
            positive, negative: one word, or more.
            topn: how many words.

        Raises:
            DataError: a word is not known; says which are like it. ValueError: there is no word, or topn is below 1.
        """
        check_whole("topn", topn)
        plus, minus = ([words] if isinstance(words, str) else list(words) for words in (positive, negative))
        if not plus + minus:
            raise ValueError("Expected at least one word. Found none.")
        unit, known = normalize(self._rows(plus + minus)), self._fitted().job.class_names
        query = unit[: len(plus)].sum(0, keepdim=True) - unit[len(plus) :].sum(0, keepdim=True)
        left_out = ids_of(list({*plus, *minus, END, UNKNOWN}), self._fitted().class_ids)
        exclude = SparseTargets.from_lists([left_out.tolist()])
        best, scores = nearest_classes(linear_head(self._fitted()), query, topn, exclude)
        return [(known[i], score) for i, score in zip(best[0].tolist(), scores[0].tolist(), strict=True)]

    def analogy(self, a: str, b: str, c: str, topn: int = 10) -> list[tuple[str, float]]:
        """The words that are to c as b is to a: `most_similar` to b and c, less a. Raises as that does."""
        return self.most_similar([b, c], topn, [a])

    def similarity(self, a: str, b: str) -> float:
        """The cosine of two words; DataError if one is not known."""
        one, two = normalize(self._rows([a, b]))
        return float(one @ two)

    def _rows(self, words: Sequence[str]) -> torch.Tensor:
        """(n, d) the vectors of some words; DataError if one is not known."""
        return rows_of(linear_head(self._fitted()), ids_of(words, self._fitted().class_ids, "words"))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array, tags.input_tags.sparse = True, False, False
        return tags
