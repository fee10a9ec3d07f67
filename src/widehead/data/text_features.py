"""Texts to weighted bags of words (tf-idf), as scipy CSR.

Weight of word w in a text where it occurs c times: (1 + ln c) · idf(w), idf(w) = 1 + ln((1 + n) / (1 + n_w)), n texts
of which n_w hold w; each row is divided by its Euclidean norm. (Manning, Raghavan, Schütze, "Introduction to
information retrieval", section 6.4; the ones inside the logarithm keep it finite, the one outside keeps common words.)
These are the weights of scikit-learn's ``TfidfTransformer(sublinear_tf=True)``. Its ``CountVectorizer`` takes a tenth
longer, chooses features by occurrences instead of texts, and costs a second to import: our own code stays.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from widehead.data.sparse import CSR
from widehead.data.text import words_of
from widehead.data.vocabulary import Vocabulary
from widehead.split import Share

_CHUNK = 20_000


class TextFeatures:
    """The words that are features, and their idf.

    Args:
        words: names of the columns.
        idf: (N,) weight of each word.
    """

    def __init__(self, words: Vocabulary, idf: np.ndarray) -> None:
        self.words = words
        self.idf = np.asarray(idf, dtype=np.float32)
        if self.idf.shape != (len(words),) or not np.isfinite(self.idf).all():
            raise ValueError(f"Parameter `idf` should have shape ({len(words)},), finite. Found {self.idf.shape}.")

    @classmethod
    def fit(
        cls, texts: Iterable[str], *, minimum: int = 2, max_features: int = 200_000, share: Share | None = None
    ) -> tuple[TextFeatures, CSR]:
        """Choose the words from training texts, and give the features of these texts.

        Args:
            texts: m training texts, read once.
            minimum: words in fewer texts are left out (1 if that would leave none).
            max_features: at most this many words, those in the most texts.
            share: of the texts, of which alone there are features then.

        Returns:
            The words, and the (m, N) float32 features.
        """
        ids: defaultdict[str, int] = defaultdict()
        ids.default_factory = ids.__len__
        found = _counts(texts, lambda words: map(ids.__getitem__, words), lambda: len(ids), share)
        counts, in_texts = found.counts, found.in_texts
        frequency = dict(zip(ids, in_texts.tolist(), strict=True))
        words = Vocabulary.from_counts(frequency, minimum=minimum, max_size=max_features)
        if len(words) == 0:
            words = Vocabulary.from_counts(frequency, max_size=max_features)
        chosen = np.array([ids[word] for word in words], dtype=np.int64)
        idf = 1.0 + np.log((1.0 + found.texts) / (1.0 + in_texts[chosen]))
        made = cls(words, idf)
        return made, made._weighted(counts[:, chosen])

    def transform(self, texts: Iterable[str], share: Share | None = None) -> CSR:
        """(m, N) float32 features of m texts, or of those of a share; words that are no feature are left out."""
        known = self.words.as_dict
        counts = _counts(texts, lambda words: (known[w] for w in words if w in known), lambda: len(known), share)
        return self._weighted(counts.counts)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for JSON."""
        return {"words": self.words.names, "idf": self.idf.tolist()}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> TextFeatures:
        """What ``to_dict`` gave."""
        return cls(Vocabulary(saved["words"]), np.array(saved["idf"], dtype=np.float32))

    def _weighted(self, counts: CSR) -> CSR:
        weights = counts.astype(np.float32)
        weights.sort_indices()
        weights.data = (1.0 + np.log(weights.data)) * self.idf[weights.indices]
        rows = np.repeat(np.arange(weights.shape[0]), np.diff(weights.indptr))
        norms = np.sqrt(np.bincount(rows, weights=weights.data**2, minlength=weights.shape[0]))
        weights.data = (weights.data / norms[rows]).astype(np.float32)
        return weights


class _Counts(NamedTuple):
    """(m, N) how often words occur in texts, of a share or all; in how many of all ``texts`` each is, (N,)."""

    counts: CSR
    in_texts: np.ndarray
    texts: int


def _counts(
    texts: Iterable[str],
    ids_of: Callable[[list[str]], Iterable[int]],
    num_words: Callable[[], int],
    share: Share | None,
) -> _Counts:
    """How often each word occurs in each text, gathered in chunks of texts to bound the memory."""
    texts, chunks, read = iter(texts), [scipy.sparse.csr_matrix((0, 0), dtype=np.int32)], 0
    in_texts = np.zeros(0, dtype=np.int64)
    while bags := [list(ids_of(words_of(text))) for text in itertools.islice(texts, _CHUNK)]:
        ids = np.fromiter(itertools.chain.from_iterable(bags), dtype=np.int64)
        parts = (np.ones(len(ids), dtype=np.int32), ids, np.cumsum([0, *map(len, bags)]))
        chunk = scipy.sparse.csr_matrix(parts, shape=(len(bags), num_words()))
        chunk.sum_duplicates()
        before, in_texts = in_texts, np.bincount(chunk.indices, minlength=num_words())
        in_texts[: len(before)] += before
        chunks.append(chunk if share is None else chunk[np.flatnonzero(share.holds(np.arange(read, read + len(bags))))])
        read += len(bags)
    for chunk in chunks:
        chunk.resize(chunk.shape[0], num_words())
    in_texts = np.pad(in_texts, (0, num_words() - len(in_texts)))
    return _Counts(scipy.sparse.vstack(chunks, format="csr"), in_texts, read)
