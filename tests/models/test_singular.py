"""Leading singular vectors against those of a dense decomposition."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch

from widehead.models import SparseMatrix, leading_singular_vectors


def interactions(m: int, n: int, seed: int = 0) -> scipy.sparse.csr_matrix:
    """Pairs whose items are taken about as 1/rank, scaled as a recommender scales them: values fall slowly."""
    rng = np.random.default_rng(seed)
    dense = (rng.random((m, n)) < 0.5 / (1.0 + np.arange(n) / 4.0)).astype(np.float32)
    dense *= np.maximum(dense.sum(1, keepdims=True), 1.0) ** -0.3
    return scipy.sparse.csr_matrix(dense * np.maximum((dense > 0).sum(0), 1.0) ** -0.4)


@pytest.mark.parametrize(("m", "n"), [(600, 400), (400, 600)])
@pytest.mark.parametrize("k", [1, 20, 150])  # 150: more than one block
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_vectors_are_those_of_the_dense_matrix(m: int, n: int, k: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    matrix = interactions(m, n)
    values, vectors = leading_singular_vectors(SparseMatrix(matrix, dtype=dtype), k)
    _, exact, transposed = np.linalg.svd(matrix.toarray().astype(np.float64), full_matrices=False)
    assert (values.dtype, vectors.dtype, vectors.shape) == (dtype, dtype, (n, k))
    np.testing.assert_allclose(values.numpy(), exact[:k], rtol=0.02)
    assert float(values.square().sum()) == pytest.approx(float((exact[:k] ** 2).sum()), rel=0.005)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(k, dtype=dtype), atol=2e-4, rtol=0.0)
    # They span nearly the space that belongs to the k largest values; the last ones have near neighbours.
    caught = np.linalg.norm(transposed[:k] @ vectors.double().numpy()) ** 2 / k
    assert caught > 0.9


def test_where_values_fall_fast_vectors_are_exact_up_to_sign() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(1)
    left, right = (np.linalg.qr(rng.standard_normal((size, 50)))[0] for size in (90, 70))
    matrix = scipy.sparse.csr_matrix(left * 0.8 ** np.arange(50) @ right.T)
    values, vectors = leading_singular_vectors(SparseMatrix(matrix, dtype=torch.float64), 6)
    np.testing.assert_allclose(values.numpy(), 0.8 ** np.arange(6), rtol=1e-6)
    np.testing.assert_allclose(np.abs(np.sum(vectors.numpy() * right[:, :6], axis=0)), 1.0, rtol=1e-6)


def test_directions_that_the_matrix_lacks_are_zeros() -> None:
    torch.manual_seed(0)
    matrix = scipy.sparse.csr_matrix(np.outer(np.arange(1.0, 8.0), [3.0, 0.0, 4.0, 0.0, 0.0]))
    values, vectors = leading_singular_vectors(SparseMatrix(matrix), 4)
    length = float(np.linalg.norm(np.arange(1.0, 8.0)) * 5.0)
    torch.testing.assert_close(values, torch.tensor([length, 0.0, 0.0, 0.0]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(vectors[:, 0].abs(), torch.tensor([0.6, 0.0, 0.8, 0.0, 0.0]), rtol=1e-5, atol=1e-5)
    assert float(vectors[:, 1:].abs().max()) == 0.0


def test_a_matrix_of_zeros_has_no_directions() -> None:
    values, vectors = leading_singular_vectors(SparseMatrix(scipy.sparse.csr_matrix((5, 4), dtype=np.float32)), 2)
    assert values.tolist() == [0.0, 0.0]
    assert not vectors.any()


@pytest.mark.parametrize("k", [0, 5])
def test_k_is_checked(k: int) -> None:
    matrix = SparseMatrix(scipy.sparse.csr_matrix(np.eye(6, 4)))
    with pytest.raises(ValueError, match=rf"in \[1, 4\], the smaller side of the matrix. Found {k}"):
        leading_singular_vectors(matrix, k)
