"""Leading singular vectors of a sparse matrix, by subspace iteration with a Chebyshev filter.

Letters: X (m, n), k vectors wanted; Y (l, s) is X or Xᵀ, the one with fewer columns, divided by its largest entry, so
that no square is beyond the type; A = YᵀY (s, s), of which b > k vectors are sought: time and memory go with the
smaller side.

scikit-learn's randomised range finder needs as long as this for less: with 12 power iterations on Gowalla's users and
items (k = 128) it holds 469.57 of Σσ², of which there is 469.29.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from widehead.models.sparse import as_torch

_SPARE = 32  # vectors beyond k: the last ones of a subspace are the least accurate
_DEGREE = 6  # of the filter
_ROUNDS = 12  # at most, of filters and powers; 2 do for interactions, more if values lie close
_CLOSE = 2e-3  # of an eigenvalue: how far off it may be, as its residual tells; half of that for singular values
_SMALL = 1000  # rows of A up to which dense linear algebra is as quick
_RANGE = 100.0  # float32 tells no eigenvalues apart that are so much smaller than the largest: float64 takes over
_FAR = 30.0  # what the filter makes of eigenvalues so far above its interval drowns all others in rounding
_BLOCK, _NUMBERS = 128, 1 << 24  # columns multiplied at a time, and numbers, which bounds the memory of a product


class SparseMatrix:
    """X (m, n) for products with dense blocks.

    Args:
        matrix: scipy sparse matrix.
        device, dtype: of its numbers, and of what is made from them.
    """

    def __init__(self, matrix: Any, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self.shape: tuple[int, int] = matrix.shape
        self.device, self.dtype = device, dtype
        tall = (matrix if self.shape[1] <= self.shape[0] else matrix.T).tocsr().astype(np.float64)
        self.scale = float(np.abs(tall.data).max(initial=0.0)) or 1.0
        self.tall = tall / self.scale

    def dense_gram(self) -> Tensor:
        """(s, s) float64 A."""
        return torch.from_numpy((self.tall.T @ self.tall).toarray()).to(self.device)


class _Products:
    """Products with Y (l, s) and A, in one type."""

    def __init__(self, matrix: SparseMatrix, dtype: torch.dtype) -> None:
        parts = (matrix.tall, matrix.tall.T.tocsr())
        self.plain, self.transposed = (as_torch(part, matrix.device, dtype) for part in parts)
        self.block = min(_BLOCK, max(1, _NUMBERS // max(1, len(self.plain))))

    def gram_times(self, vectors: Tensor) -> Tensor:
        """(s, b) A·vectors, some columns at a time."""
        return torch.cat([self.transposed @ (self.plain @ part) for part in self.parts(vectors)], dim=1)

    def parts(self, vectors: Tensor) -> list[Tensor]:
        """The columns of (…, b) vectors, some at a time."""
        return [part.contiguous() for part in vectors.split(self.block, dim=1)]


def leading_singular_vectors(matrix: SparseMatrix, k: int) -> tuple[Tensor, Tensor]:
    """The k largest singular values (k,), falling, and their right singular vectors (n, k).

    Singular values of interactions fall slowly, and powers of A tell neighbours apart as slowly. A polynomial that is
    small on [0, b], with b the least value that the subspace holds, does in 6 products what takes a power dozens
    (Zhou and Saad, SIAM J. Matrix Anal. Appl. 29, 2007). Start vectors come from torch's generator of the device.
    Directions in which X is 0, or less than 10⁻⁶ of what it is in the first one, get the value 0 and zeros for a
    vector.

    Args:
        matrix: X.
        k: in [1, min(m, n)].

    Raises:
        ValueError: k is out of range, or X holds NaN or infinity.
    """
    m, n = matrix.shape
    if not 1 <= k <= min(m, n):
        raise ValueError(f"Parameter `k` should be in [1, {min(m, n)}], the smaller side of the matrix. Found {k}.")
    if not np.isfinite(matrix.scale):
        raise ValueError("The matrix should hold finite numbers. Found NaN or infinity.")
    if min(m, n) <= max(_SMALL, 4 * (k + _SPARE)):
        values, vectors = (part.flip(-1)[..., :k] for part in torch.linalg.eigh(matrix.dense_gram()))
    else:
        values, vectors = _iterated(matrix, k)
    there = values > 1e-12 * values[0]
    singular = torch.where(there, values, 0.0).sqrt()
    if m < n:
        products = _Products(matrix, vectors.dtype)
        vectors = torch.cat([products.plain @ part for part in products.parts(vectors)], dim=1)
    vectors = torch.where(there, vectors / torch.linalg.vector_norm(vectors, dim=0), 0.0)
    return (singular * matrix.scale).to(matrix.dtype), vectors.to(matrix.dtype)


def _iterated(matrix: SparseMatrix, k: int) -> tuple[Tensor, Tensor]:
    """The k largest eigenvalues (k,) float64 of A, falling, and their eigenvectors (s, k)."""
    products = _Products(matrix, matrix.dtype)
    size = products.plain.shape[1]
    start = torch.randn(size, k + _SPARE, device=matrix.device, dtype=matrix.dtype)
    values, basis, images = _ritz(products, products.gram_times(start))
    if matrix.dtype != torch.float64 and values[0] > _RANGE * values[-1]:
        products = _Products(matrix, torch.float64)
        values, basis, images = _ritz(products, products.gram_times(basis.to(torch.float64)))
    for _ in range(_ROUNDS):
        residuals = torch.linalg.vector_norm(images - basis * values.to(basis.dtype), dim=0).to(torch.float64)
        low = values[-1]
        errors = torch.minimum(residuals, residuals.square() / (values - low).clamp_min(1e-300))[:k]
        if low <= 1e-13 * values[0] or bool((errors <= _CLOSE * values[:k]).all()):
            break
        far = int((values > _FAR * low).sum())
        if bool((residuals.square() <= 1e-4 * low * values)[:far].all()):
            images = torch.cat([basis[:, :far], _filtered(products, values, basis, images, far)], dim=1)
        values, basis, images = _ritz(products, images)
    return values[:k], basis[:, :k]


def _ritz(products: _Products, span: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of A within the span (s, b): eigenvalues (b,) float64, falling, orthonormal vectors V (s, b), and AV."""
    basis = torch.linalg.qr(span)[0]
    images = products.gram_times(basis)
    inner = (basis.T @ images).to(torch.float64)
    values, rotation = torch.linalg.eigh((inner + inner.T) / 2.0)
    turned = rotation.flip(1).to(basis.dtype)
    return values.flip(0), basis @ turned, images @ turned


def _filtered(products: _Products, values: Tensor, basis: Tensor, images: Tensor, far: int) -> Tensor:
    """(s, b − far) p(B)·V of all columns but the first ``far``, which B, else A, is 0 on.

    p is the Chebyshev polynomial of [0, the least of ``values``], scaled to 1 at the largest that is left.
    """
    kept, half = basis[:, :far], float(values[-1]) / 2.0
    first = half / (1.02 * float(values[far]) - half)

    def centred(block: Tensor, image: Tensor) -> Tensor:
        return image - kept @ (kept.T @ image) - half * block

    def apply(block: Tensor, image: Tensor) -> Tensor:
        scale = first
        before, now = block, centred(block, image) * (scale / half)
        for _ in range(_DEGREE - 1):
            following = 1.0 / (2.0 / first - scale)
            after = centred(now, products.gram_times(now)) * (2.0 * following / half) - (scale * following) * before
            before, now, scale = now, after, following
        return now

    parts = zip(products.parts(basis[:, far:]), products.parts(images[:, far:]), strict=True)
    return torch.cat([apply(*part) for part in parts], dim=1)
