"""Precision@k: the share of the k best-ranked classes that are relevant."""

from __future__ import annotations

import torch
from torch import Tensor

from widehead.metrics.relevance import hits, relevant_counts, undefined_without_relevant
from widehead.targets import SparseTargets

__all__ = ["precision_at_k"]


def precision_at_k(ranked: Tensor, relevant: SparseTargets, k: int, unreachable: Tensor | None = None) -> Tensor:
    """(m,) float64: hits among the first k, divided by k.

    The divisor is k even if fewer classes are relevant, as in the Extreme Classification repository. NaN for
    examples without a relevant class. Unreachable classes matter only in that they are relevant ones.

    Args:
        ranked: (m, at least k) class ids, best first.
        relevant: relevant classes of the m examples.
        k: at least 1.
        unreachable: (m,) how many more relevant classes there are that no ranking can hold, or None.

    Raises:
        TypeError, ValueError: see ``relevance.hits``.

    >>> precision_at_k(torch.tensor([[4, 2, 9]]), SparseTargets.from_lists([[9, 2, 7, 1]]), k=2)
    tensor([0.5000], dtype=torch.float64)
    """
    counts = relevant_counts(relevant, unreachable)
    return undefined_without_relevant(hits(ranked, relevant, k).sum(dim=1, dtype=torch.float64) / k, counts)
