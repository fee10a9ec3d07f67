"""Dense float64 twins of everything the library does cleverly. Slow, obvious; imports torch only.

Letters: m examples, D classes, d width; H (m, d), W (D, d), O = HWᵀ (m, D). Targets are lists of lists of class ids
(and of values). Losses return one number an example.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def dense_targets(ids: list[list[int]], num_classes: int, values: list[list[float]] | None = None) -> Tensor:
    """(m, D) with the value of each target at its class; values of a repeated class add up."""
    out = torch.zeros(len(ids), num_classes, dtype=torch.float64)
    for b, row in enumerate(ids):
        for k, c in enumerate(row):
            out[b, c] += 1.0 if values is None else values[b][k]
    return out


def squared_error(o: Tensor, y: Tensor) -> Tensor:
    return ((o - y) ** 2).sum(1)


def weighted_squared_error(o: Tensor, y: Tensor, weight: Tensor, unobserved_weight: float) -> Tensor:
    """weight (m, D) at observed classes, ``unobserved_weight`` elsewhere (where weight is 0)."""
    observed = weight > 0
    w = torch.where(observed, weight, torch.full_like(weight, unobserved_weight))
    return (w * (torch.where(observed, y, 0.0) - o) ** 2).sum(1)


def _mean_over_targets(log_p: Tensor, counts: Tensor) -> Tensor:
    """−Σ_c counts log p / Σ counts; 0 for an example without targets."""
    total = counts.sum(1)
    return torch.where(total > 0, -(counts * log_p).sum(1) / total.clamp_min(1e-300), 0.0)


def spherical_log_probabilities(o: Tensor, eps: float) -> Tensor:
    p = o**2 + eps
    return torch.log(p / p.sum(1, keepdim=True))


def taylor_log_probabilities(o: Tensor) -> Tensor:
    p = 1 + o + o**2 / 2
    return torch.log(p / p.sum(1, keepdim=True))


def spherical_softmax(o: Tensor, counts: Tensor, eps: float) -> Tensor:
    return _mean_over_targets(spherical_log_probabilities(o, eps), counts)


def taylor_softmax(o: Tensor, counts: Tensor) -> Tensor:
    return _mean_over_targets(taylor_log_probabilities(o), counts)


def z_loss(o: Tensor, counts: Tensor, a: float, b: float) -> Tensor:
    mean = o.mean(1, keepdim=True)
    std = ((o - mean) ** 2).mean(1, keepdim=True).sqrt()
    z = (o - mean) / std
    each = torch.nn.functional.softplus(a * (b - z)) / a
    total = counts.sum(1)
    return torch.where(total > 0, (counts * each).sum(1) / total.clamp_min(1e-300), 0.0)


def sgd(weight: Tensor, gradient: Tensor, lr: float, weight_decay: float = 0.0, right: Tensor | None = None) -> Tensor:
    """W ← (1 − lr·decay)W − lr·G·R."""
    step = gradient if right is None else gradient @ right
    return (1.0 - lr * weight_decay) * weight - lr * step


def perplexity(log_p: Tensor) -> float:
    return math.exp(-log_p.mean().item())
