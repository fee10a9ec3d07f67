"""Mean rank of the targets among all classes, for losses that define no probabilities.

Letters: m examples, D classes, nnz targets in all.
"""

import torch
from torch import Tensor

from widehead.metrics.relevance import undefined_without_relevant
from widehead.targets import SparseTargets


def target_ranks(scores: Tensor, targets: SparseTargets) -> Tensor:
    """(nnz,) float64 rank of each target among its example's scores: 1 is the best, D the worst.

    rank = 1 + (classes with a higher score) + half of the other classes with the same score, so a model that scores
    all classes alike has rank (D + 1)/2. Other targets of the example are classes like any.

    Args:
        scores: (m, D) scores of all classes; pass as many examples at a time as memory allows.
        targets: of the m examples.

    Raises:
        ValueError: wrong shape, a class that is not below D, or a score that is NaN.

    >>> target_ranks(torch.tensor([[0.1, 0.7, 0.2, 0.2]]), SparseTargets.from_lists([[1, 2]])).tolist()
    [1.0, 2.5]
    """
    _check(scores, targets)
    examples = targets.example_ids
    places = torch.arange(len(examples), device=examples.device) - targets.offsets[examples]
    # The scores of the targets as columns, one for each target of an example; places without a target hold 0.
    wanted = scores.new_zeros(len(targets), int(targets.counts.max()) if len(targets) else 0)
    wanted[examples, places] = scores[examples, targets.class_ids]
    ordered = scores.sort(dim=1).values
    below = torch.searchsorted(ordered, wanted)
    not_above = torch.searchsorted(ordered, wanted, right=True)
    higher, ties = scores.shape[1] - not_above, not_above - below - 1
    return (1.0 + higher.to(torch.float64) + 0.5 * ties)[examples, places]


def mean_rank(scores: Tensor, targets: SparseTargets) -> Tensor:
    """(m,) float64 mean rank of each example's targets, a repeated target counting as often as it is named.

    NaN for examples without targets. Arguments and errors as for ``target_ranks``.
    """
    ranks = target_ranks(scores, targets)
    counts = targets.counts
    sums = torch.zeros(len(targets), dtype=torch.float64, device=ranks.device).index_add(0, targets.example_ids, ranks)
    return undefined_without_relevant(sums / counts, counts)


def _check(scores: Tensor, targets: SparseTargets) -> None:
    if scores.ndim != 2 or len(scores) != len(targets):
        raise ValueError(f"Parameter `scores` should have shape ({len(targets)}, D). Found {tuple(scores.shape)}.")
    targets.check_classes(scores.shape[1])
    if bool(scores.isnan().any()):
        row, column = scores.isnan().nonzero()[0].tolist()
        raise ValueError(f"Parameter `scores` should not hold NaN. Found one in example {row}, class {column}.")
