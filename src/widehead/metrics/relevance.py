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

from widehead.targets import SparseTargets, starts_run


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
    check_ranked(ranked, relevant, k)
    return find_hits(ranked[:, :k], relevant)


def find_hits(top: Tensor, relevant: SparseTargets) -> Tensor:
    """`hits` of ``top`` (m, k) that was checked."""
    top = top.to(torch.int64)
    if relevant.class_ids.numel() == 0:
        return torch.zeros_like(top, dtype=torch.bool)
    keys, width = _sorted_keys(relevant)
    wanted = torch.arange(len(top), device=top.device)[:, None] * width + top
    at = torch.searchsorted(keys, wanted).clamp_max_(keys.numel() - 1)
    return (top >= 0) & (top < width) & (keys[at] == wanted)


def _sorted_keys(relevant: SparseTargets) -> tuple[Tensor, Tensor]:
    """(nnz,) example · width + class of the targets, rising, and () width, which no class reaches; nnz ≥ 1."""
    width = relevant.class_ids.max() + 1
    return (relevant.example_ids * width + relevant.class_ids).sort().values, width


def distinct_pairs(relevant: SparseTargets) -> tuple[Tensor, Tensor, Tensor]:
    """Examples and classes of the targets, in order of both, and whether a pair is met for the first time; (nnz,).

    The others stay where they are, as their number is known to the device alone.
    """
    if relevant.class_ids.numel() == 0:
        return relevant.class_ids, relevant.class_ids, relevant.class_ids.bool()
    keys, width = _sorted_keys(relevant)
    return keys // width, keys % width, starts_run(keys)


def relevant_counts(relevant: SparseTargets, unreachable: Tensor | None = None) -> Tensor:
    """(m,) number of distinct relevant classes of each example, the unreachable ones included.

    Raises:
        ValueError: ``unreachable`` is not (m,), or holds a number below 0.
    """
    check_unreachable(relevant, unreachable)
    return count_relevant(relevant, unreachable)


def count_relevant(relevant: SparseTargets, unreachable: Tensor | None = None) -> Tensor:
    """`relevant_counts` of what was checked."""
    examples, _, first = distinct_pairs(relevant)
    counts = examples.new_zeros(len(relevant)).index_add_(0, examples, first.to(examples.dtype))
    return counts if unreachable is None else counts + unreachable.to(counts)


def undefined_without_relevant(values: Tensor, counts: Tensor) -> Tensor:
    """(m,) values, NaN if ``counts`` (m,) is 0."""
    return torch.where(counts > 0, values, torch.nan)


def mean_over_examples(values: Tensor) -> float:
    """The mean of (m,) values, leaving out NaN, the mark of examples without a relevant class; NaN if none is left.

    >>> mean_over_examples(torch.tensor([1.0, float("nan"), 0.0]))
    0.5
    """
    return float(values.to(torch.float64).nanmean())


def check_ranked(ranked: Tensor, relevant: SparseTargets, k: int, *, look: bool = True) -> None:
    """The errors of `hits`; without ``look`` those that need no look at the numbers."""
    if ranked.dtype.is_floating_point or ranked.dtype.is_complex or ranked.dtype == torch.bool:
        raise TypeError(f"Parameter `ranked` should hold integer class ids. Found dtype {ranked.dtype}.")
    if ranked.ndim != 2 or len(ranked) != len(relevant):
        raise ValueError(
            f"Parameter `ranked` should have shape ({len(relevant)}, k), a row for each example of `relevant`. "
            f"Found {tuple(ranked.shape)}."
        )
    if not 1 <= k <= ranked.shape[1]:
        raise ValueError(f"Parameter `k` should be in [1, {ranked.shape[1]}], the ranked classes. Found {k}.")
    if look and bool((twice := named_twice(ranked, k)).any()):
        row, column = twice.nonzero()[0].tolist()
        found = int(ranked[:, :k].sort(dim=1).values[row, column])
        raise ValueError(f"Ranked classes should be distinct. Found class {found} twice in row {row}.")


def named_twice(ranked: Tensor, k: int) -> Tensor:
    """(m, k − 1) whether a place of the first k ids, sorted, holds the id that comes next as well."""
    ordered = ranked[:, :k].sort(dim=1).values
    return (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)


def check_unreachable(relevant: SparseTargets, unreachable: Tensor | None, *, look: bool = True) -> None:
    """The errors of `relevant_counts`; without ``look`` those that need no look at the numbers."""
    if unreachable is None:
        return
    if tuple(unreachable.shape) != (len(relevant),) or (look and bool((unreachable < 0).any())):
        raise ValueError(
            f"Parameter `unreachable` should hold a number, at least 0, for each of {len(relevant)} examples. "
            f"Found shape {tuple(unreachable.shape)}"
            + (f", least {unreachable.min().item()}." if look and unreachable.numel() else ".")
        )
