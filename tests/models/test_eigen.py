"""Positive eigenvalues against dense linear algebra."""

from __future__ import annotations

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
