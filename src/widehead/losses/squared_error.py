"""Squared error over all D outputs: ‖o − y‖², y sparse (Vincent et al. 2015, section 2)."""

import math

import torch
from torch import Tensor

from widehead.losses.base import Loss, Partials, segment_sum, sum_over_targets
from widehead.targets import SparseTargets


class SquaredError(Loss):
    """‖o − y‖² with y the targets' values (1 if none are given) and 0 at every other class.

    ℓ = q − 2 Σ_k y_k a_k + Σ_k y_k². Values of a class named twice in one example add up.
    """

    @property
    def curves_at_targets(self) -> bool:
        """Not, unless a subclass has curvature of its own."""
        return type(self).target_curvature is not SquaredError.target_curvature

    def __call__(self, q: Tensor, s: Tensor, a: Tensor, targets: SparseTargets, num_classes: int) -> Tensor:
        y = targets.values_or_ones(a.dtype)
        return q + sum_over_targets(y * (y - 2.0 * a), targets)

    def partials(self, q: Tensor, s: Tensor, a: Tensor, targets: SparseTargets, num_classes: int) -> Partials:
        """2 ∂ℓ/∂q = 2 and ∂ℓ/∂a = −2y."""
        ones = torch.ones_like(q)
        if targets.values is None:  # a few small operations less, which take as long as a product
            losses = torch.sub(q, segment_sum(a, targets), alpha=2.0).add_(targets.counts)
            return Partials(losses, ones, None, torch.full_like(a, -2.0))
        y = targets.values_or_ones(a.dtype)
        return Partials(q + segment_sum(y * torch.add(y, a, alpha=-2.0), targets), ones, None, y * -2.0)

    def prepare(self, targets: SparseTargets) -> SparseTargets:
        return targets.coalesced()

    def target_curvature(
        self, q: Tensor, s: Tensor, a: Tensor, targets: SparseTargets, num_classes: int, probability: float
    ) -> Tensor:
        """None of its own: targets are in q as all outputs are."""
        return torch.zeros_like(a)

    def initial_std(self, in_features: int, num_classes: int) -> float:
        """Small enough that ‖o‖² is about ‖h‖²/d: D outputs of ordinary size would drown the targets."""
        return 1.0 / math.sqrt(in_features * num_classes)

    def largest_step(self, dense: float, targets: float) -> float:
        """Λ = 2 on all outputs alike."""
        return 1.0 / max(dense, targets)
