"""Trees of labels, at each of whose nodes linear classifiers tell which of its children a document belongs to.

A label's own classifier learns from the documents that have it, few of most labels. What many labels have in common can
be learnt from many more: labels whose documents are alike stand under one node, which has a classifier as they have
(Prabhu et al. 2018, "Parabel"). A label's value is the logarithm of a probability, Σ log 1/(1 + e^(−a·s)) over the
margins s on the way to it; of several trees, which begin at other labels, the mean.

Letters: n documents, N features, D labels, p pairs of a document and a label, L levels of nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse

from widehead.models.classifiers import LinearClassifiers
from widehead.progress import Work

_COST = 1.0  # of a margin below 1; classifiers that many labels share are not as easily too sure as those of one
_FEWEST = 150  # labels of a node that has no nodes below it, at most: a level of tiny nodes takes long to find
_HALVINGS = 5  # a node has 2⁵ children: fewer levels to be wrong at than with 2 or 8, in the same time (recipes/LOG.md)
_STEEP = 4.0  # a: with −max(0, 1 − s)², as classifiers learn, rare labels would be behind (recipes/LOG.md)
_TURNS, _STILL = 8, 1e-4  # of halving, and by how much its cosines must rise for another one, a label
_KEPT = 200  # features of what a label's documents are like
_PAIRS = 1 << 20  # of a document and a child that are told apart at a time
_NOWHERE = -1.0  # the margin of labels that no document has


@dataclass(frozen=True)
class LabelTree:
    """A tree, by the nodes that labels stand under, and the classifiers of nodes and labels.

    Attributes:
        nodes: (L, D) int64, from the top, the node of each label; −1 if it stands nowhere, as no document has it.
        inner: (L,) classifiers of each level's nodes. leaves: of the D labels.
    """

    nodes: np.ndarray
    inner: list[LinearClassifiers]
    leaves: LinearClassifiers

    @classmethod
    def of(cls, features: Any, labels: Any, seed: int) -> LabelTree:
        """A tree of the labels that some document has.

        Args:
            features: (n, N) scipy CSR, float32, rows of length 1 or 0. labels: (n, D) scipy CSR of ones.
            seed: of the labels that halvings begin at.
        """
        there = np.flatnonzero(np.bincount(labels.indices, minlength=labels.shape[1]))
        nodes = np.full((0, labels.shape[1]), -1, dtype=np.int64)
        if len(there) > _FEWEST:
            placed = _nodes(_centres(features, labels, there), np.random.default_rng(seed))
            nodes = np.full((len(placed), labels.shape[1]), -1, dtype=np.int64)
            nodes[:, there] = placed
        work, inner = Work("trees of labels", len(nodes) + 1), []
        has, above = _ones(labels.shape[0]), np.zeros(labels.shape[1], dtype=np.int64)
        for level in nodes:
            below = _marked(labels, level)
            inner.append(_told_apart(features, below, has, _parents(level, above, below.shape[1])))
            has, above = below, level
            work.add(1)
        known = np.full(labels.shape[1], -1, dtype=np.int64)
        known[there] = above[there]
        leaves = _told_apart(features, labels, has, known)
        work.add(1)
        return cls(nodes, inner, leaves)

    def values(self, features: Any, rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """(p,) float64 of pairs of a row of (m, N) ``features`` and a label: logarithms, all below 0."""
        found = _logarithms(self.leaves.margins(features, rows, labels))
        for level, classifiers in zip(self.nodes, self.inner, strict=True):
            node = level[labels]
            margins = np.full(len(rows), _NOWHERE)
            here = node >= 0
            margins[here] = classifiers.margins(features, rows[here], node[here])
            found += _logarithms(margins)
        return found


@dataclass(frozen=True)
class LabelTrees:
    """Several trees, whose values are averaged."""

    trees: list[LabelTree]

    @classmethod
    def of(cls, features: Any, labels: Any, count: int) -> LabelTrees:
        """So many trees; the rest as `LabelTree.of` takes it."""
        return cls([LabelTree.of(features, labels, seed) for seed in range(count)])

    def values(self, features: Any, rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """(p,) float64, the mean of `LabelTree.values`."""
        found = np.zeros(len(rows))
        for tree in self.trees:
            found += tree.values(features, rows, labels)
        return found / len(self.trees)


def _logarithms(margins: np.ndarray) -> np.ndarray:
    found: np.ndarray = -np.logaddexp(0.0, -_STEEP * margins)
    return found


def _centres(features: Any, labels: Any, there: np.ndarray) -> Any:
    """(labels there, N) scipy CSR, float32 rows of length 1: the largest of the sums of each label's documents."""
    by_label, parts, step = labels[:, there].T.tocsr().astype(np.float32), [], 1 << 10
    for start in range(0, len(there), step):
        sums = (by_label[start : start + step] @ features).tocsr()
        order = np.lexsort((-sums.data, np.repeat(np.arange(sums.shape[0]), np.diff(sums.indptr))))
        place = np.arange(sums.nnz) - np.repeat(sums.indptr[:-1], np.diff(sums.indptr))
        sums.data[order[place >= _KEPT]] = 0.0
        sums.eliminate_zeros()
        norms = np.sqrt(np.asarray(sums.multiply(sums).sum(axis=1)).ravel())
        parts.append(scipy.sparse.diags_array((1.0 / np.where(norms > 0.0, norms, 1.0)).astype(np.float32)) @ sums)
    return scipy.sparse.vstack(parts, format="csr")


