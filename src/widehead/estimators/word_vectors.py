"""Vectors of words. Letters: D words, d width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch.nn.functional import normalize

from widehead.data import END, UNKNOWN, read_analogies, read_word_pairs
from widehead.data.files import FilePath, is_file, shortened
from widehead.errors import DataError, check_whole
from widehead.estimators.base import Estimator
from widehead.jobs.word_embeddings import WordEmbeddings
from widehead.metrics import analogy_answers, rank_correlation
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

    def evaluate_word_pairs(self, path: FilePath) -> dict[str, float]:
        """Spearman's ρ of cosines with what people said of pairs of words: ``word word number`` a line.

        A word that is not known as it stands is looked up in lower case.

        Returns:
            "rank_correlation" over the pairs of which both words are known, the numbers of these "pairs", and of the
            "unknown" ones, which are left out.

        Raises:
            DataError: the file is something else, or fewer than two of its pairs are known.
        """
        pairs = read_word_pairs(path)
        known = [(self._id(a), self._id(b), judged) for a, b, judged in pairs]
        known = [pair for pair in known if None not in pair]
        if len(known) < 2:
            raise DataError(f"{path}: expected two pairs or more whose words are known. Found {len(known)}.")
        first, second, judged = (torch.tensor(column) for column in zip(*known, strict=True))
        head = linear_head(self._fitted())
        cosines = (normalize(rows_of(head, first)) * normalize(rows_of(head, second))).sum(1).cpu()
        found = rank_correlation(cosines, judged)
        return {"rank_correlation": found, "pairs": len(known), "unknown": len(pairs) - len(known)}

    def evaluate_word_analogies(self, path: FilePath) -> tuple[float, dict[str, tuple[int, int]]]:
        """The share of analogies that `analogy` answers right, over a file in the format of questions-words.txt.

        Those with a word that is not known, in lower case neither, are left out.

        Returns:
            the share of right answers, and by section how many were right and how many were asked.

        Raises:
            DataError: the file is something else, or all its analogies have a word that is not known.
        """
        sections = read_analogies(path)
        ids = [[self._id(word) for word in four] for section in sections.values() for four in section]
        asked = np.array([None not in four for four in ids])
        if not asked.any():
            raise DataError(f"{path}: expected an analogy whose words are known. Found none.")
        four = torch.tensor([row for row in ids if None not in row])
        left_out = ids_of([END, UNKNOWN], self._fitted().class_ids)
        right = np.zeros(len(ids), dtype=bool)
        vectors = torch.from_numpy(self.vectors)
        right[asked] = (analogy_answers(vectors, four[:, :3], left_out) == four[:, 3]).numpy()
        ends = np.cumsum([len(section) for section in sections.values()])[:-1]
        parts = zip(sections, np.split(right, ends), np.split(asked, ends), strict=True)
        return float(right[asked].mean()), {name: (int(r.sum()), int(n.sum())) for name, r, n in parts}

    def _id(self, word: str) -> int | None:
        """A word's id, or that of its lower case, or None."""
        known = self._fitted().class_ids
        return known.get(word, known.get(word.lower()))

    def _rows(self, words: Sequence[str]) -> torch.Tensor:
        """(n, d) the vectors of some words; DataError if one is not known."""
        return rows_of(linear_head(self._fitted()), ids_of(words, self._fitted().class_ids, "words"))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array, tags.input_tags.sparse = True, False, False
        return tags
