"""How often words stand near one another, and what that says about them: the matrix behind word embeddings.

Letters: n words of the text, D words of the vocabulary, X (D, D) counts, m examples.
"""

from collections.abc import Collection

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from widehead.data.sparse import CSR
from widehead.data.words import check_ids
from widehead.progress import Work
from widehead.split import Share
from widehead.targets import SparseTargets

_CHUNK = 1 << 22  # numbers that are added up together
_PAIRS = 1 << 20  # of words, that are counted at a time


def cooccurrences(
    ids: np.ndarray,
    num_words: int,
    window: int,
    *,
    end: int | None = None,
    without: Collection[int] = (),
    share: Share | None = None,
) -> CSR:
    """(D, D) float32, symmetric: how often two words stand at most ``window`` words apart; at a distance of k, 1/k.

    The weights 1/k are those of GloVe (Pennington, Socher, Manning 2014, section 4.2).

    Args:
        ids: (n,) word ids of the text.
        num_words: D.
        window: largest distance, at least 1.
        end: word id that ends a sentence: windows do not reach beyond it. None: the text is one sentence.
        without: word ids that are left out before distances are taken, such as that of unknown words.
        share: of the words, whose rows alone are made, (D_r, D); None for all.

    Raises:
        ValueError: ids are not an (n,) array of integers in [0, D), or ``window`` is below 1.
    """
    if window < 1:
        raise ValueError(f"Parameter `window` should be at least 1. Found {window}.")
    words, sentences = _in_sentences(ids, num_words, end, without)
    before = after = _near(words[:0], words[:0], num_words, share)
    work = Work("counting words near one another", window)
    for k in range(1, window + 1):
        inside = sentences[k:] == sentences[:-k]
        first, second, weight = words[:-k][inside], words[k:][inside], np.float32(1.0 / k)
        # Equal pairs are summed here, distance by distance: all pairs of the text at once would not fit in memory.
        after = after + _near(first, second, num_words, share) * weight
        if share is not None:
            before = before + _near(second, first, num_words, share) * weight
        work.at(k)
    return (after + (after.T if share is None else before)).tocsr()


def following(ids: np.ndarray, num_words: int, *, end: int | None = None, without: Collection[int] = ()) -> CSR:
    """(D, D) float32: how often the word of the column stands right after that of the row.

    Arguments and errors are those of `cooccurrences`.
    """
    words, sentences = _in_sentences(ids, num_words, end, without)
    first = np.flatnonzero(sentences[1:] == sentences[:-1])
    found = _near(words[:0], words[:0], num_words, None)
    work = Work("counting words right beside one another", len(first))
    for start in range(0, len(first), _PAIRS):
        some = first[start : start + _PAIRS]
        found = found + _near(words[some], words[some + 1], num_words, None)
        work.add(len(some))
    return found


def _in_sentences(
    ids: np.ndarray, num_words: int, end: int | None, without: Collection[int]
) -> tuple[np.ndarray, np.ndarray]:
    """The words of a text that count, and the number of the sentence of each; see `cooccurrences`."""
    check_ids(ids)
    if len(ids) and not (ids.min() >= 0 and ids.max() < num_words):
        raise ValueError(f"Parameter `ids` should be in [0, {num_words}). Found {ids.min()} and {ids.max()}.")
    kept = ~np.isin(ids, [*without, *([] if end is None else [end])])
    sentences = np.zeros(len(ids), dtype=np.int32) if end is None else np.cumsum(ids == end, dtype=np.int32)
    return ids[kept], sentences[kept]


def _near(words: np.ndarray, others: np.ndarray, num_words: int, share: Share | None) -> CSR:
    """(D, D) float32 how often each of ``others`` stands with one of ``words``; of a share the rows of its words."""
    shape = (num_words, num_words)
    if share is not None:
        held = share.holds(words)
        words, others, shape = words[held] // share.size, others[held], (share.count(num_words), num_words)
    return scipy.sparse.coo_matrix((np.ones(len(words), dtype=np.float32), (words, others)), shape=shape).tocsr()


