"""Leading singular vectors of a sparse matrix, by subspace iteration with a Chebyshev filter.

Letters: X (m, n), k vectors wanted; Y (l, s) is X or Xᵀ, the one with fewer columns, divided by its largest entry, so
that no square is beyond the type; A = YᵀY (s, s), of which b > k vectors are sought: time and memory go with the
smaller side.

scikit-learn's randomised range finder needs as long as this for less: with 12 power iterations on Gowalla's users and
items (k = 128) it holds 469.57 of Σσ², of which there is 469.29.
"""

from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from widehead.models.sparse import product_of
from widehead.progress import Work

_SPARE = 32  # vectors beyond k: the last ones of a subspace are the least accurate
_DEGREE = 6  # of the filter
_ROUNDS = 12  # at most, of filters and powers; 2 do for interactions, more if values lie close
_CLOSE = 2e-3  # of an eigenvalue: how far off it may be, as its residual tells; half of that for singular values
_SMALL = 1000  # rows of A up to which dense linear algebra is as quick
_RANGE = 100.0  # float32 tells no eigenvalues apart that are so much smaller than the largest: float64 takes over
_FAR = 30.0  # what the filter makes of eigenvalues so far above its interval drowns all others in rounding
_BLOCK, _NUMBERS = 128, 1 << 24  # columns multiplied at a time, and numbers, which bounds the memory of a product
_ROWS = 1 << 13  # rows turned at a time
_TURN = 4.0  # products that take as long as a turn of a subspace


