"""Recall@k: the share of an example's relevant classes that are among its k best-ranked ones."""

from __future__ import annotations

import torch
from torch import Tensor

from widehead.metrics.relevance import hits, relevant_counts, undefined_without_relevant
from widehead.targets import SparseTargets

__all__ = ["recall_at_k"]


def recall_at_k(ranked: Tensor, relevant: SparseTargets, k: int, unreachable: Tensor | None = None) -> Tensor:
    """(m,) float64: hits among the first k, divided by the number of relevant classes.

    The divisor is the number of relevant classes even if it exceeds k, as in the LightGCN papers (He et al. 2020),
    so recall can stay below 1. NaN for examples without a relevant class.

    Args:
        ranked: (m, at least k) class ids, best first.
        relevant: relevant classes of the m examples.
        k: at least 1.
        unreachable: (m,) how many more relevant classes there are that no ranking can hold, or None.

    Raises:
        TypeError, ValueError: see ``relevance.hits``.

    >>> recall_at_k(torch.tensor([[4, 2, 9]]), SparseTargets.from_lists([[9, 2, 7, 1]]), k=2)
    tensor([0.2500], dtype=torch.float64)
    """
    counts = relevant_counts(relevant, unreachable)
    found = hits(ranked, relevant, k).sum(dim=1, dtype=torch.float64)
    return undefined_without_relevant(found / counts, counts)
