"""Inputs from which the output layer finds word vectors, against the vectors in dense linear algebra."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch

from widehead.models import word_inputs


def some_matrices(size: int, seed: int = 0) -> tuple[scipy.sparse.csr_matrix, scipy.sparse.csr_matrix]:
    """M (D, D), not symmetric, and T (2D, D)."""
    rng = np.random.default_rng(seed)
    made = (scipy.sparse.random(rows, size, 0.3, "csr", np.float32, rng) for rows in (size, 2 * size))
    matrix, sided = made
    return matrix, sided


def joined_vectors(matrix: np.ndarray, sided: np.ndarray, width: int) -> np.ndarray:
    """(D, d) by the definition, if width is at most D/2 or so, and the axes of T are all there are."""
    values, vectors = (part[..., ::-1] for part in np.linalg.eigh((matrix + matrix.T) / 2.0))
    kept = values[:width] > 1e-5 * values[0]
    near = vectors[:, :width][:, kept] * values[:width][kept] ** 0.25
    weights = (sided != 0).sum(axis=0) ** 0.25
    contexts = sided * weights
    axes = np.linalg.svd(contexts)[2][: max(2 * width, width)].T
    images = contexts @ axes
    fitted = sided.T @ images @ np.linalg.pinv(images.T @ images)
    joined = np.hstack([near, fitted * np.sqrt(0.4) * np.linalg.norm(near) / np.linalg.norm(fitted)])
    return joined @ np.linalg.eigh(joined.T @ joined)[1][:, ::-1][:, :width]


@pytest.mark.parametrize(("size", "width"), [(12, 6), (40, 20), (40, 24), (30, 60)])
def test_least_squares_of_all_rows_ends_at_the_joined_vectors(size: int, width: int) -> None:
    matrix, sided = some_matrices(size)
    symmetric = ((matrix + matrix.T) * 0.5).tocsr()
    hidden = word_inputs(symmetric, sided, width, seed=0).double().numpy()
    rows = np.vstack([symmetric.toarray(), sided.toarray()]).astype(np.float64)
    assert hidden.shape == (3 * size, width)
    found = np.linalg.pinv(hidden) @ rows
    wanted = joined_vectors(symmetric.toarray().astype(np.float64), sided.toarray().astype(np.float64), width)
    np.testing.assert_allclose(found.T @ found, wanted @ wanted.T, atol=1e-4 * np.abs(wanted @ wanted.T).max())


def test_axes_that_do_not_exist_are_zeros() -> None:
    matrix, sided = some_matrices(5)
    hidden = word_inputs(matrix, sided, 9, seed=0)
    assert hidden.shape == (15, 9)
    assert int((hidden.norm(dim=0) > 0).sum()) == 5


@pytest.mark.parametrize("empty", ["matrix", "sided", "both"])
def test_a_part_may_be_nothing(empty: str) -> None:
    matrix, sided = some_matrices(8)
    matrix = matrix * 0 if empty in ("matrix", "both") else matrix
    sided = sided * 0 if empty in ("sided", "both") else sided
    hidden = word_inputs(matrix, sided, 3, seed=0)
    assert bool(torch.isfinite(hidden).all())
    assert bool((hidden[:8] != 0).any()) == (empty == "sided")
    assert bool((hidden[8:] != 0).any()) == (empty == "matrix")


def test_equal_seeds_give_equal_inputs() -> None:
    matrix, sided = some_matrices(700)
    assert torch.equal(word_inputs(matrix, sided, 20, seed=3), word_inputs(matrix, sided, 20, seed=3))
