"""BlackOut: a discriminative loss over the target and weighted negatives.

Letters: m examples, D classes, n negatives, nnz targets in all; o outputs, q the distribution of the negatives.
"""

import torch
from torch import Tensor
from torch.nn.functional import softplus

from widehead.heads.sampled import SampledHead, accidental_hits, left_out
from widehead.losses import mean_over_targets
from widehead.targets import SparseTargets


class BlackOutHead(SampledHead):
    """BlackOut: Ji, Vishwanathan, Satish, Anderson and Dubey (ICLR 2016).

    Over a target y and n negatives, a softmax weighted by 1/q says p̃; y should be likely, each negative unlikely:

        p̃_i = exp(o_i)/q_i / (exp(o_y)/q_y + Σ_k exp(o_{j_k})/q_{j_k}),    j_k ~ q with replacement,
        ℓ = −log p̃_y − Σ_k log(1 − p̃_{j_k}),    the mean of it over the example's targets.

    Negatives that are targets of the example are left out, as the paper's are drawn from the other classes.

    Bias: the loss estimates no cross-entropy, and its minimum is near the softmax's only if no class is likely. For
    one target and n → ∞ it is −log(π_y/(1 − π_y)) up to a constant, π = softmax(o), which is least if
    p_j = π_j Σ_{y ≠ j} p_y/(1 − π_y): likely classes come out too likely, p = 0.4 as π = 0.59, say, p = 0.01 nearly
    as itself. `log_prob`, and the loss in eval mode, are those of the full softmax of the outputs.

    Options: those of `SampledHead`. negatives: 500 if None. q: uniform without frequencies. alpha: 0.4 if None; 0.2 to
    0.4 are usual.

    >>> head = BlackOutHead(8, 1000, negatives=50)
    >>> head(torch.ones(2, 8), [[3], [14, 15]]).shape
    torch.Size([])
    """

    default_negatives = 500
    default_alpha = 0.4

    def _losses(self, hidden: Tensor, targets: SparseTargets) -> Tensor:
        drawn = self.sampler.sample(self.negatives)
        positive, negative, ids = self._outputs(self._widened(hidden), targets, drawn)
        positive = positive - self.sampler.log_prob(targets.class_ids).to(positive.dtype)
        negative = negative - self.sampler.log_prob(ids).to(negative.dtype)
        negative = left_out(negative, accidental_hits(ids, targets))
        return mean_over_targets(_discriminative(positive, negative, targets.example_ids), targets)


def _discriminative(positive: Tensor, negative: Tensor, example_ids: Tensor) -> Tensor:
    """(nnz,) −log p̃_y − Σ_k log(1 − p̃_k), from o − log q of the targets (nnz,) and negatives (m, n).

    1 − p̃ is exact to rounding only if p̃ is not nearly 1. That only the largest negative can be: its 1 − p̃ is
    summed from all the others, which are at most ½ each and subtract well.
    """
    top, at = negative.max(dim=1)
    low = torch.finfo(negative.dtype).min / 4
    others = negative.scatter(1, at[:, None], low)
    top, others = top[example_ids], others[example_ids]
    log_rest = torch.logaddexp(positive, torch.logsumexp(others, dim=1))  # all but the largest negative
    log_all = torch.logaddexp(log_rest, top)
    small = -torch.log1p(-torch.exp(others - log_all[:, None])).sum(1)
    return (log_all - positive) + softplus(top - log_rest) + small
