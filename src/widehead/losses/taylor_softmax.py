"""Log Taylor softmax (de Brébisson and Vincent 2016): exp replaced by its second-order Taylor expansion."""

import math

import torch
from torch import Tensor

from widehead.losses.base import Loss, Partials, mean_over_targets, segment_sum, shares
from widehead.targets import SparseTargets


class TaylorSoftmax(Loss):
    """−log p at the targets with p_c = (1 + o_c + o_c²/2) / (D + Σo + ‖o‖²/2); the mean over an example's targets.

    ℓ = log(D + s + q/2) − mean_k log(1 + a_k + a_k²/2). Ranking is by 1 + o + o²/2. Targets' values, if given,
    weigh the mean. Examples without targets have no loss and are left out of a mean.
    """

    has_probabilities = True
    needs_targets = True
    ranks_both_ways = True

    def __call__(self, q: Tensor, s: Tensor, a: Tensor, targets: SparseTargets, num_classes: int) -> Tensor:
        return mean_over_targets(self.log_normalizer(q, s, num_classes)[targets.example_ids] - self.score(a), targets)

    def partials(self, q: Tensor, s: Tensor, a: Tensor, targets: SparseTargets, num_classes: int) -> Partials:
        """∂ℓ/∂q = 1/(2(D + s + q/2)), ∂ℓ/∂s twice that, ∂ℓ/∂a = −(1 + a)/(1 + a + a²/2)/K, without targets' values."""
        if targets.values is not None:
            return super().partials(q, s, a, targets, num_classes)
        total, terms = num_classes + s + 0.5 * q, 1.0 + a + 0.5 * a * a
        counts = targets.counts
        part = counts.clamp_min(1).to(a.dtype).reciprocal()  # of each target in the mean
        has = (counts > 0).to(a.dtype)
        losses = has * self.log_normalizer(q, s, num_classes) - segment_sum(terms.log(), targets) * part
        by_s = torch.where(total >= 0.5 * num_classes, has / total, 0.0)  # as `log_normalizer` is held there
        return Partials(losses, 0.5 * by_s, by_s, (1.0 + a).mul_(part[targets.example_ids]).div_(terms).neg_())

    @property
    def ranks_by(self) -> str:
        return "log(1 + o + o²/2)"

    def score(self, outputs: Tensor) -> Tensor:
        return torch.log(1.0 + outputs + 0.5 * outputs**2)

    def ranking(self, outputs: Tensor) -> Tensor:
        return torch.addcmul(outputs, outputs, outputs, value=0.5)

    def score_of(self, ranking: Tensor) -> Tensor:
        return torch.where(ranking == -torch.inf, ranking, torch.log(1.0 + ranking))

    def target_curvature(
        self, q: Tensor, s: Tensor, a: Tensor, targets: SparseTargets, num_classes: int, probability: float
    ) -> Tensor:
        """1/√(2cD): the largest gradient, 1, over the output √(2cD) that has ``probability`` c at first."""
        return shares(targets, a.dtype) / math.sqrt(2.0 * probability * num_classes)

    def log_normalizer(self, q: Tensor, s: Tensor, num_classes: int) -> Tensor:
        # s + q/2 ≥ −D/2 always (each term of the sum is at least −1/2); rounding may say otherwise.
        return torch.log((num_classes + s + 0.5 * q).clamp_min(0.5 * num_classes))
