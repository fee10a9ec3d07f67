"""Weighted squared error, the objective of implicit matrix factorisation (Hu, Koren, Volinsky 2008)."""

import math
from typing import Literal

import torch
from torch import Tensor

from widehead.errors import check_choice, check_number
from widehead.losses.base import Partials, segment_sum, sum_over_targets
from widehead.losses.squared_error import SquaredError
from widehead.targets import SparseTargets


class WeightedSquaredError(SquaredError):
    """Σ_j w_j (y_j − o_j)²: ``unobserved_weight`` on every class that is not a target, w_k on targets.

    ℓ = α₀ q + Σ_k [w_k (y_k − a_k)² − α₀ a_k²], as y = 0 at every other class.

    Args:
        unobserved_weight: α₀ ≥ 0.
        target_weight: w of every target (times its value if ``values="weights"``).
        values: what the targets' values mean: "targets" are y with w = target_weight; "weights" are w with y = 1,
            as confidences are used in implicit feedback. Values of a class named twice in one example add up.
    """

    def __init__(
        self,
        unobserved_weight: float = 0.1,
        target_weight: float = 1.0,
        values: Literal["targets", "weights"] = "targets",
    ) -> None:
        check_number("unobserved_weight", unobserved_weight)
        if not (math.isfinite(target_weight) and target_weight > 0.0):
            raise ValueError(f"Parameter `target_weight` should be above 0. Found {target_weight}.")
        check_choice("values", values, ("targets", "weights"))
        self.unobserved_weight = unobserved_weight
        self.target_weight = target_weight
        self.values = values

    def __call__(self, q: Tensor, s: Tensor, a: Tensor, targets: SparseTargets, num_classes: int) -> Tensor:
        values = targets.values_or_ones(a.dtype)
        y, w = (values, 1.0) if self.values == "targets" else (torch.ones_like(values), values)
        terms = self.target_weight * w * (y - a) ** 2 - self.unobserved_weight * a**2
        return self.unobserved_weight * q + sum_over_targets(terms, targets)

    def partials(self, q: Tensor, s: Tensor, a: Tensor, targets: SparseTargets, num_classes: int) -> Partials:
        """∂ℓ/∂q = α₀ and ∂ℓ/∂a = −2w(y − a) − 2α₀a."""
        values, alpha = targets.values_or_ones(a.dtype), self.unobserved_weight
        missing = (values if self.values == "targets" else 1.0) - a
        pull = missing * self.target_weight if self.values == "targets" else missing * (values * self.target_weight)
        losses = q * alpha + segment_sum(pull * missing - a * a * alpha, targets)
        return Partials(losses, torch.full_like(q, alpha), None, torch.add(pull, a, alpha=alpha).mul_(-2.0))

    def target_curvature(
        self, q: Tensor, s: Tensor, a: Tensor, targets: SparseTargets, num_classes: int, probability: float
    ) -> Tensor:
        """2(w − α₀), or 0 if that is negative: what targets weigh above the other outputs."""
        w = targets.values_or_ones(a.dtype) if self.values == "weights" else torch.ones_like(a)
        return 2.0 * (self.target_weight * w - self.unobserved_weight).clamp_min(0.0)

    def largest_step(self, dense: float, targets: float) -> float:
        """Λ = 2α₀ on all outputs, 2w on targets."""
        return 1.0 / max(self.unobserved_weight * dense, self.target_weight * targets)
