"""Z-loss (de Brébisson and Vincent, "The Z-loss: a shift and scale invariant classification loss", 2016)."""

import math

import torch
from torch import Tensor
from torch.nn.functional import softplus

from widehead.losses.base import Loss, mean_over_targets
from widehead.targets import SparseTargets


class ZLoss(Loss):
    """(1/a) softplus(a (b − z)) with z = (o_c − μ)/std over the D outputs; the mean over an example's targets.

    μ = s/D, std² = q/D − μ². Invariant to shift and scale of the outputs.

    Args:
        a: sharpness, above 0.
        b: location: how many standard deviations above the mean a target should stand.
    """

    needs_targets = True

    def __init__(self, a: float = 0.1, b: float = 10.0) -> None:
        if not 0.0 < a < float("inf"):
            raise ValueError(f"Parameter `a` should be above 0 and finite. Found {a}.")
        if not math.isfinite(b):
            raise ValueError(f"Parameter `b` should be finite. Found {b}.")
        self.a = a
        self.b = b

    def __call__(self, q: Tensor, s: Tensor, a: Tensor, targets: SparseTargets, num_classes: int) -> Tensor:
        mean = s / num_classes
        variance = q / num_classes - mean**2
        # Outputs that are all alike have no z; the floor keeps the loss finite and its gradient along ±(a − μ).
        std = variance.clamp_min(torch.finfo(q.dtype).eps * (q / num_classes) + torch.finfo(q.dtype).tiny).sqrt()
        examples = targets.example_ids
        z = (a - mean[examples]) / std[examples]
        return mean_over_targets(softplus(self.a * (self.b - z)) / self.a, targets)
