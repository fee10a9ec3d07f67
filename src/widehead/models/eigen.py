"""The largest positive eigenvalues of a large sparse matrix; vectors of words start from its eigenvectors.

Letters: D rows, k eigenvalues, b columns of a block, c columns of the basis.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from widehead.models.sparse import as_torch

# Narrow blocks make a basis of the same size that holds higher powers of the matrix; 64 columns still keep a product
# with it busy.
_BLOCK = 64


def positive_eigenpairs(matrix: Any, k: int, *, basis: int, seed: int) -> tuple[Tensor, Tensor]:
    """The k largest positive eigenvalues of S = (M + Mᵀ)/2, falling, and their eigenvectors: (k,) and (D, k) float32.

    HHᵀ with H = UΛ^½ fits S best, in squared error over all pairs, of all products of a (D, k) matrix with its own
    transpose: negative eigenvalues have no place in it. Found by Rayleigh's and Ritz's method in the space of Ω, SΩ,
    S²Ω, … for a random Ω (D, b) (Musco and Musco 2015, "Randomized block Krylov methods", algorithm 2); by dense
    linear algebra if that space would be everything. If there are fewer positive eigenvalues than k, the last
    ones are 0, and so are their vectors.

    Args:
        matrix: (D, D) scipy sparse M.
        k: how many.
        basis: c, dimensions of that space, at least k; rounded up to whole blocks. The more, the closer.
        seed: of Ω.
    """
    symmetric = ((matrix + matrix.T) * np.float32(0.5)).tocsr().astype(np.float32)
    blocks = -(-basis // _BLOCK)
    if blocks * _BLOCK >= symmetric.shape[0]:
        values, vectors = torch.linalg.eigh(torch.from_numpy(symmetric.toarray()).double())
    else:
        space, images = _krylov(symmetric, blocks, seed)
        small = (space.T @ images).double()
        values, vectors = torch.linalg.eigh((small + small.T) / 2.0)
        vectors = space @ vectors[:, -k:].float()
    values, vectors = values.flip(0)[:k], vectors.flip(1)[:, :k]
    # Rounding leaves traces, of either sign, of eigenvalues that are 0.
    positive = values > 1e-5 * values[0].abs()
    missing = k - values.numel()
    kept, shown = (torch.where(positive, part, 0.0).float() for part in (values, vectors))
    return torch.nn.functional.pad(kept, (0, missing)), torch.nn.functional.pad(shown, (0, missing))


def _krylov(matrix: Any, blocks: int, seed: int) -> tuple[Tensor, Tensor]:
    """An orthonormal basis (D, blocks·b) of the Krylov space, and the product of the matrix with it."""
    size, operator = matrix.shape[0], as_torch(matrix)
    basis, images = torch.empty(size, blocks * _BLOCK), torch.empty(size, blocks * _BLOCK)
    block = torch.randn(size, _BLOCK, generator=torch.Generator().manual_seed(seed))
    for start in range(0, blocks * _BLOCK, _BLOCK):
        known = basis[:, :start]
        for _ in range(2):  # the second time takes off what rounding left of the first
            block = torch.linalg.qr(block - known @ (known.T @ block))[0]
        basis[:, start : start + _BLOCK] = block
        block = images[:, start : start + _BLOCK] = operator @ block
    return basis, images
