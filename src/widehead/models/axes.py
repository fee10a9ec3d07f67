"""Axes of the space that sparse features span most: latent semantic analysis without its rotation.

Letters: n documents, N features, d axes; X (n, N) features.
"""

from typing import Any

import numpy as np

from widehead.progress import Work

_POWERS = 2  # of XᵀX; the second one halves what the first leaves out, further ones give less than they cost
_ROUNDING = 1e-5  # of the largest eigenvalue of XᵀX: float32 knows smaller ones to no better than 1 %


def principal_axes(features: Any, width: int, seed: int) -> np.ndarray:
    """(N, width) float32 Z with orthonormal columns, for which XZZᵀ is close to X: a randomised range finder.

    Z spans nearly the space of the first singular vectors of X (Halko, Martinsson, Tropp, "Finding structure with
    randomness", SIAM Review 2011, algorithm 4.4). It is not turned to be these vectors, since a least-squares layer on
    XZ is the same for every basis. X can have fewer than ``width`` axes, min(n, N) at most: the columns of zeros at
    the end stand for those that are not there.

    Args:
        features: X, scipy CSR; rows without features do no harm.
        width: d, at least 1.
        seed: of the random start; equal seeds give equal axes.

    >>> import scipy.sparse
    >>> axes = principal_axes(scipy.sparse.csr_matrix(np.diag([3.0, 2.0])), 3, seed=0)
    >>> np.round(np.abs(axes.T @ axes), 3).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    precise = features.tocsr().astype(np.float64)
    precise /= np.abs(precise.data).max(initial=0.0) or 1.0  # so that no square is beyond float32
    there = min(width, *precise.shape)
    start = np.random.default_rng(seed).standard_normal((precise.shape[1], there), dtype=np.float32)
    work = Work("axes of the features", _POWERS)
    for dtype in (np.float32, np.float64):
        matrix, axes = precise.astype(dtype), start.astype(dtype)
        transposed = matrix.T.tocsr()
        for _ in range(_POWERS):
            axes, triangle = np.linalg.qr(transposed @ (matrix @ axes))
            work.add(1)
        sizes = np.abs(np.diag(triangle))
        if sizes.min(initial=1.0) > _ROUNDING * sizes.max(initial=0.0):  # else what float32 found last is rounding
            break
    return np.pad(axes.astype(np.float32), ((0, 0), (0, width - there)))
