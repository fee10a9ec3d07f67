"""Propensity-scored precision@k (Jain, Prabhu, Varma 2016, "Extreme multi-label loss functions …").

Rare labels are missing more often from the true labels than frequent ones; a hit of label l counts 1/p_l:

    1/p_l = 1 + C·exp(-A·ln(N_l + B)),   C = (ln N - 1)·(B + 1)^A

with N training examples, N_l of which have the label l. The value of a data set is the sum of PSP@k over its examples
divided by the sum of the best possible one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from widehead.metrics.relevance import count_relevant, distinct_pairs, hits, relevant_counts, undefined_without_relevant
from widehead.targets import SparseTargets


@dataclass(frozen=True)
class Propensities:
    """Inverse propensities of labels.

    Attributes:
        inverse: (D,) float64, 1/p_l.
        unseen: 1/p of a label without training examples, the largest there can be.
    """

    inverse: Tensor
    unseen: float

    @classmethod
    def from_counts(cls, counts: Tensor, num_examples: int, *, a: float = 0.55, b: float = 1.5) -> Propensities:
        """From (D,) training examples of each label; a and b as in the paper, whose usual values are the defaults.

        With fewer than e training examples C would be negative; it is 0 there, so that no 1/p is below 1.

        Raises:
            ValueError: a count or ``num_examples`` is negative, a is negative, or b is not positive.
        """
        if num_examples < 0 or a < 0.0 or b <= 0.0 or bool((counts < 0).any()):
            raise ValueError(
                "Counts, `num_examples` and `a` should be at least 0, and `b` above 0. "
                f"Found num_examples = {num_examples}, a = {a}, b = {b}."
            )
        c = max(0.0, math.log(max(num_examples, 1)) - 1.0) * (b + 1.0) ** a
        return cls(1.0 + c * (counts.to(torch.float64) + b) ** -a, 1.0 + c * b**-a)

    def to(self, device: torch.device) -> Propensities:
        """The same on another device."""
        return Propensities(self.inverse.to(device), self.unseen)


def psp_at_k(
    ranked: Tensor, relevant: SparseTargets, k: int, propensities: Propensities, unreachable: Tensor | None = None
) -> Tensor:
    """(m,) float64: Σ 1/p over the hits among the first k, divided by k; not yet divided by the best possible value.

    ``propensities`` are those of all D classes; a ValueError names a relevant class that is none of them. All else is
    as for ``recall_at_k``.
    """
    relevant.check_classes(len(propensities.inverse))
    return psp(hits(ranked, relevant, k), relevant_counts(relevant, unreachable), ranked, propensities)


def psp(found: Tensor, counts: Tensor, ranked: Tensor, propensities: Propensities) -> Tensor:
    """(m,) from the hits (m, k), the number of relevant classes (m,) and the ranked ones."""
    k, inverse = found.shape[1], propensities.inverse.to(ranked.device)
    hit = torch.where(found, ranked[:, :k].to(torch.int64), 0).clamp_max(len(inverse) - 1)
    return undefined_without_relevant((inverse[hit] * found).sum(dim=1) / k, counts)


def best_psp_at_k(
    relevant: SparseTargets, k: int, propensities: Propensities, unreachable: Tensor | None = None
) -> Tensor:
    """(m,) float64: the largest value of ``psp_at_k``; an unreachable class counts like a label never seen.

    Arguments and errors as for ``psp_at_k``.
    """
    if k < 1:
        raise ValueError(f"Parameter `k` should be at least 1. Found {k}.")
    relevant.check_classes(len(propensities.inverse))
    return best_psp(relevant, relevant_counts(relevant, unreachable), k, propensities)


def best_psp(relevant: SparseTargets, counts: Tensor, k: int, propensities: Propensities) -> Tensor:
    """(m,) of targets that were checked, and the number of relevant classes (m,)."""
    examples, classes, first = distinct_pairs(relevant)
    inverse = propensities.inverse.to(classes.device)
    # Each example's classes by falling 1/p: by 1/p, then, keeping that order, by example. Repeats come last.
    gains = torch.where(first, inverse[classes.clamp_max(len(inverse) - 1)], 0.0)
    gains, order = gains.sort(descending=True)
    examples, again = examples[order].sort(stable=True)
    place = torch.arange(len(examples), device=examples.device) - relevant.offsets[examples]
    # Unreachable classes, of the largest 1/p there is, take the first places.
    unseen = (counts - count_relevant(relevant)).clamp(max=k)
    taken = torch.where(place < (k - unseen)[examples], gains[again], 0.0)
    best = (unseen.to(torch.float64) * propensities.unseen).index_add(0, examples, taken)
    return undefined_without_relevant(best / k, counts)
