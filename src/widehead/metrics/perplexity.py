"""Perplexity: the exponential of the mean negative log-probability of the targets."""

import torch
from torch import Tensor


def perplexity(log_probs: Tensor, weights: Tensor | None = None) -> float:
    """exp(-Σ wᵢ ln pᵢ / Σ wᵢ) over targets i.

    A target of probability 0 and positive weight gives infinity; one of weight 0 does not count; no target at all
    (or only weights of 0) gives NaN, as there is nothing to average.

    Args:
        log_probs: (nnz,) natural logarithms of the probabilities that the model gives to the targets.
        weights: (nnz,) how much each target counts (``SparseTargets.values``), at least 0; None: all the same.

    Raises:
        ValueError: shapes differ, or a NaN, or a weight that is negative or infinite.

    >>> round(perplexity(torch.log(torch.tensor([0.5, 0.125]))), 6)
    4.0
    """
    check_log_probs(log_probs, weights)
    total, weight = (float(part) for part in perplexity_sums(log_probs, weights))
    return float(torch.exp(torch.tensor(-total, dtype=torch.float64) / weight)) if weight > 0.0 else float("nan")


def perplexity_sums(log_probs: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor | int]:
    """Σ wᵢ ln pᵢ and Σ wᵢ of what was checked, to be added up over batches. Arguments as for ``perplexity``."""
    values = log_probs.to(torch.float64)
    if weights is None:
        return values.sum(), values.numel()
    weights = weights.to(torch.float64)
    return torch.where(weights > 0, weights * values, 0.0).sum(), weights.sum()


def check_log_probs(log_probs: Tensor, weights: Tensor | None, *, look: bool = True) -> None:
    """The errors of ``perplexity``; without ``look`` those that need no look at the numbers."""
    if look and bool(log_probs.isnan().any()):
        at = int(log_probs.flatten().isnan().nonzero()[0])
        raise ValueError(f"Parameter `log_probs` should hold logarithms of probabilities. Found NaN at {at}.")
    if weights is None:
        return
    if weights.shape != log_probs.shape or (look and bool(out_of_range(weights).any())):
        raise ValueError(
            f"Parameter `weights` should hold a finite number, at least 0, for each log-probability, shape "
            f"{tuple(log_probs.shape)}. Found shape {tuple(weights.shape)}, or a number out of range."
        )


def out_of_range(weights: Tensor) -> Tensor:
    """Whether a weight is negative or not finite."""
    return ~((weights >= 0) & weights.isfinite())
