"""The full softmax: every class at every step. The honest baseline of all estimators.

Letters: m examples, D classes, d width, nnz targets in all; H (m, d) hidden, O = HWᵀ outputs, Z = Σ_j exp(o_j).
"""

from torch import Tensor

from widehead.heads.linear import LinearHead
from widehead.losses import mean_over_targets
from widehead.split import no_targets
from widehead.targets import SparseTargets


class FullSoftmaxHead(LinearHead):
    """Softmax cross-entropy over all classes, ℓ = log Z − Σ_k share_k o_k, with exact dense gradients; O(mDd) a step.

    The same loss as ``cross_entropy(linear(hidden, W), targets)``, worked out a block of classes at a time. The
    exponentials (m, D) are kept for the backward pass if m ≤ d, so that they take no more memory than W's gradient;
    larger batches keep log Z alone and compute their outputs a second time: four products with W instead of three.
    Of rows that are split over processes (``mesh``), M those of all their examples, the same of M × D/P exponentials.
    Gradients are right for any weighting of the examples' losses. They cannot be differentiated again.

    torch.nn.functional.linear_cross_entropy, chunked, does the same by blocks of examples, and reads all of W for each
    block. Losses of single examples, which weights need, made it slower on CPU than torch without blocks; the sum of
    losses alone, for which it works out gradients in the forward pass, is about as fast as this (measured at m = d: no
    faster; at m = 4d: a sixth faster).

    Args:
        in_features: d. num_classes: D. bias: an additional output weight for a hidden unit that is always 1.
        mesh: as in `LinearHead`. device, dtype: as in torch.

    Raises:
        ValueError: a size that is not a whole number of at least 1.

    >>> import torch
    >>> FullSoftmaxHead(8, 1000)(torch.ones(2, 8), [[3], [14, 15]]).shape
    torch.Size([])
    """

    def _losses(self, hidden: Tensor, targets: SparseTargets) -> Tensor:
        return -mean_over_targets(self._log_probs(hidden, targets), targets)

    def _log_probs(self, hidden: Tensor, targets: SparseTargets) -> Tensor:
        log_z, outputs = self._full_outputs(hidden, targets)
        return outputs - log_z[targets.example_ids]

    def _log_normalizer(self, hidden: Tensor) -> Tensor:
        return self._full_outputs(hidden, no_targets(hidden))[0]
