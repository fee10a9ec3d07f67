"""Log Taylor softmax (de Brébisson and Vincent 2016): exp replaced by its second-order Taylor expansion."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from widehead.losses.base import SURPRISE, Loss, mean_over_targets, shares
from widehead.targets import SparseTargets

__all__ = ["TaylorSoftmax"]


class TaylorSoftmax(Loss):
    """−log p at the targets with p_c = (1 + o_c + o_c²/2) / (D + Σo + ‖o‖²/2); the mean over an example's targets.

    ℓ = log(D + s + q/2) − mean_k log(1 + a_k + a_k²/2). Ranking is by 1 + o + o²/2. Targets' values, where given,
    weigh the mean. Examples without targets have no loss and are left out of a mean.
    """

    has_probabilities = True
    needs_targets = True

    def __call__(self, q: Tensor, s: Tensor, a: Tensor, targets: SparseTargets, num_classes: int) -> Tensor:
        return mean_over_targets(self.log_normalizer(q, s, num_classes)[targets.example_ids] - self.score(a), targets)

    def score(self, outputs: Tensor) -> Tensor:
        return torch.log(1.0 + outputs + 0.5 * outputs**2)

    def target_curvature(self, q: Tensor, s: Tensor, a: Tensor, targets: SparseTargets, num_classes: int) -> Tensor:
        """1/√(2cD): the largest gradient, 1, over the output √(2cD) that has probability c = `SURPRISE` at first."""
        return shares(targets, a.dtype) / math.sqrt(2.0 * SURPRISE * num_classes)

    def log_normalizer(self, q: Tensor, s: Tensor, num_classes: int) -> Tensor:
        # s + q/2 ≥ −D/2 always (each term of the sum is at least −1/2); rounding may say otherwise.
        return torch.log((num_classes + s + 0.5 * q).clamp_min(0.5 * num_classes))