class SparseMatrix:
    """X (m, n) for products with dense blocks.

    Args:
        matrix: scipy sparse matrix.
        device, dtype: of its numbers, and of what is made from them.
    """

    def __init__(self, matrix: Any, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self.shape: tuple[int, int] = matrix.shape
        self.device, self.dtype = device, dtype
        tall = (matrix if self.shape[1] <= self.shape[0] else matrix.T).tocsr()
        values = tall.data.astype(np.float64)
        self.scale = float(np.abs(values).max(initial=0.0)) or 1.0
        with np.errstate(invalid="ignore"):  # infinity is refused by those who ask for vectors
            values /= self.scale
        self.tall = scipy.sparse.csr_matrix((values, tall.indices, tall.indptr), shape=tall.shape)

    def dense_gram(self) -> Tensor:
        """(s, s) float64 A."""
        return torch.from_numpy((self.tall.T @ self.tall).toarray()).to(self.device)


class _Products:
    """Products with Y (l, s) and A, in one type."""

    def __init__(self, matrix: SparseMatrix, dtype: torch.dtype) -> None:
        tall = matrix.tall
        self.plain, self.transposed = (product_of(part, matrix.device, dtype) for part in (tall, tall.T.tocsr()))
        self.size = tall.shape[1]
        self.block = min(_BLOCK, max(16, _NUMBERS // max(1, tall.shape[0]) // 16 * 16))

    def gram_times(self, block: Tensor) -> Tensor:
        """(s, b) A·block, all columns at once."""
        return self.transposed(self.plain(block))

    def gram_into(self, vectors: Tensor, out: Tensor) -> None:
        """``out`` (s, b), which may be ``vectors``, becomes A·vectors, some columns at a time."""
        for source, target in zip(*(part.split(self.block, dim=1) for part in (vectors, out)), strict=True):
            target.copy_(self.gram_times(source.contiguous()))

    def images(self, vectors: Tensor, rows: int) -> Tensor:
        """(l, k) Y·vectors, some columns at a time."""
        found = vectors.new_empty(rows, vectors.shape[1])
        for source, target in zip(*(part.split(self.block, dim=1) for part in (vectors, found)), strict=True):
            target.copy_(self.plain(source.contiguous()))
        return found


def leading_singular_vectors(matrix: SparseMatrix, k: int) -> tuple[Tensor, Tensor]:
    """The k largest singular values (k,), falling, and their right singular vectors (n, k).

    Singular values of interactions fall slowly, and powers of A tell neighbours apart as slowly. A polynomial that is
    small on [0, b], with b the least value that the subspace holds, does in 6 products what takes a power dozens
    (Zhou and Saad, SIAM J. Matrix Anal. Appl. 29, 2007). Start vectors come from torch's generator of the device.
    Directions in which X is 0, or less than 10⁻⁶ of what it is in the first one, get the value 0 and zeros for a
    vector. Of blocks (s, k + 32) two are in memory, and what one product needs.

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
        vectors = _Products(matrix, vectors.dtype).images(vectors, n)
    lengths = torch.linalg.vector_norm(vectors, dim=0)
    vectors.mul_(torch.where(there, 1.0 / lengths, 0.0).to(vectors.dtype))
    return (singular * matrix.scale).to(matrix.dtype), vectors.to(matrix.dtype)


def _iterated(matrix: SparseMatrix, k: int) -> tuple[Tensor, Tensor]:
    """The k largest eigenvalues (k,) float64 of A, falling, and their eigenvectors (s, k)."""
    products = _Products(matrix, matrix.dtype)
    shape = products.size, k + _SPARE
    space = _Subspace(products, torch.randn(*shape, device=matrix.device, dtype=matrix.dtype))
    if matrix.dtype != torch.float64 and space.values[0] > _RANGE * space.values[-1]:
        products = _Products(matrix, torch.float64)
        space = _Subspace(products, space.release().to(torch.float64))
    for number in range(_ROUNDS):
        space.expects(max(2, number + 1))
        residuals, values = space.residuals(), space.values
        low = values[-1]
        errors = torch.minimum(residuals, residuals.square() / (values - low).clamp_min(1e-300))[:k]
        if low <= 1e-13 * values[0] or bool((errors <= _CLOSE * values[:k]).all()):
            break
        far = int((values > _FAR * low).sum())
        if bool((residuals.square() <= 1e-4 * low * values)[:far].all()):
            space.filter(far)
        space.turn()
    return space.values[:k], space.release()[:, :k]


class _Subspace:
    """Ritz pairs of A: ``values`` (b,) float64, falling, and two blocks (s, b): orthonormal vectors V, and AV.

    What follows is computed in the place of what it is made from, as each block may be gigabytes.

    Args:
        products: with A.
        start: (s, b) used up; V spans A·start.
    """

    def __init__(self, products: _Products, start: Tensor) -> None:
        self.products, self._images = products, start
        self.work = Work("singular vectors", 3 * _TURN + 2 * _DEGREE)  # as if there were two rounds
        products.gram_into(start, start)
        self.turn()

    def expects(self, rounds: int) -> None:
        """Say how many rounds of the filter there will be."""
        self.work.size = (1 + rounds) * _TURN + rounds * _DEGREE

    def turn(self) -> None:
        """New pairs, within the space that the images, or what took their place, span."""
        self._basis = torch.linalg.qr(self._images)[0]
        self.products.gram_into(self._basis, self._images)
        inner = (self._basis.T @ self._images).to(torch.float64)
        values, rotation = torch.linalg.eigh((inner + inner.T) / 2.0)
        self.values, turned = values.flip(0), rotation.flip(1).to(self._basis.dtype)
        for block in (self._basis, self._images):
            for rows in block.split(_ROWS):
                rows.copy_(rows @ turned)
        self.work.add(_TURN)

    def release(self) -> Tensor:
        """V, after which this is used up."""
        del self._images
        return self.__dict__.pop("_basis")

    def residuals(self) -> Tensor:
        """(b,) float64 how far A·v is from λ·v."""
        block, values = self.products.block, self.values.to(self._basis.dtype)
        parts = zip(*(part.split(block, dim=-1) for part in (self._images, self._basis, values)), strict=True)
        found = [torch.linalg.vector_norm(image - basis * value, dim=0) for image, basis, value in parts]
        return torch.cat(found).to(torch.float64)

    def filter(self, far: int) -> None:
        """Put p(B)·V in the place of the images, with B, else A, 0 on the first ``far`` vectors, which stay.

        p is the Chebyshev polynomial of [0, the least of ``values``], scaled to 1 at the largest that is left.
        """
        self._images[:, :far] = self._basis[:, :far]
        self._kept, self._half = self._basis[:, :far], float(self.values[-1]) / 2.0
        parts = (part[:, far:].split(self.products.block, dim=1) for part in (self._basis, self._images))
        for vectors, images in zip(*parts, strict=True):
            images.copy_(self._filtered(vectors.contiguous(), images.contiguous(), float(self.values[far])))
            self.work.add(_DEGREE * images.shape[1] / len(self.values))
        del self._kept

    def _filtered(self, before: Tensor, image: Tensor, largest: float) -> Tensor:
        scale = first = self._half / (1.02 * largest - self._half)
        now = self._centred(before, image) * (scale / self._half)
        for _ in range(_DEGREE - 1):
            following = 1.0 / (2.0 / first - scale)
            after = self._centred(now, self.products.gram_times(now)).mul_(2.0 * following / self._half)
            before, now, scale = now, after.sub_(before, alpha=scale * following), following
        return now

    def _centred(self, block: Tensor, image: Tensor) -> Tensor:
        """(B − half·I)·block, from A·block."""
        return torch.addmm(image, self._kept, self._kept.T @ image, alpha=-1.0).sub_(block, alpha=self._half)
