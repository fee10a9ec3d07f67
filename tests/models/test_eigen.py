"""Positive eigenvalues against dense linear algebra."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import scipy.sparse
import torch

from widehead.models import positive_eigenpairs


def _indefinite(size: int) -> tuple[np.ndarray, torch.Tensor]:
    """A symmetric matrix whose eigenvalues are ±size/1, ±size/2, …, not exactly symmetric as stored."""
    rng = np.random.default_rng(0)
    vectors = np.linalg.qr(rng.standard_normal((size, size)))[0]
    values = np.array([(-1.0) ** i * size / (1 + i // 2) for i in range(size)])
    skew = rng.standard_normal((size, size))
    return (vectors * values) @ vectors.T + skew - skew.T, torch.from_numpy(np.sort(values)[::-1].copy())


@pytest.mark.parametrize(("size", "basis"), [(40, 50), (1200, 384)])  # dense, and in a Krylov space
def test_the_largest_positive_eigenvalues(size: int, basis: int) -> None:
    matrix, expected = _indefinite(size)
    values, vectors = positive_eigenpairs(scipy.sparse.csr_matrix(matrix.astype(np.float32)), 8, basis=basis, seed=0)
    torch.testing.assert_close(values, expected[:8].float(), rtol=1e-3, atol=0.0)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(8), rtol=0.0, atol=1e-3)
    symmetric = torch.from_numpy((matrix + matrix.T) / 2).float()
    assert float((symmetric @ vectors - vectors * values).norm() / values.norm()) < 1e-2


def test_missing_eigenvalues_are_zero() -> None:
    values, vectors = positive_eigenpairs(scipy.sparse.diags([3.0, -2.0, 0.0]).tocsr(), 5, basis=5, seed=0)
    assert values.tolist() == pytest.approx([3.0, 0.0, 0.0, 0.0, 0.0])
    assert vectors.shape == (3, 5)
    assert vectors[:, 1:].abs().sum() == 0.0
    assert vectors[:, 0].abs().tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-6)


def _dense(values: np.ndarray) -> np.ndarray:
    """(1100, 1100) symmetric, of these eigenvalues and zeros."""
    vectors = np.linalg.qr(np.random.default_rng(0).standard_normal((1100, len(values))))[0]
    return (vectors * values) @ vectors.T


def _block(size: int, begin: int) -> np.ndarray:
    """(1100, 1100) zeros but for a block on the diagonal."""
    matrix = np.zeros((1100, 1100))
    matrix[begin : begin + size, begin : begin + size] = np.random.default_rng(1).standard_normal((size, size))
    return matrix


MATRICES = {
    "slowly falling": _indefinite(1100)[0],
    "clustered": _dense(np.r_[10.0 + 1e-4 * np.arange(30), np.linspace(-5.0, 5.0, 900)]),
    "repeated": np.diag(np.repeat([5.0, 3.0, -9.0, 0.0], 275)),
    "identity": np.eye(1100),
    "negative": -np.eye(1100),
    "negative ahead": _dense(np.r_[-1000.0 * np.ones(20), np.linspace(1.0, 3.0, 50)]),
    "few rows": _block(5, 700),
    "random": scipy.sparse.random(1100, 1100, 0.004, random_state=0).toarray(),
    "zero": np.zeros((1100, 1100)),
    "one number": np.array([[-3.0]]),
    "small": _indefinite(30)[0],
}


@functools.cache
def of_numpy(name: str) -> np.ndarray:
    """The largest eight eigenvalues, falling."""
    return np.linalg.eigvalsh((MATRICES[name] + MATRICES[name].T) / 2)[::-1][:8]


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize(("basis", "scale"), [(8, 1.0), (60, 1e-30), (400, 1e30)])
def test_narrow_bases_find_them_too(name: str, basis: int, scale: float) -> None:
    matrix, exact = scipy.sparse.csr_matrix(MATRICES[name]), of_numpy(name)
    least = 1e-5 * np.abs(exact).max(initial=0.0)
    exact = np.where(exact > least, exact, 0.0)
    values, vectors = positive_eigenpairs(matrix * scale, 8, basis=basis, seed=0)
    found = values.double().numpy()[: len(exact)] / scale
    np.testing.assert_allclose(found, exact, rtol=3e-3, atol=10.0 * least)
    np.testing.assert_allclose(vectors.T @ vectors, np.diag((values > 0).float()), atol=1e-4)


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match=r"should hold finite numbers\. Found NaN or infinity"):
        positive_eigenpairs(scipy.sparse.csr_matrix([[1.0, np.nan], [0.0, 2.0]]), 1, basis=1, seed=0)
