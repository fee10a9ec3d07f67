"""Negative sampling, as in word2vec.

Letters: m examples, D classes, n negatives, nnz targets in all; o outputs, q the distribution of the negatives.
"""

from torch import Tensor
from torch.nn.functional import softplus

from widehead.heads.sampled import SampledHead, accidental_hits, left_out
from widehead.losses import mean_over_targets
from widehead.targets import SparseTargets


class NegativeSamplingHead(SampledHead):
    """Scores, not probabilities, by telling targets from a few negatives: Mikolov et al. (NIPS 2013, eq. 4).

        ℓ = mean over targets y of −log σ(o_y) − Σ_{i=1..n} log σ(−o_{j_i}),    j_i ~ q with replacement.

    Negatives that are targets of the example are left out, as in word2vec. This is not a softmax, nor an estimate of
    one: with one target an example, outputs that minimise it have exp(o_j) = p_j / (n q_j (1 − p_j)), so they rank
    classes by how much likelier than q they are, and `log_prob` raises TypeError. It is noise-contrastive estimation
    with n q_j put to 1.

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
        negative = left_out(negative, accidental_hits(ids, targets))
        return mean_over_targets(softplus(-positive), targets) + softplus(negative).sum(1)
