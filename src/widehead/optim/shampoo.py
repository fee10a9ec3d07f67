"""One-sided Shampoo on the weights of exact heads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from widehead.optim.heads import FactoredHead
from widehead.optim.preconditioned import Batch, MemoryOfSum, Remembering, zero
from widehead.optim.quadrature import inverse_root_by_quadrature


@dataclass
class ShampooMemory(MemoryOfSum):
    """Of Shampoo.

    Attributes:
        weight: () what the steps in the sum weigh together.
    """

    weight: Tensor = field(default_factory=zero)


class Shampoo(Remembering[ShampooMemory]):
    """W ← W − lr·∇W·(C + δI)^(−1/2), with C an exponential average of GᵀG, G = ∇W.

    Shampoo (Gupta, Koren, Singer, ICML 2018) with the d × d side alone, as in ASGO (An et al. 2025); the D × D side is
    what no exact step could have. GᵀG = Hᵀ(TTᵀ)H follows from the m × m Gram matrix that a step needs anyway.

    Args:
        lr: how far W goes in a step, in each of the d directions, whatever the size of the gradient.
        damping: δ, relative to the mean eigenvalue of C; None for 0.1.
        decay: how much of the average a step keeps, in [0, 1]; with 1 it is the mean of all steps.
        refresh_every: steps between two renewals of the inverse root (None: 20, with decay = 1 as
            in Newton); at the beginning in every step.
        heads, weight_decay, max_grad_norm, capturable: as in `Preconditioned`, and so are the errors raised.
    """

    default_refresh = 20
    memory = ShampooMemory

    @staticmethod
    def default_lr(head: FactoredHead, options: Mapping[str, Any]) -> float:
        """A fixed length; what it is too much for, trust scales back."""
        return 0.3

    def _precondition(self, batch: Batch, group: dict[str, Any], memory: ShampooMemory) -> tuple[Tensor, Tensor | None]:
        hidden = batch.hidden
        product = batch.gram_times(hidden)
        memory.weight = memory.weight * group["decay"] + 1.0
        root = self._remember(hidden.T @ product, group, memory)
        return hidden @ root, product @ root

    def _made_preconditioner(self, memory: ShampooMemory, damping: float) -> Tensor:
        return inverse_root(memory.sum / memory.weight, damping)


def inverse_root(matrix: Tensor, damping: float) -> Tensor:
    """(A + damping·tr(A)/d·I)^(−1/2) of a symmetric positive semidefinite matrix (d, d); 0 for 0, NaN for NaN."""
    if matrix.device.type != "cpu":  # the host would wait for eigenvalues
        return inverse_root_by_quadrature(matrix, damping).to(matrix.dtype)
    vectors, scales = inverse_root_factors(matrix, damping)
    return (vectors * scales) @ vectors.T


def inverse_root_factors(matrix: Tensor, damping: float) -> tuple[Tensor, Tensor]:
    """V (d, d) and s (d,) with V diag(s) Vᵀ that inverse root; of A its lower triangle is read."""
    if not bool(torch.isfinite(matrix.sum())):  # eigh would raise an error of its own
        return torch.full_like(matrix, torch.nan), matrix.new_ones(matrix.shape[0])
    # Beside numbers of ordinary size LAPACK makes NaN of some whose squares are below the least there is.
    small = torch.finfo(matrix.dtype).eps ** 2 * matrix.abs().max()
    values, vectors = torch.linalg.eigh(torch.where(matrix.abs() <= small, 0.0, matrix))
    # What is below 0 is rounding. If no more is above it, all is, and no direction is one to go in.
    is_rounding, values = values.mean() <= 0.0, values.clamp_min(0.0)
    ridge = values.mean() * max(damping, torch.finfo(matrix.dtype).eps)
    is_rounding |= ridge <= torch.finfo(matrix.dtype).tiny
    return vectors, torch.where(is_rounding, 0.0, (values + ridge).rsqrt())
