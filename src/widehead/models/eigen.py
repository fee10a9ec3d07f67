"""The largest positive eigenvalues of a large sparse matrix; vectors of words start from its eigenvectors.

Letters: D rows, k eigenvalues, b columns of a block, c columns of the basis.
"""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from widehead.models.sparse import product_of
from widehead.progress import Work
from widehead.split import Share

# Narrow blocks make a basis of the same size that holds higher powers of the matrix; 64 columns still keep a product
# with it busy.
_BLOCK = 64
_CLOSE = 2e-3  # of an eigenvalue: how far off it may be, as its residual tells, before a narrow basis grows
_WIDE = 1024  # columns to which it grows at most


def positive_eigenpairs(matrix: Any, k: int, *, basis: int, seed: int) -> tuple[Tensor, Tensor]:
    """The k largest positive eigenvalues of S = (M + Mᵀ)/2, falling, and their eigenvectors: (k,) and (D, k) float32.

    HHᵀ with H = UΛ^½ fits S best, in squared error over all pairs, of all products of a (D, k) matrix with its own
    transpose: negative eigenvalues have no place in it. Found by Rayleigh's and Ritz's method in the space of Ω, SΩ,
    S²Ω, … for a random Ω (D, b) (Musco and Musco 2015, "Randomized block Krylov methods", algorithm 2); by dense
    linear algebra if that space would be everything. If there are fewer positive eigenvalues than k, the last
    ones are 0, and so are their vectors.

    Args:
        matrix: (D, D) scipy sparse M, or one as `SymmetricPart` has it.
        k: how many.
        basis: c, dimensions of that space, rounded up to whole blocks of 64. The more, the closer. It grows to 1,024 at
            most as long as residuals tell that an eigenvalue is 0.2 % off. An eigenvalue that is there more often than
            64 times may be found less often.
        seed: of Ω.

    Raises:
        ValueError: M holds NaN or infinity.
    """
    symmetric = matrix if isinstance(matrix, SymmetricPart) else WholeSymmetricPart(matrix)
    if not np.isfinite(symmetric.scale):
        raise ValueError("The matrix should hold finite numbers. Found NaN or infinity.")
    values, vectors = _leading(symmetric, k, -(-max(basis, k) // _BLOCK), seed)
    # Rounding leaves traces, of either sign, of eigenvalues that are 0.
    positive = values > 1e-5 * values[0].abs()
    missing = k - values.numel()
    kept, shown = (torch.where(positive, part, 0.0).float() for part in (values * symmetric.scale, vectors))
    return torch.nn.functional.pad(kept, (0, missing)), torch.nn.functional.pad(shown, (0, missing))


class SymmetricPart(ABC):
    """S/σ (D, D) for a matrix M and σ = max abs(M), so that no square is beyond float32.

    Attributes:
        size: D. scale: σ, 1 if all are 0; not finite if one of the numbers is not.
    """

    size: int
    scale: float

    @abstractmethod
    def times(self, block: Tensor) -> Tensor:
        """Its product with a (D, b) float32 block."""

    @abstractmethod
    def dense(self) -> Tensor:
        """(D, D) float64, of numbers that were rounded to float32."""


class WholeSymmetricPart(SymmetricPart):
    """Of a (D, D) scipy sparse M."""

    def __init__(self, matrix: Any) -> None:
        self.size = matrix.shape[0]
        self.scale = float(np.abs(matrix.data).max(initial=0.0)) or 1.0
        symmetric = ((matrix + matrix.T) * 0.5).tocsr().astype(np.float64)
        with np.errstate(invalid="ignore"):  # infinity is refused by those who ask for eigenvalues
            self._matrix = (symmetric / self.scale).astype(np.float32)
        self._product = product_of(self._matrix)

    def times(self, block: Tensor) -> Tensor:
        return self._product(block)

    def dense(self) -> Tensor:
        return torch.from_numpy(self._matrix.toarray()).double()


class SharedSymmetricPart(SymmetricPart):
    """Of a matrix whose rows are dealt out; all processes call its methods together.

    Args:
        matrix: (D_r, D) scipy sparse, the rows of a share.
        share: of the rows.
    """

    def __init__(self, matrix: Any, share: Share) -> None:
        self.size, self._share, self._matrix = matrix.shape[1], share, matrix.tocsr()
        self.scale = share.largest(float(np.abs(matrix.data).max(initial=0.0)))[0] or 1.0
        with np.errstate(invalid="ignore"):
            half = (self._matrix.astype(np.float64) * (0.5 / self.scale)).astype(np.float32)
        self._by_rows, self._by_columns = product_of(half), product_of(half.T.tocsr())

    def times(self, block: Tensor) -> Tensor:
        """Rows here of MB/2σ, and the part of MᵀB/2σ that they make, summed over the processes."""
        own = self._share.own
        product = self._by_columns(block[own].contiguous())
        product[own] += self._by_rows(block)
        return self._share.split.sum_(product, "products")

    def dense(self) -> Tensor:
        """As that of one process, which each has then, to the last bit."""
        whole = torch.zeros(self.size, self.size)
        whole[self._share.own] = torch.from_numpy(self._matrix.toarray())
        self._share.split.sum_(whole, "products")
        return (((whole + whole.T) * 0.5).double() / self.scale).float().double()


def _leading(matrix: SymmetricPart, k: int, blocks: int, seed: int) -> tuple[Tensor, Tensor]:
    """The k largest eigenvalues (k,) float64, falling, and their vectors (D, k); fewer if D is less."""
    if blocks * _BLOCK >= matrix.size:
        values, vectors = torch.linalg.eigh(matrix.dense())
        return values.flip(0)[:k], vectors.flip(1)[:, :k]
    space, images = _krylov(matrix, blocks, seed)
    small = (space.T @ images).double()
    values, vectors = (part.flip(-1) for part in torch.linalg.eigh((small + small.T) / 2.0))
    least = 1e-6 * values.abs().max()  # what is closer to 0 is rounding of the product in float32
    values, chosen = torch.where(values > least, values, 0.0)[:k], vectors[:, :k].float()
    residuals = torch.linalg.vector_norm(images @ chosen - space @ (chosen * values.float()), dim=0)
    errors = torch.minimum(residuals, residuals**2 / values.clamp_min(least))
    if blocks * _BLOCK < _WIDE and bool((errors > _CLOSE * values)[values > 10.0 * least].any()):
        return _leading(matrix, k, 2 * blocks, seed)
    return values, space @ chosen


def _krylov(matrix: SymmetricPart, blocks: int, seed: int) -> tuple[Tensor, Tensor]:
    """An orthonormal basis (D, blocks·b) of the Krylov space, and the product of the matrix with it."""
    size, generator = matrix.size, torch.Generator().manual_seed(seed)
    basis, images = torch.empty(size, blocks * _BLOCK), torch.empty(size, blocks * _BLOCK)
    block, work = torch.randn(size, _BLOCK, generator=generator), Work("eigenvectors of words", blocks)
    for start in range(0, blocks * _BLOCK, _BLOCK):
        known = basis[:, :start]
        # A trace of chance stands in for directions that the space has already.
        chance = 1e-4 * size**-0.5 * torch.randn(size, _BLOCK, generator=generator)
        block = torch.nn.functional.normalize(block, dim=0) + chance
        for _ in range(2):  # the second time takes off what rounding left of the first
            block = torch.linalg.qr(block - known @ (known.T @ block))[0]
        basis[:, start : start + _BLOCK] = block
        block = images[:, start : start + _BLOCK] = matrix.times(block)
        work.add(1)
    return basis, images
