"""Negative sampling, as in word2vec.

Letters: m examples, D classes, n negatives, nnz targets in all; o outputs, q the distribution of the negatives.
"""

import math

from torch import Tensor
from torch.nn.functional import softplus

from widehead.heads.sampled import SampledHead, accidental_hits, left_out
from widehead.losses import mean_over_targets
from widehead.targets import SparseTargets


class NegativeSamplingHead(SampledHead):
    """Scores, not probabilities, by telling targets from a few negatives: Mikolov et al. (NIPS 2013, eq. 4).

    With Δ_j = o_j − log n, and negatives that all examples of a batch share,

        ℓ = mean over targets y of −log σ(Δ_y) − Σ_{i=1..n} log σ(−Δ_{j_i}),    j_i ~ q with replacement.

    Negatives that are targets of the example are left out, as in word2vec. This is not a softmax, nor an estimate of
    one: with one target an example, outputs that minimise it have exp(o_j) = p_j / (q_j (1 − p_j)), so they rank
    classes by how much likelier than q they are, and `log_prob` raises TypeError. It is noise-contrastive estimation
    with q_j put to 1.

    Deviation: the paper has o_j for Δ_j, which is the same model with outputs higher by log n. But outputs begin at
    about 0, and where a class is no likelier than q they belong at −log n then. All hidden layers turn one way to get
    there, since a batch shares its negatives, and from there training found no way out.

    Bias: none as an estimate of its own expectation, which is linear in the draws; in eval mode it is the same loss,
    with fresh draws.

    Options: those of `SampledHead`. negatives: 10 if None; 5 to 20 are usual. q: uniform without frequencies. alpha:
    0.75 if None.

    >>> import torch
    >>> head = NegativeSamplingHead(8, 1000)
    >>> head(torch.ones(2, 8), [[3], [14, 15]]).shape
    torch.Size([])
    """

    has_probabilities = False
    default_negatives = 10

    def _losses(self, hidden: Tensor, targets: SparseTargets) -> Tensor:
        drawn = self.sampler.sample(self.negatives)
        positive, negative, ids = self._outputs(self._widened(hidden), targets, drawn)
        negative, even = left_out(negative, accidental_hits(ids, targets)), math.log(self.negatives)
        return mean_over_targets(softplus(even - positive), targets) + softplus(negative - even).sum(1)
