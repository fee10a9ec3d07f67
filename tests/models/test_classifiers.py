"""Classifiers of labels: each at the minimum that scipy finds, the same on any number of threads, in pieces too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

from widehead.arithmetic.library import library
from widehead.models import classifiers
from widehead.models.classifiers import LinearClassifiers

needs_c = pytest.mark.skipif(library() is None, reason="there is no C here")


def problem(seed: int = 0, n: int = 60, width: int = 25, num_labels: int = 12) -> tuple[Any, Any, Any]:
    """Rows of length 1, one of them empty; labels, one of which nobody has and one that all have."""
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random((n, width)) < 0.2, rng.random((n, width)), 0.0).astype(np.float32)
    dense[3] = 0.0
    dense /= np.maximum(np.linalg.norm(dense, axis=1, keepdims=True), 1e-30)
    labels, others = ((rng.random((n, num_labels)) < share).astype(np.float32) for share in (0.1, 0.4))
    labels[:, 2], others[:, 2], labels[:, 5] = 0.0, 0.0, 1.0
    return tuple(scipy.sparse.csr_matrix(matrix) for matrix in (dense, labels, others))


def by_scipy(monkeypatch: pytest.MonkeyPatch, *parts: Any) -> LinearClassifiers:
    with monkeypatch.context() as patch:
        patch.setattr(classifiers, "library", lambda: None)
        return LinearClassifiers.of(*parts)


@needs_c
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("at_a_time", [1, 70, 1 << 24])
def test_c_finds_the_minimum_that_scipy_finds(monkeypatch: pytest.MonkeyPatch, threads: int, at_a_time: int) -> None:
    monkeypatch.setattr(classifiers, "_AT_A_TIME", at_a_time)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    features, labels, others = problem()
    made = LinearClassifiers.of(features, labels, others, close=1e-9, passes=100_000)
    twin = by_scipy(monkeypatch, features, labels, others)
    near = np.abs(np.abs(twin.weights.toarray()) - 0.05) < 1e-3  # kept by one of them, perhaps
    assert near.mean() < 0.05
    difference = np.where(near, 0.0, made.weights.toarray() - twin.weights.toarray())
    assert np.abs(difference).max() < 2e-5
    np.testing.assert_allclose(made.biases, twin.biases, atol=2e-5)
    assert made.weights.nnz > 50


@needs_c
def test_a_few_passes_come_close_to_the_minimum_and_do_not_depend_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = problem(1)
    found = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append(LinearClassifiers.of(*parts))
    assert all((one.weights != found[0].weights).nnz == 0 for one in found)
    assert all((one.biases == found[0].biases).all() for one in found)
    twin = by_scipy(monkeypatch, *parts)
    assert np.abs(found[0].weights.toarray() - twin.weights.toarray()).max() < 0.1


def test_documents_of_a_label_are_told_from_those_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """A label that nobody has gets a margin of 0; one that all have a margin above 0 everywhere."""
    features, labels, others = problem(2)
    for made in (LinearClassifiers.of(features, labels, others), by_scipy(monkeypatch, features, labels, others)):
        rows, columns = (part.ravel() for part in np.indices((60, 12)))
        margins = made.margins(features, rows, columns).reshape(60, 12)
        dense = features.toarray() @ made.weights.toarray().T + made.biases
        np.testing.assert_allclose(margins, dense, atol=1e-6)
        assert (margins[:, 2] == 0.0).all()
        assert (margins[:, 5] > 0.0).all()
        has, told = labels.toarray() > 0, others.toarray() > 0
        assert margins[has].mean() > 0.3 > -0.3 > margins[told & ~has].mean()


def test_margins_of_no_pairs_are_none() -> None:
    made = LinearClassifiers.of(*problem(3))
    assert len(made.margins(problem(3)[0], np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))) == 0


def test_signs_are_one_of_labels_and_minus_one_of_others_alone() -> None:
    _, labels, others = problem(4)
    has, told = labels.toarray() > 0, others.toarray() > 0
    made = classifiers._signs(labels, others.astype(np.int8))
    assert (made.format, made.data.dtype) == ("csc", np.int8)
    assert (has & told).any()
    assert (made.toarray() == has.astype(int) - (told & ~has)).all()
    assert made.nnz == (has | told).sum()


@pytest.mark.parametrize("at_a_time", [1, 5, 12, 1 << 12])
def test_entries_of_examples_are_counted_whatever_is_counted_at_a_time(
    at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classifiers, "_LABELS", at_a_time)
    features, labels, others = problem(5)
    signs, lengths = classifiers._signs(labels, others), np.diff(features.indptr)
    found = classifiers._entries_of(lengths, signs.indptr, signs.indices)
    assert found.tolist() == [
        int(lengths[signs.indices[a:b]].sum()) for a, b in zip(signs.indptr, signs.indptr[1:], strict=False)
    ]
