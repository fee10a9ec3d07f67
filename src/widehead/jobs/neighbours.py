"""Labels of the nearest training documents, and linear classifiers and trees of labels, beside a network.

A network says what d numbers of a document say; a rare word that names a label has no way through them. The training
documents that share that word have one, and so have classifiers on all features. The first labels of the network and
all labels of the nearest documents are ranked anew, label j by
log(o_j + w·v_j + ε) − λ·max(0, 1 − s_j)² + τ·t_j + β·r_j: o_j is its score above that of the last of the network's
first labels (at least 0), v_j the share of the nearest documents that have it, each weighted by the third power of its
cosine, s_j the margin of its classifier, t_j what trees of labels say (models/label_trees.py), and r_j the logarithm of
its inverse propensity (metrics/propensity.py), which is larger for rare labels. The data decide about w, λ, τ and β, or
about weights of all but the last (race.py), on documents that the network was not trained on.

What a feature counts in cosines and margins is for the data to decide as well: its value divided by a power of its
rarity 1 + log((1 + n) / (1 + documents that have it)), which is the factor of tf-idf. With 0 it is as it was given,
with 1 tf-idf is undone: where frequent features say more than rare ones, that is far better.

Letters: m documents to answer, n training documents, N features, D labels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from widehead.data import RowExamples
from widehead.data.sparse import CSR, rows_of_entries
from widehead.jobs.candidates import FIRST, NONE, Candidates, Choice, best_of_rows
from widehead.jobs.race import Race
from widehead.metrics import Evaluation, Propensities
from widehead.models.classifiers import LinearClassifiers
from widehead.models.label_trees import LabelTrees
from widehead.progress import Work
from widehead.targets import SparseTargets

FEWEST = 1_000
"""Training documents below which neighbours are left alone: too few to choose by."""

_HELD, _MOST_HELD = 0.05, 2_000  # documents to choose by
_COMMON = 0.01  # part of the documents above which a feature costs too much, at least ``_FREE`` documents
_FREE = 1_000
_MEETINGS = 4_000  # documents that share a feature with one, counted for each feature: so many are not too many
_POWER = 3.0  # of a cosine
_LEAST = 1e-3  # ε in spreads of the network's scores
_WEIGHTS = (0.0, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)  # of votes, in the same
_MARGINS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
# What trees count, if anything, and the same of the rest beside them: fewer, as there are more combinations.
_TREES = (0.5, 1.5, 3.0, 8.0, 16.0), (0.0, 0.5, 2.0, 8.0, 32.0), (0.0, 0.5, 1.5, 3.0, 8.0, 16.0)
_BLOCK, _COSINES = 500, 1 << 22  # documents whose neighbours are looked up at a time, and cosines, at most
_POWERS = (0.0, -1.0, -0.5, 0.5, 1.0)  # of rarity
_TRIED, _WORTH = 1_000, 0.05  # documents to choose a power by, at most; of the metrics that it must gain
_PAIRS = 50_000_000  # of a document and a label that it is told apart from, at most


def held_out(count: int, seed: int) -> np.ndarray:
    """Rising rows of the documents to choose by, of so many: none of few."""
    held = min(int(_HELD * count), _MOST_HELD) if count >= FEWEST else 0
    return np.sort(np.random.default_rng([seed, count]).permutation(count)[:held])


class Neighbours:
    """The training documents that are nearest to others, and their labels.

    Args:
        features: (n, N) scipy CSR. labels: (n, D) scipy CSR of ones.
        count: how many neighbours vote.
        choice: what votes and margins count, and by what power of their rarity features are divided.
        probabilities: whether the network's scores are logarithms of probabilities but for a constant.
        classifiers: of the labels, in the order of ``labels``; without them margins count nothing.
        trees: of the labels likewise.
    """

    def __init__(
        self,
        features: CSR,
        labels: CSR,
        count: int,
        *,
        choice: Choice = NONE,
        probabilities: bool = False,
        classifiers: LinearClassifiers | None = None,
        trees: LabelTrees | None = None,
    ) -> None:
        self.labels, self.count = labels, count
        self.choice, self.probabilities = choice, probabilities
        in_documents = np.bincount(features.indices[features.data != 0.0], minlength=features.shape[1])
        rarity = 1.0 + np.log((1.0 + features.shape[0]) / (1.0 + in_documents))
        self._counts = rarity**-choice.power if choice.power else None
        self._known = self._weighted(features)
        met = in_documents.astype(np.float64) ** 2 / max(self._known.shape[0], 1)
        rare = in_documents <= max(_FREE, _COMMON * self._known.shape[0])
        if met.sum() <= _MEETINGS:  # left out for their cost alone: the most frequent may say most
            rare[:] = True
        meetings = met[rare].sum()
        self._block = int(min(_BLOCK, max(1.0, _COSINES / max(meetings, 1.0))))
        self._documents = (scipy.sparse.diags_array(rare.astype(np.float32)) @ self._known.T.tocsr()).tocsr()
        self._documents.eliminate_zeros()
        self.classifiers, self.trees = classifiers, trees
        counts = torch.from_numpy(np.bincount(labels.indices, minlength=labels.shape[1]))
        self._rareness = Propensities.from_counts(counts, labels.shape[0]).inverse.log().numpy()

    def _weighted(self, features: CSR) -> CSR:
        """Rows of length 1 of what features count, float32; rows of zeros stay."""
        return _unit(features if self._counts is None else features @ scipy.sparse.diags_array(self._counts))

    def voted(self, some: np.ndarray) -> CSR:
        """(m, D) int8 ones: labels that the others nearest to ``some`` (m,) of the documents vote for.

        They are 200 of each document at most, fewer if documents are many.
        """
        most, work, found = max(1, min(FIRST, _PAIRS // self._known.shape[0])), Work("nearest documents", len(some)), []
        for start in range(0, len(some), self._block):
            block = some[start : start + self._block]
            votes = self.votes(self._nearest(self._known[block], block))
            found.append(largest(votes, most).astype(bool).astype(np.int8))  # small, as all are kept
            work.add(len(block))
        return scipy.sparse.vstack(found, format="csr")

    def learn(self, voted: CSR) -> LinearClassifiers:
        """Classifiers that tell each document's labels from those that are ``voted`` (n, D) for beside it."""
        self.classifiers = LinearClassifiers.of(self._known, self.labels, voted)
        return self.classifiers

    def grow(self, count: int) -> LabelTrees:
        """So many trees of the labels."""
        self.trees = LabelTrees.of(self._known, self.labels, count)
        return self.trees

    def judged(self, some: np.ndarray, names: list[str], propensities: Propensities) -> dict[str, float]:
        """Metrics of votes alone, of some training documents (by their numbers) by the others."""
        evaluation = Evaluation(names, propensities)
        relevant = RowExamples(self._known, self.labels)
        for block in np.array_split(some, -(-len(some) // self._block)):
            votes = self.votes(self._nearest(self._known[block], block))
            _, ranked = best_of_rows(rows_of_entries(votes), votes.indices, votes.data, len(block), evaluation.depth)
            evaluation.add_ranked(torch.from_numpy(ranked), relevant.batch(block)[1])
        return evaluation.result()

    def _nearest(self, features: CSR, themselves: np.ndarray | None = None) -> CSR:
        """(m, n) cosines of the ``count`` nearest to rows of length 1, over the features that are not common.

        Args:
            themselves: (m,) if the rows are these training documents, which are no neighbours of themselves.
        """
        cosines = (features @ self._documents).tocsr()
        if themselves is not None:
            cosines.data[cosines.indices == themselves[rows_of_entries(cosines)]] = 0.0
        cosines.data[cosines.data < 0.0] = 0.0
        cosines.eliminate_zeros()
        return largest(cosines, self.count)

    def votes(self, nearest: CSR) -> CSR:
        """(m, D) the share of each label in the neighbours' votes; rows of zeros without neighbours."""
        cosines = nearest.astype(np.float64)
        cosines.data **= _POWER
        sums = np.asarray(cosines.sum(axis=1)).ravel()
        scale = np.divide(1.0, sums, out=np.zeros_like(sums), where=sums > 0.0)
        return (scipy.sparse.diags_array(scale) @ cosines @ self.labels.astype(np.float64)).tocsr()

    def top_k(self, head: Any, inputs: SparseTargets, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """(m, k) float64 scores, best first, and classes; −inf and −1 in places that none takes.

        Ranked anew are the first 200 of ``head``, or those of them that an index finds, and all labels with votes.
        What comes after them keeps the order of ``head``.
        """
        found = head.top_k(hidden, min(max(k, FIRST), self.labels.shape[1]))
        scores, classes = (part.cpu().numpy() for part in found)
        candidates = self._candidates(self.own(scores), classes, csr_of_bags(inputs, self._known.shape[1]))
        best = candidates.best(self.choice, k)
        return torch.from_numpy(best[0]).to(hidden.device), torch.from_numpy(best[1]).to(hidden.device)

    def all_scores(self, scores: Tensor, inputs: SparseTargets) -> Tensor:
        """(m, D) float64 scores of all labels, those of ``top_k``, from the scores of the head."""
        own = self.own(scores.cpu().numpy())
        first = np.argsort(-own, axis=1, kind="stable")[:, :FIRST]
        candidates = self._candidates(
            np.take_along_axis(own, first, axis=1), first, csr_of_bags(inputs, self._known.shape[1])
        )
        made = candidates.scores(self.choice)
        lowest = candidates.lowest(made)
        all_of_them = lowest[:, None] + np.minimum(own - candidates.floor[:, None], 0.0)
        all_of_them[candidates.rows, candidates.classes] = made
        return torch.from_numpy(all_of_them).to(scores.device)

    def own(self, scores: np.ndarray) -> np.ndarray:
        """(m, c) float64 what the network gives: scores, or shares of the probability that the first 200 have."""
        found = scores.astype(np.float64)
        if not self.probabilities:
            return found
        first = -np.partition(-found, min(FIRST, found.shape[1]) - 1, axis=1)[:, :FIRST]
        highest = first.max(axis=1, keepdims=True)
        highest = np.where(np.isfinite(highest), highest, 0.0)
        total = np.exp(first - highest).sum(axis=1, keepdims=True)
        shares: np.ndarray = np.exp(found - highest) / np.where(total > 0.0, total, 1.0)
        return shares

    def _candidates(self, own: np.ndarray, classes: np.ndarray, features: CSR) -> Candidates:
        features = self._weighted(features)
        votes = self.votes(self._nearest(features))
        found = Candidates.of(own, classes, votes)
        if self.classifiers is not None:
            found.margins = self.classifiers.margins(features, found.rows, found.classes)
        if self.trees is not None:
            found.trees = self.trees.values(features, found.rows, found.classes)
        found.rareness = self._rareness[found.classes]
        return found

    def chosen(
        self, network: Any, held: RowExamples, propensities: Propensities, names: list[str], size: int = 256
    ) -> Choice:
        """What does best on ``held`` documents, which are none of these and trained nothing.

        Best: the largest ratios of the metrics to those of the network alone, which has 1, on average over the metrics,
        two halves of the documents and settings that lie beside one another. Weights of `TOLD` take the place of w, λ
        and τ if those that one half fits do better by 2 % and ½/√m on the other one than what the same half chose.
        """
        depth = Evaluation(names, propensities).depth
        candidates = self._looked_up(network, held, size, depth)
        race = Race(candidates, held, propensities, names)
        margins = _MARGINS if self.classifiers is not None else (0.0,)
        without = (0.0,), _WEIGHTS, margins
        found = race.best([without] if self.trees is None else [without, _TREES], _LEAST)
        return replace(found, power=self.choice.power)

    def _looked_up(self, network: Any, held: RowExamples, size: int, depth: int) -> Candidates:
        """What is ranked anew of all held documents."""
        parts = []
        with torch.no_grad():
            for start in range(0, len(held), size):
                inputs = held.batch(np.arange(start, min(start + size, len(held))))[0]
                assert isinstance(inputs, SparseTargets)
                hidden = network.hidden(inputs.to(network.head.device))
                found = network.head.top_k(hidden, min(max(depth, FIRST), self.labels.shape[1]))
                scores, classes = (part.cpu().numpy() for part in found)
                features = csr_of_bags(inputs, self._known.shape[1])
                parts.append(self._candidates(self.own(scores), classes, features))
        return Candidates.joined(parts)


def best_power(documents: RowExamples, count: int, names: list[str], propensities: Propensities) -> float:
    """The power of rarity by which the votes of documents for one another do best; 0 unless another is 5 % better.

    Best is as in `Neighbours.chosen`, by at most 1,000 documents that have labels.
    """
    labelled = np.flatnonzero(np.diff(documents.targets.indptr))
    some = np.sort(np.random.default_rng(0).permutation(labelled)[:_TRIED])
    if len(some) == 0:
        return 0.0
    parts = documents.inputs, documents.targets, count
    found = [
        Neighbours(*parts, choice=replace(NONE, power=power)).judged(some, names, propensities) for power in _POWERS
    ]
    gains = [np.mean([one[name] / max(found[0][name], 1e-4) for name in names]) for one in found]
    best = int(np.argmax(gains))
    return _POWERS[best] if gains[best] > 1.0 + _WORTH else 0.0


def csr_of_bags(bags: SparseTargets, width: int) -> CSR:
    """(m, width) scipy CSR of bags of ids."""
    values = bags.values_or_ones(torch.float32)
    parts = (part.cpu().numpy() for part in (values, bags.class_ids, bags.offsets))
    return scipy.sparse.csr_matrix(tuple(parts), shape=(len(bags), width))


def _unit(features: CSR) -> CSR:
    """Rows divided by their Euclidean norm, float32; rows of zeros stay."""
    found = features.tocsr().astype(np.float64)
    found.data /= np.abs(found.data).max(initial=0.0) or 1.0  # so that no square overflows
    norms = np.sqrt(np.asarray(found.multiply(found).sum(axis=1)).ravel())
    found.data /= np.repeat(np.where(norms > 0.0, norms, 1.0), np.diff(found.indptr))
    return found.astype(np.float32)


def largest(matrix: CSR, count: int) -> CSR:
    """The ``count`` largest entries of each row, in the order of their columns."""
    kept, sizes = [], np.minimum(np.diff(matrix.indptr), count)
    for begin, end in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
        here = np.arange(begin, end)
        if end - begin > count:
            here = np.sort(here[np.argpartition(-matrix.data[here], count)[:count]])
        kept.append(here)
    places = np.concatenate(kept) if kept else np.empty(0, dtype=np.int64)
    offsets = np.append(0, np.cumsum(sizes))
    return scipy.sparse.csr_matrix((matrix.data[places], matrix.indices[places], offsets), shape=matrix.shape)
