"""How large a step is for the curvature of the loss: the largest eigenvalue of ΛHHᵀ, followed from step to step.

Letters: H (m, d) hidden, Λ = diag(λ) (m,). A step of size η is stable while ηλmax < 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from widehead.factored.gradient import OutputGradient

__all__ = ["CurvatureMonitor"]

_FIRST, _LATER, _PRECISE = 20, 2, 60  # power iterations


class CurvatureMonitor:
    """Power iteration that keeps its vector between steps, because hidden layers change slowly: O(md) a step.

    The Rayleigh quotient bounds λmax from below, so a warning that rests on it is never false.
    """

    def __init__(self) -> None:
        self.vector: Tensor | None = None

    def bound(self, gradient: OutputGradient) -> float:
        """Upper bound Σ|λ|‖h‖² of λmax(ΛHHᵀ): where even this is small, there is no need to look closer."""
        hidden = gradient.read.hidden
        return float(torch.dot(gradient.curvature.abs(), torch.linalg.vecdot(hidden, hidden)))

    def largest(self, gradient: OutputGradient, *, precise: bool = False) -> float:
        """Lower bound of λmax(ΛHHᵀ), close after a few calls; at once (to about a percent) with ``precise``."""
        hidden, lam = gradient.read.hidden, gradient.curvature
        if hidden.shape[0] == 0:
            return 0.0
        vector = self.vector
        iterations = _LATER
        if vector is None or vector.shape != hidden.shape[1:] or vector.device != hidden.device or precise:
            # Start at the batch's most curved example: never orthogonal to the dominant direction of its own term.
            worst = torch.argmax(lam.abs() * torch.linalg.vecdot(hidden, hidden))
            vector, iterations = hidden[worst], _PRECISE if precise else _FIRST
        quotient = vector.new_zeros(())
        for _ in range(iterations):
            along = hidden @ vector
            quotient = (lam * along * along).sum() / torch.dot(vector, vector)
            vector = hidden.T @ (lam * along)
            vector = vector / torch.linalg.vector_norm(vector).clamp_min(torch.finfo(vector.dtype).tiny)
        # A vector that is zero or not finite would stay so for ever.
        usable = bool(torch.isfinite(vector).all() & (vector != 0).any())
        self.vector = vector if usable else None
        return float(torch.nan_to_num(quotient))
