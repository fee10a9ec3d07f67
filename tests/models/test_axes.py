"""Axes of sparse features: orthonormal, and nearly as good as the singular vectors."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

from widehead.models import principal_axes


def features() -> scipy.sparse.csr_matrix:
    """(300, 120) of falling scales, a tenth of it filled."""
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((300, 120)) * (rng.random((300, 120)) < 0.1) / np.arange(1, 121) ** 0.5
    return scipy.sparse.csr_matrix(dense.astype(np.float32))


def test_axes_are_orthonormal_and_keep_nearly_what_singular_vectors_keep() -> None:
    x = features()
    axes = principal_axes(x, 40, seed=0)
    assert (axes.shape, axes.dtype) == ((120, 40), np.float32)
    assert np.abs(axes.T @ axes - np.eye(40)).max() < 1e-5
    best = np.square(np.linalg.svd(x.toarray(), compute_uv=False)[:40]).sum()
    # One power of XᵀX keeps 0.94 of it, two 0.98.
    assert np.square(x @ axes).sum() > 0.97 * best


def test_all_axes_keep_everything_and_what_is_not_there_is_zero() -> None:
    x = features()[:50]
    axes = principal_axes(x, 60, seed=1)
    assert axes.shape == (120, 60)
    assert np.abs((x @ axes) @ axes.T - x.toarray()).max() < 1e-5
    assert not axes[:, 50:].any()


def test_equal_seeds_give_equal_axes() -> None:
    one, same, other = (principal_axes(features(), 8, seed) for seed in (3, 3, 4))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("shape", [(300, 120), (40, 120), (1, 50), (50, 1), (1, 1)])
@pytest.mark.parametrize("unlike", [0, 3, 5])
def test_columns_of_unlike_size_keep_their_axes(scale: float, shape: tuple[int, int], unlike: int) -> None:
    """Three columns that are 10^unlike times as large as the others take three axes, and not all of them."""
    rng = np.random.default_rng(0)
    dense = rng.standard_normal(shape) * (rng.random(shape) < 0.3) / np.arange(1, shape[1] + 1)
    dense[:, :3] *= 10.0**unlike
    axes = principal_axes(scipy.sparse.csr_matrix(scale * dense), 20, seed=0)
    assert np.isfinite(axes).all()
    there = min(20, *shape)
    np.testing.assert_allclose(axes.T @ axes, np.diag(np.arange(20) < there), atol=1e-5)
    left = np.square(dense - (dense @ axes) @ axes.T).sum()
    best = np.square(np.linalg.svd(dense, compute_uv=False)[there:]).sum()
    assert left <= 1.1 * best + 1e-9 * np.square(dense).sum()
    others = dense - (dense @ axes) @ axes.T
    assert np.square(others).sum() <= 1.1 * best + 1e-11 * np.square(dense).sum()
