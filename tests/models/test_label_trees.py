"""Trees of labels: their shape, what each node learns from, values by a dense twin, and that they help rare labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

from widehead.models import label_trees
from widehead.models.classifiers import LinearClassifiers
from widehead.models.label_trees import LabelTree, LabelTrees


def documents(seed: int = 0, n: int = 400, topics: int = 9, labels: int = 60) -> tuple[Any, Any]:
    """(n, N) rows of length 1 or 0, and (n, D) labels: words of a topic that labels share, and one of the label's own.

    The last three labels are those of no document, and the first document has neither words nor labels.
    """
    rng = np.random.default_rng(seed)
    x, y = np.zeros((n, topics * 5 + labels), dtype=np.float32), np.zeros((n, labels), dtype=np.float32)
    for i in range(1, n):
        for label in rng.choice(labels - 3, rng.integers(1, 3), replace=False):
            y[i, label] = 1.0
            x[i, label % topics * 5 + rng.choice(5, 3, replace=False)] += 1.0
            x[i, topics * 5 + label] += rng.random() < 0.7
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30)
    return scipy.sparse.csr_matrix(x), scipy.sparse.csr_matrix(y)


def pairs(m: int, labels: int) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = (part.ravel() for part in np.indices((m, labels)))
    return rows, columns


def probabilities(margins: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-4.0 * margins))


@pytest.fixture(params=[5, 12, 100])
def fewest(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Labels under the lowest nodes, at most; with 100 there are no nodes."""
    monkeypatch.setattr(label_trees, "_HALVINGS", 3)
    monkeypatch.setattr(label_trees, "_FEWEST", request.param)
    return int(request.param)


def test_labels_stand_under_nodes_of_equal_size_that_stand_under_one_another(fewest: int) -> None:
    x, y = documents()
    tree = LabelTree.of(x, y, 0)
    assert tree.nodes.shape == ({5: 2, 12: 1, 100: 0}[fewest], 60)
    assert (tree.nodes[:, 57:] == -1).all()
    above = np.zeros(57, dtype=np.int64)
    for level in tree.nodes[:, :57]:
        sizes = np.bincount(level)
        assert sizes.min() >= 1
        assert sizes.max() - sizes.min() <= 1
        for node in range(len(sizes)):
            assert len(set(above[level == node])) == 1
        assert max(len(set(level[above == parent])) for parent in set(above)) <= 8
        above = level
    assert not len(tree.nodes) or np.bincount(above).max() <= fewest


def test_labels_of_one_topic_stand_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """One halving of two topics parts them, whatever labels it begins at."""
    monkeypatch.setattr(label_trees, "_FEWEST", 20)
    monkeypatch.setattr(label_trees, "_HALVINGS", 1)
    x, y = documents(topics=2, labels=43, n=800)
    for seed in range(5):
        level = LabelTree.of(x, y, seed).nodes[0, :40]
        assert min(np.mean(level == np.arange(40) % 2), np.mean(level != np.arange(40) % 2)) < 0.06


def test_many_labels_stand_two_levels_down() -> None:
    """More levels are more places to be wrong at: 5,000 labels have 32 nodes and what stands under these."""
    labels = scipy.sparse.eye_array(5_000, dtype=np.float32, format="csr")
    nodes = LabelTree.of(labels, labels, 0).nodes
    assert [len(set(level)) for level in nodes] == [32, 1_024]


def test_trees_begin_at_other_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_trees, "_FEWEST", 12)
    one, two = LabelTrees.of(*documents(), 2).trees
    assert not np.array_equal(one.nodes, two.nodes)


def test_centres_are_the_largest_sums_of_a_labels_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_trees, "_KEPT", 4)
    x, y = documents()
    there = np.array([0, 3, 7, 50])
    expected = (y.toarray().T @ x.toarray())[there]
    order = np.argsort(-expected, axis=1, kind="stable")
    np.put_along_axis(expected, order[:, 4:], 0.0, axis=1)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(label_trees._centres(x, y, there).toarray(), expected, atol=1e-6)


