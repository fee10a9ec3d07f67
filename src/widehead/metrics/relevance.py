"""What ranking metrics share: which ranked classes are relevant, how many relevant classes there are.

Letters: m examples, k ranked classes of each, nnz relevant classes in all.

Decided here, for all of them:

* A class that an example names twice counts once; values of targets do not count.
* Ranked ids are distinct; a negative one is an empty place, never a hit (a head with fewer candidates than k).
* Unreachable classes are relevant ones that no ranking can hold, such as items that the training file lacks. They
  come as a number for each example, and count as missed.
* An example without any relevant class has no value: NaN, left out by ``mean_over_examples``.
"""

import torch
from torch import Tensor

from widehead.targets import SparseTargets


def hits(ranked: Tensor, relevant: SparseTargets, k: int) -> Tensor:
    """(m, k) whether each of the k best-ranked classes is relevant.

    Args:
        ranked: (m, at least k) class ids, best first.
        relevant: relevant classes of the m examples.
        k: at least 1.

    Raises:
        TypeError: ``ranked`` does not hold integers.
        ValueError: wrong shape, k out of range, or a class ranked twice; names the first offender.
    """
    _check(ranked, relevant, k)
    top, classes = ranked[:, :k].to(torch.int64), relevant.class_ids
    if classes.numel() == 0:
        return torch.zeros_like(top, dtype=torch.bool)
    width = int(classes.max()) + 1
    rows = torch.arange(len(top), device=top.device)[:, None]
    inside = (top >= 0) & (top < width)
    return inside & torch.isin(rows * width + top, relevant.example_ids * width + classes)


def distinct_pairs(relevant: SparseTargets) -> tuple[Tensor, Tensor]:
    """Examples (n,) and classes (n,) of the targets, each pair once, in order of example and class."""
    if relevant.class_ids.numel() == 0:
        return relevant.class_ids, relevant.class_ids
    width = int(relevant.class_ids.max()) + 1
    keys = torch.unique(relevant.example_ids * width + relevant.class_ids)
    return keys // width, keys % width


def relevant_counts(relevant: SparseTargets, unreachable: Tensor | None = None) -> Tensor:
    """(m,) number of distinct relevant classes of each example, the unreachable ones included."""
    counts = torch.bincount(distinct_pairs(relevant)[0], minlength=len(relevant))
    if unreachable is None:
        return counts
    if unreachable.shape != counts.shape or bool((unreachable < 0).any()):
        raise ValueError(
            f"Parameter `unreachable` should hold a number, at least 0, for each of {len(relevant)} examples. "
            f"Found shape {tuple(unreachable.shape)}"
            + (f", least {unreachable.min().item()}." if unreachable.numel() else ".")
        )
    return counts + unreachable.to(counts)


def undefined_without_relevant(values: Tensor, counts: Tensor) -> Tensor:
    """(m,) values, NaN if ``counts`` (m,) is 0."""
    return torch.where(counts > 0, values, torch.nan)


def mean_over_examples(values: Tensor) -> float:
    """The mean of (m,) values, leaving out NaN, the mark of examples without a relevant class; NaN if none is left.

    >>> mean_over_examples(torch.tensor([1.0, float("nan"), 0.0]))
    0.5
    """
    return float(values.to(torch.float64).nanmean())


def _check(ranked: Tensor, relevant: SparseTargets, k: int) -> None:
    if ranked.dtype.is_floating_point or ranked.dtype.is_complex or ranked.dtype == torch.bool:
        raise TypeError(f"Parameter `ranked` should hold integer class ids. Found dtype {ranked.dtype}.")
    if ranked.ndim != 2 or len(ranked) != len(relevant):
        raise ValueError(
            f"Parameter `ranked` should have shape ({len(relevant)}, k), a row for each example of `relevant`. "
            f"Found {tuple(ranked.shape)}."
        )
    if not 1 <= k <= ranked.shape[1]:
        raise ValueError(f"Parameter `k` should be in [1, {ranked.shape[1]}], the ranked classes. Found {k}.")
    ordered = ranked[:, :k].sort(dim=1).values
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    if bool(twice.any()):
        row, column = twice.nonzero()[0].tolist()
        raise ValueError(
            f"Ranked classes should be distinct. Found class {int(ordered[row, column])} twice in row {row}."
        )
