"""nDCG@k: discounted cumulative gain of the ranking, divided by that of the best possible one."""

from __future__ import annotations

import torch
from torch import Tensor

from widehead.metrics.relevance import hits, relevant_counts, undefined_without_relevant
from widehead.targets import SparseTargets

__all__ = ["ndcg_at_k"]


def ndcg_at_k(ranked: Tensor, relevant: SparseTargets, k: int, unreachable: Tensor | None = None) -> Tensor:
    """(m,) float64: Σ 1/log₂(place + 1) over the hits among the first k, divided by its largest value.

    Gains are 1 for relevant classes, 0 for the others. The largest value is that of min(k, relevant classes) hits on
    the first places (Järvelin and Kekäläinen 2002). NaN for examples without a relevant class.

    Args:
        ranked: (m, at least k) class ids, best first.
        relevant: relevant classes of the m examples.
        k: at least 1.
        unreachable: (m,) how many more relevant classes there are that no ranking can hold, or None.

    Raises:
        TypeError, ValueError: see ``relevance.hits``.

    >>> ndcg_at_k(torch.tensor([[4, 2, 9]]), SparseTargets.from_lists([[2]]), k=3)
    tensor([0.6309], dtype=torch.float64)
    """
    counts = relevant_counts(relevant, unreachable)
    places = torch.arange(1, k + 1, dtype=torch.float64, device=ranked.device)
    discounts = 1.0 / torch.log2(places + 1.0)
    gain = (hits(ranked, relevant, k) * discounts).sum(dim=1)
    largest = discounts.cumsum(0)[counts.clamp(1, k) - 1]
    return undefined_without_relevant(gain / largest, counts)
