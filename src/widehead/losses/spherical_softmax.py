"""Log spherical softmax (de Brébisson and Vincent, "An exploration of softmax alternatives", ICLR 2016)."""

import math

import torch
from torch import Tensor

from widehead.losses.base import Loss, Partials, mean_over_targets, segment_sum, shares
from widehead.targets import SparseTargets


class SphericalSoftmax(Loss):
    """−log p at the targets with p_c = (o_c² + ε) / (‖o‖² + Dε); the mean over an example's targets.

    ℓ = log(q + Dε) − mean_k log(a_k² + ε). Ranking is by o², which is what the probability rises with. Targets'
    values, if given, weigh the mean. Examples without targets have no loss and are left out of a mean.
    """

    has_probabilities = True
    needs_targets = True
    ranks_both_ways = True

    def __init__(self, eps: float = 0.1) -> None:
        if not 0.0 < eps < float("inf"):
            raise ValueError(f"Parameter `eps` should be above 0 and finite. Found {eps}.")
        self.eps = eps

    def __call__(self, q: Tensor, s: Tensor, a: Tensor, targets: SparseTargets, num_classes: int) -> Tensor:
        return mean_over_targets(self.log_normalizer(q, s, num_classes)[targets.example_ids] - self.score(a), targets)

    def partials(self, q: Tensor, s: Tensor, a: Tensor, targets: SparseTargets, num_classes: int) -> Partials:
        """∂ℓ/∂q = 1/(q + Dε) and ∂ℓ/∂a = −2a/(a² + ε)/K, if targets have no values."""
        if targets.values is not None:
            return super().partials(q, s, a, targets, num_classes)
        total, terms = q + num_classes * self.eps, a * a + self.eps
        counts = targets.counts
        part = counts.clamp_min(1).to(a.dtype).reciprocal()  # of each target in the mean
        has = (counts > 0).to(a.dtype)
        losses = has * total.log() - segment_sum(terms.log(), targets) * part
        return Partials(losses, has / total, None, (a * part[targets.example_ids]).div_(terms).mul_(-2.0))

    @property
    def ranks_by(self) -> str:
        return f"log(o² + {self.eps:g})"

    def score(self, outputs: Tensor) -> Tensor:
        return torch.log(outputs**2 + self.eps)

    def ranking(self, outputs: Tensor) -> Tensor:
        return outputs.abs()

    def score_of(self, ranking: Tensor) -> Tensor:
        return torch.where(ranking < 0.0, ranking, self.score(ranking))

    def log_normalizer(self, q: Tensor, s: Tensor, num_classes: int) -> Tensor:
        return torch.log(q + num_classes * self.eps)

    def target_curvature(
        self, q: Tensor, s: Tensor, a: Tensor, targets: SparseTargets, num_classes: int, probability: float
    ) -> Tensor:
        """1/(ε√(cD)): the largest gradient, 1/√ε, over the output √(cDε) that has ``probability`` c at first.

        ∂²ℓ/∂a² is no guide: it is negative if |a| < √ε, and beyond that the loss falls for ever.
        """
        return shares(targets, a.dtype) / (self.eps * math.sqrt(probability * num_classes))

    def largest_step(self, dense: float, targets: float) -> float:
        """The gradient at a target is at most 1/√ε."""
        return 3.0 * math.sqrt(self.eps) / targets
