"""Leading singular vectors of a sparse matrix, by subspace iteration with a Chebyshev filter.

Letters: X (m, n), k vectors wanted; Y (l, s) is X or Xᵀ, the one with fewer columns, divided by its largest entry, so
that no square is beyond the type; A = YᵀY (s, s), of which b > k vectors are sought: time and memory go with the
smaller side.

scikit-learn's randomised range finder needs as long as this for less: with 12 power iterations on Gowalla's users and
items (k = 128) it holds 469.57 of Σσ², of which there is 469.29.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

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

    def products(self, dtype: torch.dtype) -> Products:
        """What multiplies with it, in a type."""
        return _PlainProducts(self, dtype)


class Products(ABC):
    """Products with Y (l, s) and A, in one type, and what else is summed over rows of blocks.

    A block has s rows, those of Y's columns, or a process's part of them.

    Attributes:
        block: columns that are multiplied at a time.
        height: rows of an image.
    """

    block: int
    height: int

    @abstractmethod
    def gram_times(self, block: Tensor) -> Tensor:
        """A·block, all columns at once."""

    @abstractmethod
    def image(self, block: Tensor) -> Tensor:
        """Y·block, all columns at once."""

    @abstractmethod
    def start(self, columns: int) -> Tensor:
        """A block of normal numbers from torch's generator."""

    @abstractmethod
    def orthonormal(self, block: Tensor) -> Tensor:
        """An orthonormal basis of what the columns span."""

    @abstractmethod
    def rows_of(self, whole: Tensor) -> Tensor:
        """The block of what has all s rows."""

    @abstractmethod
    def inner(self, left: Tensor, right: Tensor) -> Tensor:
        """leftᵀ·right of two blocks."""

    @abstractmethod
    def lengths(self, block: Tensor) -> Tensor:
        """Euclidean norms of the columns."""

    @abstractmethod
    def largest(self, block: Tensor) -> Tensor:
        """The number of each column whose absolute value is largest."""

    def eigh(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """As torch.linalg.eigh."""
        found: tuple[Tensor, Tensor] = torch.linalg.eigh(matrix)
        return found

    def gram_into(self, vectors: Tensor, out: Tensor) -> None:
        """``out``, which may be ``vectors``, becomes A·vectors, some columns at a time."""
        self._in_blocks(self.gram_times, vectors, out)

    def images(self, vectors: Tensor) -> Tensor:
        """(l, k) Y·vectors, or a process's part of its rows, some columns at a time."""
        found = vectors.new_empty(self.height, vectors.shape[1])
        self._in_blocks(self.image, vectors, found)
        return found

    def _in_blocks(self, times: Callable[[Tensor], Tensor], vectors: Tensor, out: Tensor) -> None:
        for source, target in zip(*(part.split(self.block, dim=1) for part in (vectors, out)), strict=True):
            target.copy_(times(source.contiguous()))


def columns_at_a_time(rows: int) -> int:
    """Columns of a block that are multiplied at a time, if a product has so many rows in between."""
    return min(_BLOCK, max(16, _NUMBERS // max(1, rows) // 16 * 16))


class _PlainProducts(Products):
    """Those of a process that has all."""

    def __init__(self, matrix: SparseMatrix, dtype: torch.dtype) -> None:
        self.tall, self.device, self.dtype = matrix.tall, matrix.device, dtype
        self.plain, self.transposed = (
            product_of(part, matrix.device, dtype) for part in (self.tall, self.tall.T.tocsr())
        )
        self.height = self.tall.shape[0]
        self.block = columns_at_a_time(self.height)

    def gram_times(self, block: Tensor) -> Tensor:
        return self.transposed(self.plain(block))

    def image(self, block: Tensor) -> Tensor:
        return self.plain(block)

    def start(self, columns: int) -> Tensor:
        return torch.randn(self.tall.shape[1], columns, device=self.device, dtype=self.dtype)

    def orthonormal(self, block: Tensor) -> Tensor:
        basis: Tensor = torch.linalg.qr(block)[0]
        return basis

    def rows_of(self, whole: Tensor) -> Tensor:
        return whole

    def inner(self, left: Tensor, right: Tensor) -> Tensor:
        return left.T @ right

    def lengths(self, block: Tensor) -> Tensor:
        return torch.linalg.vector_norm(block, dim=0)

    def largest(self, block: Tensor) -> Tensor:
        highest, lowest = block.aminmax(dim=0)[::-1]
        return torch.where(highest >= -lowest, highest, lowest)


class Factorable(Protocol):
    """A matrix X (m, n) whose singular vectors can be found."""

    shape: tuple[int, int]
    dtype: torch.dtype
    scale: float

    def dense_gram(self) -> Tensor:
        """(s, s) float64 A."""

    def products(self, dtype: torch.dtype) -> Products:
        """What multiplies with it, in a type."""


def leading_singular_vectors(matrix: Factorable, k: int) -> tuple[Tensor, Tensor]:
    """The k largest singular values (k,), falling, and their right singular vectors (n, k).

    Singular values of interactions fall slowly, and powers of A tell neighbours apart as slowly. A polynomial that is
    small on [0, b], with b the least value that the subspace holds, does in 6 products what takes a power dozens
    (Zhou and Saad, SIAM J. Matrix Anal. Appl. 29, 2007). Start vectors come from torch's generator of the device.
    Directions in which X is 0, or less than 10⁻⁶ of what it is in the first one, get the value 0 and zeros for a
    vector. The largest number of each vector is positive. Of blocks (s, k + 32) two are in memory, and what one product
    needs.

    Args:
        matrix: X; of a `SharedMatrix` the vectors have those of the n rows that it says.
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
        products = matrix.products(torch.float64)
        values, vectors = (part.flip(-1)[..., :k] for part in products.eigh(matrix.dense_gram()))
        vectors = products.rows_of(vectors)
        del products
    else:
        values, vectors = _iterated(matrix, k)
    there = values > 1e-12 * values[0]
    singular = torch.where(there, values, 0.0).sqrt()
    products = matrix.products(vectors.dtype)
    if m < n:
        vectors = products.images(vectors)
    signs = torch.where(products.largest(vectors) < 0, -1.0, 1.0)
    vectors.mul_(torch.where(there, signs / products.lengths(vectors), 0.0).to(vectors.dtype))
    return (singular * matrix.scale).to(matrix.dtype), vectors.to(matrix.dtype)


def _iterated(matrix: Factorable, k: int) -> tuple[Tensor, Tensor]:
    """The k largest eigenvalues (k,) float64 of A, falling, and a block of their eigenvectors, k columns."""
    products = matrix.products(matrix.dtype)
    space = _Subspace(products, products.start(k + _SPARE))
    if matrix.dtype != torch.float64 and space.values[0] > _RANGE * space.values[-1]:
        products = matrix.products(torch.float64)
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
    """Ritz pairs of A: ``values`` (b,) float64, falling, and two blocks of b columns: orthonormal vectors V, and AV.

    What follows is computed in the place of what it is made from, as each block may be gigabytes.

    Args:
        products: with A.
        start: b columns, used up; V spans A·start.
    """

    def __init__(self, products: Products, start: Tensor) -> None:
        self.products, self._images = products, start
        self.work = Work("singular vectors", 3 * _TURN + 2 * _DEGREE)  # as if there were two rounds
        products.gram_into(start, start)
        self.turn()

    def expects(self, rounds: int) -> None:
        """Say how many rounds of the filter there will be."""
        self.work.size = (1 + rounds) * _TURN + rounds * _DEGREE

    def turn(self) -> None:
        """New pairs, within the space that the images, or what took their place, span."""
        self._basis = self.products.orthonormal(self._images)
        self.products.gram_into(self._basis, self._images)
        inner = self.products.inner(self._basis, self._images).to(torch.float64)
        values, rotation = self.products.eigh((inner + inner.T) / 2.0)
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
        found = [self.products.lengths(image - basis * value) for image, basis, value in parts]
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
        return torch.addmm(image, self._kept, self.products.inner(self._kept, image), alpha=-1.0).sub_(
            block, alpha=self._half
        )
