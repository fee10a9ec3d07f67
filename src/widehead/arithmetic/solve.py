"""C = Hr(φ⊗I)U⁻¹P⁻¹…, by which target rows are written, from a system of m × m numbers, or d × d if m > d.

Letters: Hr = HR (m, d), Λ = diag(λ), κ = φ₁ of φ = f p⁻¹ for the step X ← X(p⊗I) + TᵀHr(f⊗I) (step_rule.py).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from widehead.arithmetic.gradient import OutputGradient
from widehead.arithmetic.small_state import SmallState, combined
from widehead.arithmetic.step_rule import StepRule

_LEAF = 64  # systems up to this size are inverted as a whole


@dataclass(frozen=True)
class Solution:
    """C and the factors of HᵀΛC = rightᵀ·left, which U⁻¹ loses.

    Attributes:
        rows: (m, order·d) C.
        left: (p, order·d), right: (p, d) with p = m, or d if the system is d × d.
        contraction: see `Figures`.
    """

    rows: Tensor
    left: Tensor
    right: Tensor
    contraction: Tensor | float = 0.0  # nothing is inverted


def solve(
    gradient: OutputGradient, rule: StepRule, small: SmallState, hr: Tensor, curvature: Tensor | None = None
) -> Solution | None:
    """C = Hr f̂ U_new⁻¹ by Woodbury and the push-through identity; None if p is singular, and no U⁻¹ is possible.

    C = (I + κHrHᵀΛ)⁻¹ Hr(φ⊗I)U⁻¹ if m ≤ d, and Hr(I + κHᵀΛHr)⁻¹(φ⊗I)U⁻¹ otherwise. If the system is singular
    the result is infinite or NaN, which the caller meets as ill conditioned.

    Args:
        curvature: (d, d) HᵀΛHr, if it is known; nobody asks for it if m ≤ d.
    """
    if rule.inverse() is None:
        return None
    phi = rule.carried()
    hidden, lam = gradient.read.hidden, gradient.by_squared_norm
    m, d = hidden.shape
    if m > d:
        curvature = hidden.T @ (lam[:, None] * hr) if curvature is None else curvature
        symmetric = hr is hidden and bool((lam >= 0.0).all())
        return _solve_by_columns(curvature, hr, small.inverse, phi, symmetric=symmetric)
    if rule.order == 1:
        given, scale = hr @ small.inverse, phi[0]
    else:
        given, scale = hr @ combined(small.inverse.split(d), phi), 1.0
    if phi[0] == 0.0:  # heavy ball: W is back from M alone
        rows = given * scale
        return Solution(rows, lam[:, None] * rows, hidden)
    rows, left, contraction = _solve_by_examples(hr @ hidden.T, lam, given, phi[0], scale)
    return Solution(rows, left, hidden, contraction)


def _solve_by_examples(
    products: Tensor, lam: Tensor, given: Tensor, kappa: float, scale: float
) -> tuple[Tensor, Tensor, Tensor | float]:
    """C = scale·(I + κKΛ)⁻¹G and ΛC, for K = HRHᵀ (m, m) symmetric and G (m, n); and the contraction.

    With Λ ≥ 0 the system is similar to the symmetric I + κ√ΛK√Λ, which is positive definite for steps that do not
    overshoot: a third of the time of a general inverse. C = scale·(G − κK√Λ·w), ΛC = scale·√Λ·w with w = (…)⁻¹√ΛG.
    """
    least, most = (float(x) for x in torch.aminmax(lam)) if lam.numel() else (0.0, 0.0)
    if least >= 0.0:
        alike = most - least <= 4.0 * torch.finfo(lam.dtype).eps * most
        root = lam.sqrt()
        system = products * (kappa * most) if alike else products * torch.outer(root * kappa, root)
        system.diagonal().add_(1.0)
        inverse = spd_inverse(system)
        contraction = 0.0 if inverse is None else _contraction(inverse)
        if inverse is not None and alike:
            rows = inverse.mul_(scale) @ given
            return rows, rows * lam[:, None], contraction
        if inverse is not None:
            solved = inverse.mul_(root[:, None]).mul_(root * scale) @ given  # ΛC
            return torch.add(given * scale, products @ solved, alpha=-kappa), solved, contraction
    system = products * (lam * kappa)
    system.diagonal().add_(1.0)
    # An inverse and a product take half the time of a solve with n right-hand sides, and if the system is so ill
    # conditioned that it matters, the step does without.
    inverse = torch.linalg.inv_ex(system).inverse
    contraction = _contraction(inverse)
    rows = inverse.mul_(scale) @ given
    return rows, rows * lam[:, None], contraction


def _solve_by_columns(
    curvature: Tensor, hr: Tensor, inverse: Tensor, phi: tuple[float, ...], *, symmetric: bool
) -> Solution:
    """C = Hr·X, X = (I + κB)⁻¹(φ⊗I)U⁻¹, B = HᵀΛHr (d, d); HᵀΛC = BX."""
    d = len(curvature)
    system = curvature * phi[0]
    system.diagonal().add_(1.0)
    solved = spd_inverse(system) if symmetric else None
    solved = torch.linalg.inv_ex(system).inverse if solved is None else solved
    inner = solved @ combined(inverse.split(d), phi)
    return Solution(hr @ inner, inner, curvature.T, _contraction(solved))


def _contraction(inverse: Tensor) -> Tensor:
    """() the mean of 1/σ − 1 over the eigenvalues σ of the system whose inverse is given (n, n); 0 without any."""
    return inverse.diagonal().sub(1.0).sum() / max(1, len(inverse))


def spd_inverse(matrix: Tensor) -> Tensor | None:
    """A⁻¹ of a symmetric A (n, n), or None if A is not positive definite (or not finite)."""
    n = matrix.shape[0]
    if n <= _LEAF:
        lower, info = torch.linalg.cholesky_ex(matrix)
        return None if int(info) != 0 else torch.cholesky_inverse(lower)
    # By halves, because products are several times quicker than the same work in LAPACK.
    half = n // 2
    first = spd_inverse(matrix[:half, :half])
    if first is None:
        return None
    across = first @ matrix[:half, half:]
    second = spd_inverse(torch.addmm(matrix[half:, half:], matrix[half:, :half], across, alpha=-1.0))
    if second is None:
        return None
    out = torch.empty_like(matrix)
    mixed = torch.mm(across, second)
    torch.addmm(first, mixed, across.T, out=out[:half, :half])
    torch.neg(mixed, out=out[:half, half:])
    out[half:, :half] = out[:half, half:].T
    out[half:, half:] = second
    return out