def information(counts: CSR, smoothing: float = 0.75, share: Share | None = None, *, discounted: bool = False) -> CSR:
    """(D, D) float32: pointwise mutual information of words and contexts, or 0 if that is negative.

    log X_ij − log Σ_j X_ij − log p_j with p_j ∝ (Σ_i X_ij)^smoothing, as in Levy, Goldberg and Dagan 2015,
    "Improving distributional similarity with lessons learned from word embeddings" (sections 3.1 and 3.2).

    Args:
        counts: (D, D) X, not negative.
        smoothing: power of the contexts' counts; below 1 it makes rare contexts count for less.
        share: of the rows, if ``counts`` has its rows alone; all processes call it then.
        discounted: whether it is multiplied by X_ij/(X_ij + 1), as pairs that were met once or twice tell little
            (Pantel and Lin 2002, "Discovering word senses from text", section 3).
    """
    found = counts.tocsr().astype(np.float32)
    found.eliminate_zeros()
    rows = np.asarray(found.sum(axis=1), dtype=np.float64).ravel()
    sums = _column_sums(found)
    columns = (sums if share is None else share.total(sums)) ** smoothing
    columns /= max(columns.sum(), 1e-300)
    of_row = np.log(np.maximum(rows, 1e-300)).astype(np.float32)
    of_column = np.log(np.maximum(columns, 1e-300)).astype(np.float32)
    weights = found.data / (found.data + 1.0) if discounted else np.float32(1.0)
    np.log(found.data, out=found.data)
    found.data -= np.repeat(of_row, np.diff(found.indptr))
    found.data -= of_column[found.indices]
    np.maximum(found.data, 0.0, out=found.data)
    found.data *= weights
    found.eliminate_zeros()
    return found


def sided_information(after: CSR, smoothing: float = 0.75) -> CSR:
    """(2D, D) float32: of each word (column) with the words right before it, then with those right after it (rows).

    That is `information`, discounted, of which each side has its own sums.

    Args:
        after: (D, D) counts, as `following` makes them. smoothing: see `information`.
    """
    sides = (after.T.tocsr(), after)  # rows are words here, columns their contexts
    made = [information(counts, smoothing, discounted=True).T for counts in sides]
    return scipy.sparse.vstack(made).tocsr()


def _column_sums(matrix: CSR) -> np.ndarray:
    """(D,) float64, in which sums of such numbers have no rounding that would depend on who adds what up."""
    total = np.zeros(matrix.shape[1])
    for start in range(0, matrix.nnz, _CHUNK):
        some = slice(start, start + _CHUNK)
        total += np.bincount(matrix.indices[some], matrix.data[some], minlength=len(total))
    return total


class CooccurrenceExamples:
    """A word in, all its contexts out: inputs (m, 1) int64; the targets are a row of a matrix with its values.

    The inputs are the ids of the D words and, if words right beside them are told apart, D + i for "right after word
    i" and 2D + i for "right before word i", whose targets are the words that stand there.

    Args:
        near: (D, D) scipy sparse matrix; row i has the contexts of word i.
        sided: (2D, D), what stands right after and right before each word, as `sided_information` has it; or None.
        share: of the words, whose rows ``near`` has alone and whose rows of ``sided`` are examples; None for all.
    """

    def __init__(self, near: CSR, sided: CSR | None = None, share: Share | None = None) -> None:
        self.near, self.sided = near.tocsr(), sided
        size = self.near.shape[1]
        own = np.arange(size) if share is None else np.arange(size)[share.own]
        kinds = np.arange(1 if sided is None else 3)
        self._inputs = (kinds[:, None] * size + own).ravel()

    def __len__(self) -> int:
        return len(self._inputs)

    def batch(self, rows: np.ndarray) -> tuple[Tensor, SparseTargets]:
        """Inputs (m, 1) and the contexts of the examples ``rows`` (m,)."""
        inputs = torch.from_numpy(self._inputs[rows].astype(np.int64)[:, None])
        return inputs, SparseTargets.from_csr(self._targets(rows))

    def _targets(self, rows: np.ndarray) -> CSR:
        """(m, D) those of some examples."""
        count, size = self.near.shape
        if self.sided is None:
            return self.near[rows]
        order = np.argsort(rows >= count, kind="stable")  # those of words first
        words, others = np.split(rows[order], [np.count_nonzero(rows < count)])
        stacked = scipy.sparse.vstack([self.near[words], self.sided[self._inputs[others] - size]]).tocsr()
        return stacked[np.argsort(order)]
