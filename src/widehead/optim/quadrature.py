"""Inverse roots of matrices without eigenvalues, for which the host would wait for a GPU: by inverses alone.

λ^(−1/2) ≈ Σ_j w_j / (λ + s_j), with w_j and s_j from an integral over the square root's cut: method 3 of Hale, Higham
and Trefethen, "Computing A^α, log(A), and related matrix functions by contour integrals", SIAM J. Numer. Anal. 2008.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

_ERROR = 1e-13  # relative, of λ^(−1/2)
_AT_ONCE = 1 << 23  # numbers of the matrices that are inverted together
# What is added to a matrix that rounding has left with eigenvalues below 0, relative to its norm: the least that helps.
_HELP = (0.0, 1e-12, 1e-9, 1e-6, 1e-3, 1.0)


def inverse_root_by_quadrature(matrix: Tensor, damping: float) -> Tensor:
    """(A + damping·tr(A)/d·I)^(−1/2) (d, d) float64 of a symmetric matrix, as `inverse_root`, with no wait.

    If A has eigenvalues further below 0 than the damping reaches, more is added. 0 if tr(A) is not above 0.
    """
    d, kind = len(matrix), torch.finfo(torch.float64)
    matrix, damping = matrix.to(torch.float64), max(damping, kind.eps)
    matrix = 0.5 * (matrix + matrix.T)
    ridge = damping * torch.trace(matrix) / d
    added = _least_that_helps(matrix, ridge)
    identity, root = torch.eye(d, dtype=torch.float64, device=matrix.device), torch.zeros_like(matrix)
    for part in _nodes(1.0 + d / damping, matrix.device).split(max(1, _AT_ONCE // (d * d)), dim=1):
        shifts, weights = added * (1.0 + part[0]), added.sqrt() * part[1]
        lower, _ = torch.linalg.cholesky_ex(matrix + shifts[:, None, None] * identity)
        inverses = torch.linalg.solve_triangular(lower, weights.sqrt()[:, None, None] * identity, upper=False)
        root += inverses.flatten(0, 1).T @ inverses.flatten(0, 1)
    return torch.where(ridge <= kind.tiny, 0.0, root)


def _least_that_helps(matrix: Tensor, ridge: Tensor) -> Tensor:
    """() the least number, from ``ridge`` up, that makes a matrix positive definite when its diagonal gets it."""
    norm = torch.linalg.matrix_norm(matrix)
    candidates = torch.stack([ridge + help * norm for help in _HELP])
    identity = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    _, failed = torch.linalg.cholesky_ex(matrix + candidates[:, None, None] * identity)
    return torch.where(failed == 0, candidates, torch.inf).amin()


@lru_cache(maxsize=64)
def _nodes(condition: float, device: torch.device) -> Tensor:
    """(2, n) s and w, for λ from 1 to ``condition``; the host waits as they go to a device, once.

    s = sc(u)² and w ∝ dn(u)/cn(u)² of Jacobi's functions at equidistant u; those beyond the middle mirror the others.
    """
    small, a, b, means = condition**-0.5, 1.0, condition**-0.5, []
    while a - b > 1e-15 * a:  # arithmetic and geometric means (Abramowitz and Stegun, 16.4 and 17.6)
        means.append((a - b) / (a + b))
        a, b = 0.5 * (a + b), math.sqrt(a * b)
    half = math.ceil(-math.log(_ERROR) * (math.log(condition) + 3.0) / (4.0 * math.pi**2))
    nodes = []
    for j in range(half):
        angle = 2.0 ** len(means) * (j + 0.5) * math.pi / (4.0 * half)  # 2ⁿ·a·u, as K = π/2a
        for ratio in reversed(means):
            angle = 0.5 * (angle + math.asin(ratio * math.sin(angle)))
        sn, cn = math.sin(angle), math.cos(angle)
        scale, dn = 1.0 / (2.0 * a * half), math.hypot(cn, small * sn)
        nodes += [((sn / cn) ** 2, scale * dn / cn**2), (condition * (cn / sn) ** 2, scale * dn / (small * sn**2))]
    return torch.tensor(nodes, dtype=torch.float64).T.contiguous().to(device)
