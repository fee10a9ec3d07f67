"""Orthogonalised steps on the weights of exact heads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from widehead.factored import OutputGradient
from widehead.optim.heads import FactoredHead
from widehead.optim.preconditioned import Curvature, Preconditioned
from widehead.optim.shampoo import inverse_root

__all__ = ["Muon"]


class Muon(Preconditioned):
    """W ← W − lr·G(GᵀG + δI)^(−1/2), G = ∇W: the step goes equally far in every direction that the gradient has.

    Muon (Jordan et al. 2024) without its momentum, and with the exact inverse root in the place of Newton–Schulz
    iterations. Where m ≤ d the root is taken of an m × m matrix: HR = (HHᵀ·TTᵀ + δI)^(−1/2) H.

    Args:
        heads: an ExactHead or several.
        lr: how far W goes in a step, in each direction, whatever the size of the gradient.
        damping: δ, relative to the mean eigenvalue of GᵀG.
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
        damping: float = 1e-2,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = None,
    ) -> None:
        super().__init__(heads, lr, damping=damping, weight_decay=weight_decay, max_grad_norm=max_grad_norm)

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
        state["age"] = 0
        hidden = gradient.read.hidden
        m, d = hidden.shape
        if m > d:
            product = gradient.gram_times(head.weights, hidden)
            root = inverse_root((hidden.T @ product).to(torch.float64), group["damping"]).to(hidden.dtype)
            return hidden @ root, product @ root
        kernel = gradient.gram_times(head.weights, torch.eye(m, dtype=hidden.dtype, device=hidden.device))
        right = _root_by_examples(hidden, kernel, group["damping"]).to(hidden.dtype)
        return right, kernel @ right


def _root_by_examples(hidden: Tensor, kernel: Tensor, damping: float) -> Tensor:
    """H(HᵀKH + δI)^(−1/2) (m, d) for K = TTᵀ (m, m): with HHᵀ = LLᵀ it is L(LᵀKL + δI)^(−1/2) L⁻¹H."""
    m, d = hidden.shape
    precise = hidden.to(torch.float64)
    products = precise @ precise.T
    jitter = torch.trace(products) * torch.finfo(torch.float64).eps + torch.finfo(torch.float64).tiny
    lower, _ = torch.linalg.cholesky_ex(products + jitter * torch.eye(m, dtype=torch.float64, device=hidden.device))
    inner = lower.T @ kernel.to(torch.float64) @ lower
    # δ is relative to the mean of d eigenvalues, of which d − m are 0; `inverse_root` takes the mean of m.
    root = inverse_root(inner, damping * m / d)
    right: Tensor = (lower @ root) @ torch.linalg.solve_triangular(lower, precise, upper=False)
    return right
