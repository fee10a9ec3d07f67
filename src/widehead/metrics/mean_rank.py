"""Mean rank of the targets among all classes, for losses that define no probabilities.

Letters: m examples, D classes, nnz targets in all.
"""

import torch
from torch import Tensor

from widehead.blocks import at_once
from widehead.metrics.relevance import undefined_without_relevant
from widehead.targets import SparseTargets

_AT_ONCE = 1 << 20  # scores that are compared at a time on the CPU


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
    check_scores(scores, targets)
    return ranks_of(scores, targets)


def ranks_of(scores: Tensor, targets: SparseTargets) -> Tensor:
    """`target_ranks` of what was checked; some targets at a time."""
    found, last = [scores.new_empty(0, dtype=torch.float64)], scores.shape[1] - 1
    step = max(1, at_once(scores.device, _AT_ONCE) // max(1, scores.shape[1]))
    parts = targets.example_ids.split(step), targets.class_ids.clamp_max(last).split(step)
    for examples, classes in zip(*parts, strict=True):
        own, all_scores = scores[examples, classes, None], scores[examples]
        higher, alike = (all_scores > own).sum(1), (all_scores == own).sum(1)
        found.append(1.0 + higher.to(torch.float64) + 0.5 * (alike - 1))
    return torch.cat(found)


def mean_rank(scores: Tensor, targets: SparseTargets) -> Tensor:
    """(m,) float64 mean rank of each example's targets, a repeated target counting as often as it is named.

    NaN for examples without targets. Arguments and errors as for ``target_ranks``.
    """
    ranks = target_ranks(scores, targets)
    counts = targets.counts
    sums = torch.zeros(len(targets), dtype=torch.float64, device=ranks.device).index_add(0, targets.example_ids, ranks)
    return undefined_without_relevant(sums / counts, counts)


def check_scores(scores: Tensor, targets: SparseTargets, *, look: bool = True) -> None:
    """The errors of `target_ranks`; without ``look`` those that need no look at the numbers."""
    if scores.ndim != 2 or len(scores) != len(targets):
        raise ValueError(f"Parameter `scores` should have shape ({len(targets)}, D). Found {tuple(scores.shape)}.")
    if not look:
        return
    targets.check_classes(scores.shape[1])
    if bool(scores.isnan().any()):
        row, column = scores.isnan().nonzero()[0].tolist()
        raise ValueError(f"Parameter `scores` should not hold NaN. Found one in example {row}, class {column}.")
