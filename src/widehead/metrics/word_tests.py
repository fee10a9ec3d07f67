"""How vectors of words agree with people: near words, and analogies.

Letters: D words, d width, m analogies.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from widehead.blocks import at_once
from widehead.precision import in_full_precision

_AT_ONCE = 1 << 24  # cosines that are held at a time on the CPU


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's ρ of two (m,) tensors: the correlation of their ranks, equal numbers sharing a mean rank.

    NaN if all numbers of one are equal.

    Raises:
        ValueError: they are not both (m,) with m of at least 2, or hold NaN.

    >>> round(rank_correlation(torch.tensor([1.0, 2.0, 9.0]), torch.tensor([0.1, 0.3, 0.2])), 6)
    0.5
    """
    if first.ndim != 1 or first.shape != second.shape or len(first) < 2:
        raise ValueError(
            f"Parameters should be two tensors (m,) with m of at least 2. Found {tuple(first.shape)} and "
            f"{tuple(second.shape)}."
        )
    if bool(first.isnan().any() | second.isnan().any()):
        raise ValueError("Parameters should not hold NaN. Found one.")
    a, b = (ranks - ranks.mean() for ranks in (_mean_ranks(first), _mean_ranks(second)))
    return float(a @ b / (a.norm() * b.norm()))


def _mean_ranks(values: Tensor) -> Tensor:
    """(m,) float64 rank of each number, from 0; equal numbers have the mean of theirs."""
    _, which, counts = values.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    return (last - (counts.double() + 1.0) / 2.0)[which]


@torch.no_grad()
@in_full_precision
def analogy_answers(vectors: Tensor, questions: Tensor, left_out: Tensor | None = None) -> Tensor:
    """(m,) int64: the word d whose cosine with b − a + c is the largest, for each row (a, b, c) of ``questions``.

    Vectors are divided by their norms first (3CosAdd; Mikolov, Yih and Zweig 2013, "Linguistic regularities in
    continuous space word representations", section 4). a, b and c are no answers.

    Args:
        vectors: (D, d) rows of all words; one of zeros is near nothing.
        questions: (m, 3) int64 word ids.
        left_out: word ids that are no answers either.

    Raises:
        ValueError: another shape, ids out of range, too few words for an answer, or vectors that are not finite.
    """
    least = 4 if left_out is None else 4 + len(left_out.unique())
    if vectors.ndim != 2 or len(vectors) < least:
        raise ValueError(
            f"Parameter `vectors` should be (D, d) with D of at least {least}. Found {tuple(vectors.shape)}."
        )
    if not bool(vectors.isfinite().all()):
        raise ValueError("Parameter `vectors` should be finite. Found NaN or infinity.")
    if questions.ndim != 2 or questions.shape[1] != 3:
        raise ValueError(f"Parameter `questions` should have shape (m, 3). Found {tuple(questions.shape)}.")
    if questions.numel() and not (questions.min() >= 0 and questions.max() < len(vectors)):
        raise ValueError(
            f"Parameter `questions` should hold ids in [0, {len(vectors)}). Found {int(questions.min())} and "
            f"{int(questions.max())}."
        )
    unit = normalize(vectors.float())
    found = [questions.new_empty(0)]
    for part in questions.split(max(1, at_once(unit.device, _AT_ONCE) // len(unit))):
        a, b, c = unit[part].unbind(1)
        scores = (b - a + c) @ unit.T
        if left_out is not None:
            scores[:, left_out] = -torch.inf
        found.append(scores.scatter_(1, part, -torch.inf).argmax(1))
    return torch.cat(found)
