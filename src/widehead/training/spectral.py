"""The largest positive eigenvalues of a large sparse matrix, where vectors of words start from.

Letters: D rows, k eigenvalues, b = max(k, 16) columns of a block.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from widehead.data.sparse import CSR

__all__ = ["positive_eigenpairs"]


def positive_eigenpairs(matrix: CSR, k: int, *, blocks: int, seed: int) -> tuple[Tensor, Tensor]:
    """The k largest positive eigenvalues of S = (M + Mᵀ)/2, falling, and their eigenvectors: (k,) and (D, k) float32.

    HHᵀ with H = UΛ^½ fits S best, in squared error over all pairs, of all products of a (D, k) matrix with its own
    transpose: negative eigenvalues have no place in it. Found by Rayleigh's and Ritz's method in the space of Ω, SΩ, …,
    S^(blocks−1)Ω for a random Ω (D, b) (Musco and Musco 2015, "Randomized block Krylov methods", algorithm 2); by dense
    linear algebra where that space would be everything. Where there are fewer positive eigenvalues than k, the last
    ones are 0, and so are their vectors.

    Args:
        matrix: (D, D) scipy sparse M.
        k: how many.
        blocks: products of S with a (D, b) matrix, at least 2; the more, the closer.
        seed: of Ω.
    """
    symmetric = ((matrix + matrix.T) * np.float32(0.5)).tocsr().astype(np.float32)
    size, width = symmetric.shape[0], max(k, 16)
    if blocks * width >= size:
        values, vectors = torch.linalg.eigh(torch.from_numpy(symmetric.toarray()).double())
    else:
        basis, images = _krylov(symmetric, width, blocks, seed)
        small = (basis.T @ images).double()
        values, vectors = torch.linalg.eigh((small + small.T) / 2.0)
        vectors = basis @ vectors[:, -k:].float()
    values, vectors = values.flip(0)[:k], vectors.flip(1)[:, :k]
    # Rounding leaves traces, of either sign, of eigenvalues that are 0.
    positive = values > 1e-5 * values[0].abs()
    missing = k - values.numel()
    kept, shown = (torch.where(positive, part, 0.0).float() for part in (values, vectors))
    return torch.nn.functional.pad(kept, (0, missing)), torch.nn.functional.pad(shown, (0, missing))


def _krylov(matrix: CSR, width: int, blocks: int, seed: int) -> tuple[Tensor, Tensor]:
    """An orthonormal basis (D, blocks·b) of the Krylov space, and the product of the matrix with it."""
    places = (torch.from_numpy(part.astype(np.int64)) for part in (matrix.indptr, matrix.indices))
    operator = torch.sparse_csr_tensor(*places, torch.from_numpy(matrix.data), matrix.shape, check_invariants=False)
    size = matrix.shape[0]
    basis, images = torch.empty(size, blocks * width), torch.empty(size, blocks * width)
    block = torch.randn(size, width, generator=torch.Generator().manual_seed(seed))
    for start in range(0, blocks * width, width):
        known = basis[:, :start]
        for _ in range(2):  # the second time takes off what rounding left of the first
            block = torch.linalg.qr(block - known @ (known.T @ block))[0]
        basis[:, start : start + width] = block
        block = images[:, start : start + width] = operator @ block
    return basis, images
