"""Exact draws from a softmax of which only the largest logits are known, by Gumbels that are made when needed.

Mussmann, Levy, Ermon (UAI 2017): argmax_j (o_j + G_j) with independent Gumbels G is a draw from softmax(o). With S the
k best classes, a class outside S can win only if its Gumbel exceeds B = max_S (o + G) − min_S o. They draw the
number of such classes from a binomial and then distinct classes. Here the same in the form of a Poisson process:
a Gumbel is the largest point of a process of density e^(−g) dg, so the points above B of all n − k classes together
are N ~ Poisson((n − k) e^(−B)), each of a class drawn uniformly, with replacement, at height B + Exp(1).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from widehead.heads.tail import Complement


def lazy_gumbel_sample(
    scores: Tensor, ids: Tensor, num_classes: int, outputs: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """(m,) one class for each example, exactly from the softmax over all classes.

    Args:
        scores: (m, k) the k largest outputs of each example, exactly.
        ids: (m, k) their classes.
        outputs: (example ids (p,), class ids (p,)) → (p,) outputs.
    """
    perturbed = scores - _exponential(scores.shape, scores).log()
    best, at = perturbed.max(1)
    winner = ids.gather(1, at[:, None]).squeeze(1)
    bound = best - scores.amin(1)
    rest = num_classes - ids.shape[1]
    counts = torch.poisson(rest * torch.exp(-bound)).long()
    examples = torch.repeat_interleave(torch.arange(len(counts), device=ids.device), counts)
    if examples.numel() == 0:
        return winner
    classes = _outside(ids, num_classes, examples, counts)
    heights = bound[examples] + _exponential(examples.shape, scores)
    rivals = outputs(examples, classes) + heights
    highest = best.scatter_reduce(0, examples, rivals, "amax")
    won = rivals == highest[examples]
    winner[examples[won]] = classes[won]
    return winner


def _exponential(shape: torch.Size, like: Tensor) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device).exponential_()


def _outside(ids: Tensor, num_classes: int, examples: Tensor, counts: Tensor) -> Tensor:
    """(p,) a class outside ``ids`` of each of ``examples`` (p,), in rows of equal length for `Complement`."""
    width = int(counts.max())
    ranks = torch.randint(num_classes - ids.shape[1], (len(counts), width), device=ids.device)
    table = Complement(ids, num_classes).numbers(ranks)
    taken = torch.arange(width, device=ids.device) < counts[:, None]
    return table[taken]
