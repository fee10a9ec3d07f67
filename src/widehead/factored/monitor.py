"""How large a step is for the curvature of the loss: the largest eigenvalue of ΛHHᵀ, or of ΛHRHᵀ.

Letters: H (m, d) hidden, Λ = diag(λ) (m,), R (d, d) preconditioner, Hr = HR. A step η is stable while ηλmax < 2.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from widehead.arithmetic import OutputGradient, PlacedTargets, TargetPlan

_FIRST, _LATER, _PRECISE, _TRUST = 20, 2, 60, 2  # power iterations


class LearningRateMonitor:
    """Power iteration that keeps its vector between steps, because hidden layers change slowly: O(md) a step.

    The Rayleigh quotient bounds λmax from below, so a warning that rests on it is never false.
    """

    def __init__(self) -> None:
        self.vector: Tensor | None = None

    def bound(self, gradient: OutputGradient) -> float:
        """Upper bound Σ|λ|‖h‖² of λmax(ΛHHᵀ): if even this is small, there is no need to look closer."""
        if gradient.bound is not None:
            return gradient.bound
        hidden = gradient.read.hidden
        return float(torch.dot(gradient.by_squared_norm.abs(), torch.linalg.vecdot(hidden, hidden)))

    def largest(self, gradient: OutputGradient, *, precise: bool = False) -> float:
        """Lower bound of λmax(ΛHHᵀ), close after a few calls; at once (to about a percent) with ``precise``."""
        hidden, lam = gradient.read.hidden, gradient.by_squared_norm
        if hidden.shape[0] == 0:
            return 0.0
        vector = self.vector
        iterations = _LATER
        if vector is None or vector.dtype != hidden.dtype or vector.device != hidden.device or precise:
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


def dense_curvature(hidden: Tensor, hr: Tensor, weights: Tensor) -> Tensor:
    """() λmax of the curvature that all classes share, Σ_b weights_b h_bᵀh_b, in the metric of R: weights (m,) ≥ 0.

    A few power iterations on the m × m matrix √w HRHᵀ √w, from the direction in which all examples agree: a lower
    bound, close if one direction stands out, which is when it matters.
    """
    root = weights.sqrt()
    # Vectors are weighted, not matrices, of which there would be copies.
    return _last_growth(lambda x: root * (hidden @ (hr.T @ (root * x))), root, _TRUST)


def target_curvature(plan: TargetPlan | PlacedTargets, hidden: Tensor, hr: Tensor, weights: Tensor) -> Tensor:
    """() the largest λmax over classes c of Σ_{b∋c} weights_bc h_bᵀh_b in the metric of R: weights (nnz,) ≥ 0.

    The same power iterations, for all classes of the batch side by side. One example may move its class's row no
    further than this allows, however rare the class is.
    """
    if weights.numel() == 0:
        return weights.new_zeros(())
    root = weights.sqrt()
    x, growth = root, weights.new_zeros(())
    for _ in range(_TRUST):
        y = root * plan.dots(hidden, plan.transposed_times(root * x, hr))
        before, after = plan.class_sums(x * x), plan.class_sums(y * y)
        growth = (after / before.clamp_min(torch.finfo(x.dtype).tiny)).max().sqrt()
        x = y
    return growth


def _last_growth(operator: Callable[[Tensor], Tensor], x: Tensor, iterations: int) -> Tensor:
    """() ‖Ax‖ / ‖x‖ after some power iterations, at least two; 0 if there is nothing."""
    tiny = torch.finfo(x.dtype).tiny
    for _ in range(iterations - 1):
        y = operator(x)
        x = y / torch.linalg.vector_norm(y).clamp_min(tiny)
    return torch.linalg.vector_norm(operator(x))
