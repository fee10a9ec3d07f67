"""Orthogonalised steps on the weights of exact heads."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from widehead.optim.heads import FactoredHead
from widehead.optim.preconditioned import Batch, Memory, Preconditioned, damping_of
from widehead.optim.shampoo import inverse_root, inverse_root_factors


class Muon(Preconditioned[Memory]):
    """W ← W − lr·G(GᵀG + δI)^(−1/2), G = ∇W: the step goes equally far in every direction that the gradient has.

    Muon (Jordan et al. 2024) without its momentum, and with the exact inverse root in the place of Newton–Schulz
    iterations. If m ≤ d, the root is taken of an m × m matrix: HR = (HHᵀ·TTᵀ + δI)^(−1/2) H.

    Args:
        lr: how far W goes in a step, in each direction, whatever the size of the gradient.
        damping: δ, relative to the mean eigenvalue of GᵀG; None for 0.01.
        heads, weight_decay, max_grad_norm, capturable: as in `Preconditioned`, and so are the errors raised.
    """

    default_damping = 1e-2
    memory = Memory

    @staticmethod
    def default_lr(head: FactoredHead, options: Mapping[str, Any]) -> float:
        """A fixed length; what it is too much for, trust scales back."""
        return 0.3

    def _precondition(self, batch: Batch, group: dict[str, Any], memory: Memory) -> tuple[Tensor, Tensor | None]:
        memory.age = 0
        hidden = batch.hidden
        m, d = hidden.shape
        damping = damping_of(group, hidden)
        if m > d:
            product = batch.gram_times(hidden)
            root = inverse_root((hidden.T @ product).to(torch.float64), damping).to(hidden.dtype)
            return hidden @ root, product @ root
        kernel = batch.gram_times(torch.eye(m, dtype=hidden.dtype, device=hidden.device))
        hr = root_by_examples(hidden, kernel, damping)
        return hr, kernel @ hr


def root_by_examples(hidden: Tensor, kernel: Tensor, damping: float) -> Tensor:
    """H(HᵀKH + δI)^(−1/2) (m, d) for K = TTᵀ (m, m): with H = LZ, Z (m, d) orthonormal, L(LᵀKL + δI)^(−1/2)Z.

    Z is orthonormal whatever the rank of H is, so that R is symmetric, on which the step relies. L⁻¹H would not be.
    """
    m, d = hidden.shape
    basis, upper = torch.linalg.qr(hidden.T)
    square, damping = upper @ kernel @ upper.T, damping * m / d  # relative to the mean of m eigenvalues, not of d
    if square.device.type != "cpu":
        return upper.T @ inverse_root(square.to(torch.float64), damping).to(square.dtype) @ basis.T
    vectors, scales = inverse_root_factors(square, damping)
    return (upper.T @ vectors * scales) @ (basis @ vectors).T
