"""Recall, precision, nDCG and reciprocal rank of rankings."""

import torch
from torch import Tensor

from widehead.metrics.relevance import hits, relevant_counts, undefined_without_relevant
from widehead.targets import SparseTargets


def recall_at_k(ranked: Tensor, relevant: SparseTargets, k: int, unreachable: Tensor | None = None) -> Tensor:
    """(m,) float64: hits among the first k, divided by the number of relevant classes.

    The divisor is the number of relevant classes even if it exceeds k, as in the LightGCN papers (He et al. 2020),
    so recall can stay below 1. NaN for examples without a relevant class.

    Args:
        ranked, relevant, k: see ``hits``, which also says what errors are raised.
        unreachable: (m,) how many more relevant classes there are that no ranking can hold, or None.

    >>> recall_at_k(torch.tensor([[4, 2, 9]]), SparseTargets.from_lists([[9, 2, 7, 1]]), k=2)
    tensor([0.2500], dtype=torch.float64)
    """
    return recall(hits(ranked, relevant, k), relevant_counts(relevant, unreachable))


def recall(found: Tensor, counts: Tensor) -> Tensor:
    """(m,) from the hits (m, k) and the number of relevant classes (m,)."""
    return undefined_without_relevant(found.sum(dim=1, dtype=torch.float64) / counts, counts)


def precision_at_k(ranked: Tensor, relevant: SparseTargets, k: int, unreachable: Tensor | None = None) -> Tensor:
    """(m,) float64: hits among the first k, divided by k; arguments and errors as for ``recall_at_k``.

    The divisor is k even if fewer classes are relevant, as in the Extreme Classification repository. NaN for
    examples without a relevant class. Unreachable classes matter only in that they are relevant ones.

    >>> precision_at_k(torch.tensor([[4, 2, 9]]), SparseTargets.from_lists([[9, 2, 7, 1]]), k=2)
    tensor([0.5000], dtype=torch.float64)
    """
    return precision(hits(ranked, relevant, k), relevant_counts(relevant, unreachable))


def precision(found: Tensor, counts: Tensor) -> Tensor:
    """(m,) from the hits (m, k) and the number of relevant classes (m,)."""
    return undefined_without_relevant(found.sum(dim=1, dtype=torch.float64) / found.shape[1], counts)


def ndcg_at_k(ranked: Tensor, relevant: SparseTargets, k: int, unreachable: Tensor | None = None) -> Tensor:
    """(m,) float64: Σ 1/log₂(place + 1) over the hits among the first k, divided by its largest value.

    Gains are 1 for relevant classes, 0 for the others. The largest value is that of min(k, relevant classes) hits on
    the first places (Järvelin and Kekäläinen 2002). NaN for examples without a relevant class. Arguments and errors
    as for ``recall_at_k``.

    >>> ndcg_at_k(torch.tensor([[4, 2, 9]]), SparseTargets.from_lists([[2]]), k=3)
    tensor([0.6309], dtype=torch.float64)
    """
    return ndcg(hits(ranked, relevant, k), relevant_counts(relevant, unreachable))


def ndcg(found: Tensor, counts: Tensor) -> Tensor:
    """(m,) from the hits (m, k) and the number of relevant classes (m,)."""
    k = found.shape[1]
    places = torch.arange(1, k + 1, dtype=torch.float64, device=found.device)
    discounts = 1.0 / torch.log2(places + 1.0)
    gain = (found * discounts).sum(dim=1)
    largest = discounts.cumsum(0)[counts.clamp(1, k) - 1]
    return undefined_without_relevant(gain / largest, counts)


def mrr_at_k(ranked: Tensor, relevant: SparseTargets, k: int, unreachable: Tensor | None = None) -> Tensor:
    """(m,) float64: 1/place of the first hit among the first k, 0 if there is none there.

    Its mean is the mean reciprocal rank, MRR@k. NaN for examples without a relevant class. Arguments and errors as for
    ``recall_at_k``.

    >>> mrr_at_k(torch.tensor([[4, 2, 9]]), SparseTargets.from_lists([[2, 9]]), k=3)
    tensor([0.5000], dtype=torch.float64)
    """
    return mrr(hits(ranked, relevant, k), relevant_counts(relevant, unreachable))


def mrr(found: Tensor, counts: Tensor) -> Tensor:
    """(m,) from the hits (m, k) and the number of relevant classes (m,)."""
    places = torch.arange(1, found.shape[1] + 1, dtype=torch.float64, device=found.device)
    return undefined_without_relevant((found / places).amax(dim=1), counts)
