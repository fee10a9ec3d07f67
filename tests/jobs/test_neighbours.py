"""Neighbours beside a network: their scores and votes by dense twins in float64, and what they find."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from support.chosen import KnownHead

from widehead.data import RowExamples
from widehead.jobs.candidates import NONE, Candidates
from widehead.jobs.neighbours import Neighbours
from widehead.models.classifiers import LinearClassifiers
from widehead.models.label_trees import LabelTree, LabelTrees
from widehead.targets import SparseTargets


def _sparse(rng: np.random.Generator, shape: tuple[int, int], density: float) -> Any:
    """(shape) float32 CSR of uniform numbers, that are not 0 with a probability; scipy 1.14 has no such function."""
    return scipy.sparse.csr_array((rng.random(shape) * (rng.random(shape) < density)).astype(np.float32))


@pytest.mark.parametrize(
    ("margin", "tree", "rare", "given"),
    [
        (0.0, 0.0, 0.0, []),
        (0.5, 0.0, 0.3, []),
        (0.0, 0.6, 0.0, []),
        (0.5, 0.6, 0.3, []),
        (0.5, 0.0, 0.0, [0.4, 0.3, 0.2, 0.5, -0.1, 0.2]),
    ],
)
@pytest.mark.parametrize(("probabilities", "power"), [(False, 0.0), (True, 0.0), (False, 1.0), (True, -0.5)])
@pytest.mark.parametrize(("num_labels", "k"), [(7, 7), (320, 5), (320, 250)])
def test_scores_are_those_of_a_dense_twin(
    margin: float,
    tree: float,
    rare: float,
    given: list[float],
    probabilities: bool,
    power: float,
    num_labels: int,
    k: int,
) -> None:
    rng = np.random.default_rng(1)
    features = _sparse(rng, (60, 30), 0.2)
    labels = (_sparse(rng, (60, num_labels), 0.3) > 0).astype(np.float32)
    asked = _sparse(rng, (9, 30), 0.2)
    asked.data[asked.indptr[3] : asked.indptr[4]] = 0.0  # nothing is near
    asked.eliminate_zeros()
    scores = torch.from_numpy(rng.standard_normal((9, num_labels)))
    choice = replace(NONE, weight=0.7, margin=margin, tree=tree, rare=rare, least=0.01, weights=given, power=power)
    classifiers = trees = None
    weights = _sparse(rng, (num_labels, 30), 0.2)
    biases = rng.standard_normal(num_labels).astype(np.float32)
    if margin > 0.0:
        classifiers = LinearClassifiers(weights.T.tocsr(), biases)
    nodes = rng.integers(-1, 3, (1, num_labels))
    parts = [(_sparse(rng, (30, n), 0.3), rng.standard_normal(n).astype(np.float32)) for n in (3, num_labels)]
    if choice.takes_trees:
        trees = LabelTrees([LabelTree(nodes, [LinearClassifiers(*parts[0])], LinearClassifiers(*parts[1]))])
    beside = {"classifiers": classifiers, "trees": trees}
    made = Neighbours(features, labels, 5, choice=choice, probabilities=probabilities, **beside)

    rarity = 1 + np.log(61 / (1 + (features.toarray() != 0).sum(axis=0)))

    def unit(matrix: Any) -> np.ndarray:
        dense = matrix.toarray().astype(np.float64) / rarity**power
        return dense / np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-300)

    # As in the paper of propensity-scored precision (metrics/propensity.py), a = 0.55, b = 1.5.
    rareness = np.log(1 + (np.log(60) - 1) * 2.5**0.55 * (labels.toarray().sum(axis=0) + 1.5) ** -0.55)
    expected = np.empty((9, num_labels))
    cosines = unit(asked) @ unit(features).T
    for i in range(9):
        near = np.argsort(-cosines[i])[:5]
        votes = cosines[i][near] ** 3
        votes = votes @ labels.toarray()[near] / max(votes.sum(), 1e-300)
        o = scores[i].numpy()
        first = np.sort(o)[::-1][:200]
        own, floor = o, first[-1]
        if probabilities:
            own, floor = np.exp(o) / np.exp(first).sum(), np.exp(floor) / np.exp(first).sum()
        anew = (votes > 0) | (own >= floor)
        margins = unit(asked)[i] @ weights.toarray().T + biases
        above, missing = np.maximum(own - floor, 0.0), np.maximum(0.0, 1 - margins) ** 2
        both = np.log(above + 0.7 * votes + 0.01)
        inner, leaves = (-np.log(1 + np.exp(-4 * (unit(asked)[i] @ w.toarray() + b))) for w, b in parts)
        way = leaves + np.where(nodes[0] < 0, -np.log(1 + np.exp(4.0)), inner[nodes[0]])
        found = both - margin * missing + tree * way + rare * rareness
        if given:
            found = np.stack([both, -missing, np.log(above + 0.01), np.log(votes + 1e-3), margins, way], axis=1) @ given
        expected[i] = np.where(anew, found, found[anew].min() + own - floor)

    inputs = RowExamples(asked).batch(np.arange(9))[0]
    assert isinstance(inputs, SparseTargets)
    np.testing.assert_allclose(made.all_scores(scores, inputs).numpy(), expected, rtol=1e-5, atol=1e-5)
    best, classes = made.top_k(KnownHead(scores), inputs, torch.arange(9)[:, None], k)
    np.testing.assert_allclose(best.numpy(), -np.sort(-expected, axis=1)[:, :k], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(expected, classes.numpy(), 1), best.numpy(), rtol=1e-5, atol=1e-5)


class _Index(KnownHead):
    """The 40 best, as an index that looks at few classes finds them."""

    def top_k(self, hidden: torch.Tensor, k: int, exclude: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
        scores, classes = super().top_k(hidden, k)
        scores[:, 40:], classes[:, 40:] = -torch.inf, -1
        return scores, classes


def test_labels_with_votes_are_heard_beside_an_index_that_finds_few() -> None:
    rng = np.random.default_rng(2)
    features = scipy.sparse.csr_matrix(np.eye(6, dtype=np.float32))
    scores = torch.from_numpy(rng.standard_normal((6, 300)))
    last = scores.argsort(dim=1)[:, 0].numpy()  # each document's only neighbour has the label that is least likely
    labels = scipy.sparse.csr_matrix((np.ones(6, dtype=np.float32), last, np.arange(7)), shape=(6, 300))
    made = Neighbours(features, labels, 5, choice=replace(NONE, weight=9.0))
    inputs = RowExamples(features).batch(np.arange(6))[0]
    assert isinstance(inputs, SparseTargets)
    best, classes = made.top_k(_Index(scores), inputs, torch.arange(6)[:, None], 50)
    assert classes[:, 0].tolist() == last.tolist()
    torch.testing.assert_close(best[:, 0], torch.full((6,), np.log(9.0 + 1.0), dtype=torch.float64))
    assert (classes >= 0).sum(dim=1).tolist() == [41] * 6


def test_an_index_that_finds_nothing_leaves_the_votes(tmp_path: Path) -> None:
    features = scipy.sparse.csr_matrix(np.eye(3, dtype=np.float32))
    labels = scipy.sparse.csr_matrix(np.eye(3, 5, dtype=np.float32))
    inputs = RowExamples(features).batch(np.arange(3))[0]
    assert isinstance(inputs, SparseTargets)

    class _None(KnownHead):
        def top_k(self, hidden: torch.Tensor, k: int, exclude: Any = None) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.full((3, k), -torch.inf), torch.full((3, k), -1)

    made = Neighbours(features, labels, 5, choice=replace(NONE, weight=2.0))
    best, classes = made.top_k(_None(torch.zeros(3, 5)), inputs, torch.zeros(3, 1), 2)
    torch.testing.assert_close(best[:, 0], torch.full((3,), np.log(2.0 + 1.0), dtype=torch.float64))
    assert classes.tolist() == [[0, -1], [1, -1], [2, -1]]


@pytest.mark.parametrize("block", [1, 7, 2_000])
def test_labels_that_are_voted_for_beside_a_document_are_those_of_others(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    features = _sparse(rng, (40, 30), 0.2)
    labels = (_sparse(rng, (40, 11), 0.2) > 0).astype(np.float32)
    monkeypatch.setattr("widehead.jobs.neighbours._BLOCK", block)
    voted = Neighbours(features, labels, 3).voted(np.arange(40)).toarray() > 0
    unit = features.toarray() / np.maximum(np.linalg.norm(features.toarray(), axis=1, keepdims=True), 1e-30)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -1.0)
    for i in range(40):
        near = [j for j in np.argsort(-cosines[i])[:3] if cosines[i, j] > 0]
        assert (voted[i] == (labels.toarray()[near].sum(axis=0) > 0)).all()


def test_documents_that_are_looked_up_in_parts_are_ranked_as_all_together() -> None:
    rng = np.random.default_rng(4)
    own = -np.sort(-rng.standard_normal((12, 230)), axis=1)
    classes = np.stack([rng.permutation(300)[:230] for _ in range(12)])
    votes = _sparse(rng, (12, 300), 0.05)
    choice, k = replace(NONE, weight=0.5, margin=0.4, tree=0.3, rare=0.2), 215
    parts = [Candidates.of(own[some], classes[some], votes[some]) for some in (slice(5), slice(5, 6), slice(6, 12))]
    whole = Candidates.of(own, classes, votes)
    whole.margins, whole.trees = rng.standard_normal(len(whole.rows)), -rng.random(len(whole.rows))
    whole.rareness = rng.random(len(whole.rows))
    for part, some in zip(parts, (slice(5), slice(5, 6), slice(6, 12)), strict=True):
        here = np.isin(whole.rows, np.arange(12)[some])
        part.margins, part.trees, part.rareness = (x[here] for x in (whole.margins, whole.trees, whole.rareness))
    for found, expected in zip(Candidates.joined(parts).best(choice, k), whole.best(choice, k), strict=True):
        assert (found == expected).all()
    assert Candidates.joined(parts).spread() == pytest.approx(whole.spread())
