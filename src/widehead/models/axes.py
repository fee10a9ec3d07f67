"""Axes of the space that sparse features span most: latent semantic analysis without its rotation.

Letters: n documents, N features, d axes; X (n, N) features.
"""

from typing import Any

import numpy as np
import scipy.linalg
import torch

from widehead.models.sparse import product_of
from widehead.progress import Work
from widehead.split import Share, totals

_POWERS = 2  # of XᵀX; the second one halves what the first leaves out, further ones give less than they cost
_ROUNDING = 1e-5  # of the largest eigenvalue of XᵀX: float32 knows smaller ones to no better than 1 %
_BLOCK = 64  # axes that are multiplied at a time, which bounds the memory of a product


def principal_axes(features: Any, width: int, seed: int, share: Share | None = None) -> np.ndarray:
    """(N, width) float32 Z with orthonormal columns, for which XZZᵀ is close to X: a randomised range finder.

    Z spans nearly the space of the first singular vectors of X (Halko, Martinsson, Tropp, "Finding structure with
    randomness", SIAM Review 2011, algorithm 4.4). It is not turned to be these vectors, since a least-squares layer on
    XZ is the same for every basis. X can have fewer than ``width`` axes, min(n, N) at most: the columns of zeros at
    the end stand for those that are not there. Of blocks (N, width) there are the result and, meanwhile, one more.

    Args:
        features: X, scipy CSR; rows without features do no harm.
        width: d, at least 1.
        seed: of the random start; equal seeds give equal axes.
        share: of the rows, which X has alone; products with it are summed over the processes then. None for all.

    >>> import scipy.sparse
    >>> axes = principal_axes(scipy.sparse.csr_matrix(np.diag([3.0, 2.0])), 3, seed=0)
    >>> np.round(np.abs(axes.T @ axes), 3).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    precise = features.tocsr().astype(np.float64)
    largest, (rows,) = np.abs(precise.data).max(initial=0.0), totals(share, precise.shape[0])
    if share is not None:
        largest = share.largest(largest)[0]
    precise /= largest or 1.0  # so that no square is beyond float32
    there = min(width, rows, precise.shape[1])
    work = Work("axes of the features", _POWERS)
    for dtype in (np.float32, np.float64):
        axes, sizes = _range_of(precise.astype(dtype), there, seed, work, share)
        if sizes.min(initial=1.0) > _ROUNDING * sizes.max(initial=0.0):  # else what float32 found last is rounding
            break
    found = np.zeros((precise.shape[1], width), dtype=np.float32)
    found[:, :there] = axes
    return found


def _range_of(matrix: Any, width: int, seed: int, work: Work, share: Share | None) -> tuple[np.ndarray, np.ndarray]:
    """(N, width) orthonormal columns, in the type of X, and (width,) what the last power made of each before."""
    rng = np.random.default_rng(seed)
    dtype = torch.from_numpy(matrix.data).dtype
    plain, transposed = (product_of(part, dtype=dtype) for part in (matrix, matrix.T.tocsr()))
    # By columns, as LAPACK has them, so that products and factors take their place.
    axes = np.empty((matrix.shape[1], width), dtype=matrix.dtype, order="F")
    for first in range(0, width, _BLOCK):
        some = axes[:, first : first + _BLOCK]
        some[:] = rng.standard_normal(some.shape, dtype=np.float32)
    sizes = np.empty(0)
    for _ in range(_POWERS):
        for first in range(0, width, _BLOCK):
            some = axes[:, first : first + _BLOCK]
            product = transposed(plain(torch.from_numpy(np.ascontiguousarray(some)))).numpy()
            some[:] = product if share is None else share.total(product)
        axes, triangle = scipy.linalg.qr(axes, mode="economic", overwrite_a=True, check_finite=False)
        sizes = np.abs(np.diag(triangle))
        work.add(1)
    return axes, sizes