def _nodes(centres: Any, rng: np.random.Generator) -> list[np.ndarray]:
    """For each level (D,) nodes, those of one parent one after the other."""
    levels, groups = [], [np.arange(centres.shape[0])]
    while max(map(len, groups)) > _FEWEST:
        for _ in range(_HALVINGS):
            groups = [half for group in groups for half in _halves(centres, group, rng)]
        level = np.empty(centres.shape[0], dtype=np.int64)
        for number, group in enumerate(groups):
            level[group] = number
        levels.append(level)
    return levels


def _halves(centres: Any, group: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Two clusters of equal size, by balanced spherical k-means with k = 2; one alone if there is one label."""
    if len(group) < 2:
        yield group
        return
    own = centres[group]
    columns, numbers = np.unique(own.indices, return_inverse=True)  # few of all features
    own = scipy.sparse.csr_matrix((own.data, numbers, own.indptr), shape=(len(group), len(columns)))
    first, second = rng.choice(len(group), 2, replace=False)
    apart = (own[[first]] - own[[second]]).toarray().ravel()
    before = -np.inf
    for _ in range(_TURNS):
        left = np.zeros(len(group), dtype=bool)
        left[np.argsort(-(own @ apart), kind="stable")[: len(group) // 2]] = True
        means = [np.asarray(own[half].sum(axis=0)).ravel() for half in (left, ~left)]
        near = sum(float(np.linalg.norm(mean)) for mean in means)  # the cosines with both means, summed
        if near - before < _STILL * len(group):
            break
        before = near
        apart = np.subtract(*(mean / max(float(np.linalg.norm(mean)), 1e-30) for mean in means))
    yield from (group[left], group[~left])


def _ones(n: int) -> Any:
    """(n, 1) scipy CSR: all documents are under the root."""
    return scipy.sparse.csr_matrix(np.ones((n, 1), dtype=np.int8))


def _marked(labels: Any, level: np.ndarray) -> Any:
    """(n, nodes) scipy CSR of ones: under which nodes a document's labels stand."""
    here = np.flatnonzero(level >= 0)
    under = scipy.sparse.csr_matrix(
        (np.ones(len(here), dtype=np.int32), (here, level[here])), shape=(len(level), int(level.max()) + 1)
    )
    found = (labels.astype(np.int32) @ under).tocsr()
    found.data = np.ones(found.nnz, dtype=np.int8)
    return found


def _parents(level: np.ndarray, above: np.ndarray, count: int) -> np.ndarray:
    """(count,) the node above each node."""
    found = np.full(count, -1, dtype=np.int64)
    here = level >= 0
    found[level[here]] = above[here]
    return found


def _told_apart(features: Any, children: Any, has: Any, parents: np.ndarray) -> LinearClassifiers:
    """Classifiers that tell the children from the others of the same parent, by the documents under that.

    Args:
        children: (n, c) scipy CSR of ones. has: the same, of parents. parents: (c,) of each child, −1 of those that no
            document has: margins of those are `_NOWHERE`.
    """
    order = np.argsort(parents, kind="stable")
    order = order[parents[order] >= 0]
    starts = np.searchsorted(parents[order], np.arange(has.shape[1] + 1))
    pairs = np.cumsum(np.bincount(has.indices, minlength=has.shape[1]) * np.diff(starts))
    columns, has, first = children.tocsc(), has.tocsc(), 0
    biases = np.full(len(parents), _NOWHERE, dtype=np.float32)
    parts = [scipy.sparse.csr_matrix((1, features.shape[1]), dtype=np.float32)]  # of those that no document has
    while first < has.shape[1]:
        stop = max(first + 1, int(np.searchsorted(pairs, (pairs[first - 1] if first else 0) + _PAIRS, side="right")))
        if len(here := order[starts[first] : starts[stop]]):
            others = has[:, first:stop].tocsr() @ _membership(parents[here] - first, stop - first)
            made = LinearClassifiers.of(features, columns[:, here].tocsr(), others, cost=_COST)
            biases[here] = made.biases
            parts.append(made.weights)
        first = stop
    place = np.zeros(len(parents), dtype=np.int64)
    place[order] = 1 + np.arange(len(order))
    return LinearClassifiers(scipy.sparse.vstack(parts, format="csr")[place].T.tocsr(), biases)


def _membership(parents: np.ndarray, count: int) -> Any:
    """(count, c) int8 scipy CSR of ones: which children a parent has."""
    c = len(parents)
    return scipy.sparse.csr_matrix((np.ones(c, dtype=np.int8), (parents, np.arange(c))), shape=(count, c))
