"""Leading singular vectors against those of a dense decomposition."""

from __future__ import annotations

import functools

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


def zipf(m: int, n: int, each: int, exponent: float, plays: bool, seed: int) -> scipy.sparse.csr_matrix:
    """``each`` items a user, taken as rank^-exponent; with ``plays`` of heavy-tailed values."""
    rng = np.random.default_rng(seed)
    items = np.minimum(rng.zipf(exponent, m * each) - 1, n - 1)
    values = rng.lognormal(0.0, 3.0, m * each) if plays else np.ones(m * each)
    matrix = scipy.sparse.csr_matrix((values, (np.repeat(np.arange(m), each), items)), shape=(m, n), dtype=np.float32)
    matrix.sum_duplicates()
    return matrix


def with_values(m: int, n: int, values: np.ndarray) -> scipy.sparse.csr_matrix:
    """A matrix of these singular values, in places that no axis tells of."""
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.standard_normal((size, len(values))))[0] for size in (m, n))
    return scipy.sparse.csr_matrix(left * values @ right.T)


def one_far_above(m: int, n: int, seed: int) -> scipy.sparse.csr_matrix:
    rng = np.random.default_rng(seed)
    return scipy.sparse.csr_matrix((rng.random((m, n)) < np.r_[0.9, np.full(n - 1, 0.02)]).astype(np.float32))


# The smaller side is above 1,000 in those that the filter is for, else dense linear algebra takes over.
SPECTRA = {
    "one far above": one_far_above(3000, 50, 1),
    "one far above, wider": one_far_above(1200, 1010, 2),
    "zipf": zipf(5000, 1020, 4, 1.3, False, 3),
    "plays": zipf(5000, 1020, 4, 1.4, True, 4),
    "seconds": zipf(3000, 1020, 8, 1.2, True, 5).power(2),
    "flat": scipy.sparse.random(2000, 1020, 0.01, random_state=6, format="csr", dtype=np.float32),
    "geometric": with_values(1100, 1010, 0.8 ** np.arange(200)),
    "steps": with_values(1100, 1010, np.repeat(10.0 ** -np.arange(0, 5), 40)),
    "clustered": with_values(1100, 1010, np.r_[np.linspace(1.0, 1.0001, 30), np.linspace(0.1, 0.1001, 170)]),
    "repeated": scipy.sparse.diags(np.repeat([5.0, 3.0, 1.0], 340)).tocsr(),
    "rank 3": with_values(1200, 1010, np.array([3.0, 2.0, 1e-3])),
    "one row": scipy.sparse.csr_matrix(np.arange(30.0)[None]),
    "one column": scipy.sparse.csr_matrix(np.arange(30.0)[:, None]),
    "one number": scipy.sparse.csr_matrix([[-7.0]]),
    "negative": -zipf(300, 200, 4, 1.5, True, 7),
}


@functools.cache
def of_numpy(name: str) -> np.ndarray:
    return np.linalg.svd(SPECTRA[name].toarray().astype(np.float64), compute_uv=False)


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize(
    ("dtype", "scale", "turned"),
    [(torch.float32, 1.0, False), (torch.float32, 1e-30, True), (torch.float64, 1e30, False)],
)
def test_values_are_those_of_numpy(name: str, dtype: torch.dtype, scale: float, turned: bool) -> None:
    torch.manual_seed(0)
    matrix = SPECTRA[name].astype(np.float64) * scale
    matrix = matrix.T if turned else matrix
    k = min(48, *matrix.shape)
    values, vectors = (part.double().numpy() for part in leading_singular_vectors(SparseMatrix(matrix, dtype=dtype), k))
    exact = scale * of_numpy(name)[:k]
    np.testing.assert_allclose(values, exact, rtol=1e-3, atol=1e-6 * exact[0])
    np.testing.assert_allclose(np.linalg.norm(matrix @ vectors, axis=0), values, rtol=2e-3, atol=1e-6 * exact[0])
    np.testing.assert_allclose(vectors.T @ vectors, np.diag((values > 0.0).astype(float)), atol=2e-3)


@pytest.mark.parametrize("seed", range(3))
def test_seeds_give_the_same_values(seed: int) -> None:
    torch.manual_seed(seed)
    values, _ = leading_singular_vectors(SparseMatrix(SPECTRA["plays"]), 40)
    np.testing.assert_allclose(values.numpy(), of_numpy("plays")[:40], rtol=1e-3)


@pytest.mark.parametrize("worst", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(worst: float) -> None:
    with pytest.raises(ValueError, match=r"should hold finite numbers\. Found NaN or infinity"):
        leading_singular_vectors(SparseMatrix(scipy.sparse.csr_matrix([[1.0, worst], [0.0, 2.0]])), 1)
