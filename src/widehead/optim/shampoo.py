"""One-sided Shampoo on the weights of exact heads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from widehead.factored import OutputGradient
from widehead.optim.base import check_number
from widehead.optim.heads import FactoredHead
from widehead.optim.preconditioned import Curvature, Preconditioned

__all__ = ["Shampoo"]


class Shampoo(Preconditioned):
    """W ← W − lr·∇W·(C + δI)^(−1/2), with C an exponential average of GᵀG, G = ∇W.

    Shampoo (Gupta, Koren, Singer, ICML 2018) with the d × d side alone, as in ASGO (An et al. 2025); the D × D side is
    what no exact step could have. GᵀG = Hᵀ(TTᵀ)H follows from the m × m Gram matrix that a step needs anyway.

    Args:
        heads: an ExactHead or several.
        lr: how far W goes in a step, in each of the d directions, whatever the size of the gradient.
        damping: δ, relative to the mean eigenvalue of C.
        decay: how much of the average a step keeps, in [0, 1).
        refresh_every: steps between two renewals of the inverse root; at the beginning it is renewed in every step.
        weight_decay: decoupled.
        max_grad_norm: scale the gradient of each head down to this exact Frobenius norm where it is larger.

    Raises (`step`):
        NonFiniteError: NaN or infinity in some head's step; no head was changed.
        TypeError: the backward pass did not come from the head's own loss.
    """

    def __init__(
        self,
        heads: FactoredHead | Iterable[FactoredHead],
        lr: float | None = None,
        *,
        damping: float = 0.1,
        decay: float = 0.95,
        refresh_every: int = 20,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = None,
    ) -> None:
        check_number("decay", decay, below=1.0)
        check_number("refresh_every", refresh_every, least=1)
        super().__init__(
            heads,
            lr,
            damping=damping,
            weight_decay=weight_decay,
            max_grad_norm=max_grad_norm,
            decay=decay,
            refresh_every=refresh_every,
        )

    @staticmethod
    def default_lr(head: FactoredHead, options: dict[str, Any]) -> float:
        """A fixed length; what it is too much for, trust scales back."""
        return 0.3

    def _right(
        self,
        head: FactoredHead,
        gradient: OutputGradient,
        curvature: Curvature,
        group: dict[str, Any],
        state: dict[str, Any],
    ) -> tuple[Tensor, Tensor | None]:
        hidden = gradient.read.hidden
        kept = group["decay"] ** (state["steps"] + 1)
        product = gradient.gram_times(head.weights, hidden)
        added = (hidden.T @ product).to(torch.float64) * (1.0 - group["decay"])
        state["second_moment"] = state.get("second_moment", 0.0) * group["decay"] + added
        state["age"] = state.get("age", 0) + 1
        due = min(group["refresh_every"], 1 + state["steps"] // 10)
        if "inverse_root" not in state or state["age"] >= due:
            state["inverse_root"] = inverse_root(state["second_moment"] / (1.0 - kept), group["damping"])
            state["age"] = 0
        root = state["inverse_root"].to(hidden.dtype)
        return hidden @ root, product @ root


def inverse_root(matrix: Tensor, damping: float) -> Tensor:
    """(A + damping·tr(A)/d·I)^(−1/2) of a symmetric positive semidefinite float64 matrix (d, d); NaN for NaN."""
    if not bool(torch.isfinite(matrix).all()):
        return torch.full_like(matrix, torch.nan)
    values, vectors = torch.linalg.eigh(0.5 * (matrix + matrix.T))
    ridge = values.mean() * max(damping, torch.finfo(matrix.dtype).eps) + torch.finfo(matrix.dtype).tiny
    root: Tensor = (vectors * (values.clamp_min(0.0) + ridge).rsqrt()) @ vectors.T
    return root