@pytest.mark.parametrize("pairs_at_a_time", [1, 300, 1 << 20])
def test_each_classifier_learns_from_the_documents_under_its_parent(
    fewest: int, pairs_at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin: one problem a node, with rows of its parent's documents, found to the minimum."""
    of = LinearClassifiers.of.__func__  # type: ignore[attr-defined]
    exact = classmethod(lambda cls, *parts, **more: of(cls, *parts, close=1e-9, passes=100_000, **more))
    monkeypatch.setattr(LinearClassifiers, "of", exact)
    monkeypatch.setattr(label_trees, "_PAIRS", pairs_at_a_time)
    x, y = documents()
    tree, dense = LabelTree.of(x, y, 0), y.toarray() > 0
    below, above = np.ones((len(dense), 1), dtype=bool), np.zeros(57, dtype=np.int64)
    for level, made in [*zip(tree.nodes[:, :57], tree.inner, strict=True), (np.arange(57), tree.leaves)]:
        has = np.stack([dense[:, :57][:, level == node].any(axis=1) for node in range(level.max() + 1)], axis=1)
        for node in range(has.shape[1]):
            rows = np.flatnonzero(below[:, above[level == node][0]])
            own = scipy.sparse.csr_matrix(has[rows, node : node + 1].astype(np.float32))
            twin = LinearClassifiers.of(x[rows], own, scipy.sparse.csr_matrix(np.ones(own.shape)), cost=1.0)
            difference = made.weights[node].toarray() - twin.weights.toarray()
            near = np.abs(np.abs(twin.weights.toarray()) - 0.05) < 1e-3  # kept by one of them, perhaps
            assert np.abs(np.where(near, 0.0, difference)).max() < 1e-4
            assert made.biases[node] == pytest.approx(twin.biases[0], abs=1e-4)
        below, above = has, level
    assert (tree.leaves.biases[57:] == -1.0).all()
    assert tree.leaves.weights[57:].nnz == 0


def test_values_are_sums_on_the_way_to_a_label(fewest: int) -> None:
    x, y = documents()
    trees = LabelTrees.of(x, y, 2)
    rows, labels = pairs(30, 60)
    expected = np.zeros((30, 60))
    for tree in trees.trees:
        expected += np.log(probabilities((x[:30] @ tree.leaves.weights.T).toarray() + tree.leaves.biases))
        for level, inner in zip(tree.nodes, tree.inner, strict=True):
            found = probabilities((x[:30] @ inner.weights.T).toarray() + inner.biases)
            expected += np.log(np.where(level >= 0, found[:, level], probabilities(-1.0)))
    np.testing.assert_allclose(trees.values(x[:30], rows, labels).reshape(30, 60), expected / 2, atol=1e-5)
    some = np.random.default_rng(1).random(1_800) < 0.2
    found = trees.values(x[:30], rows[some], labels[some])
    np.testing.assert_allclose(found, expected.ravel()[some] / 2, atol=1e-5)
    assert len(trees.values(x, rows[:0], labels[:0])) == 0


def test_trees_know_what_labels_have_in_common(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words of a topic that the documents of no single label all have: each label has three documents of five words."""
    monkeypatch.setattr(label_trees, "_HALVINGS", 3)
    monkeypatch.setattr(label_trees, "_FEWEST", 24)
    topics, words, count, gains = 8, 40, 8 * 24, []
    for seed in range(3):
        rng = np.random.default_rng(seed)

        def drawn(of: np.ndarray, rng: np.random.Generator = rng) -> Any:
            x = np.zeros((len(of), topics * words), dtype=np.float32)
            for i, label in enumerate(of):
                x[i, label % topics * words + rng.choice(words, 3, replace=False)] = 1.0
                x[i, rng.choice(topics * words, 2, replace=False)] = 1.0
            return scipy.sparse.csr_matrix(x / np.linalg.norm(x, axis=1, keepdims=True))

        learnt, asked = np.repeat(np.arange(count), 3), rng.integers(0, count, 400)
        x, tested = drawn(learnt), drawn(asked)
        y = scipy.sparse.csr_matrix(np.eye(count, dtype=np.float32)[learnt])
        every = scipy.sparse.csr_matrix(np.ones(y.shape, dtype=np.float32))
        alone = LinearClassifiers.of(x, y, every, cost=1.0).margins(tested, *pairs(400, count))
        found = LabelTrees.of(x, y, 2).values(tested, *pairs(400, count))
        right = [np.mean(part.reshape(400, count).argmax(axis=1) % topics == asked % topics) for part in (alone, found)]
        gains.append(right[1] - right[0])
    assert min(gains) > 0.0
    assert np.mean(gains) > 0.05


def test_the_same_trees_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_trees, "_FEWEST", 12)
    x, y = documents()
    rows, labels = pairs(400, 60)
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append(LabelTrees.of(x, y, 2).values(x, rows, labels))
    assert np.array_equal(*found)


def test_labels_of_no_document_at_all() -> None:
    x = documents()[0]
    tree = LabelTree.of(x, scipy.sparse.csr_matrix((400, 7), dtype=np.float32), 0)
    rows, labels = pairs(400, 7)
    np.testing.assert_allclose(tree.values(x, rows, labels), np.log(probabilities(-1.0)))
