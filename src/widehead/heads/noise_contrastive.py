"""Noise-contrastive estimation of the softmax.

Letters: m examples, D classes, n negatives, nnz targets in all; o outputs, q the distribution of the noise.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import softplus

from widehead.heads.sampled import SampledHead
from widehead.losses import mean_over_targets
from widehead.sampling.base import Frequencies
from widehead.targets import SparseTargets

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class NoiseContrastiveHead(SampledHead):
    """Tells targets from noise: Gutmann and Hyvärinen (AISTATS 2010), for language Mnih and Teh (ICML 2012).

    With Δ_j = o_j − log Z − log n q_j, the log odds that class j is a target rather than one of n draws of noise,

        ℓ = mean over targets y of −log σ(Δ_y) − Σ_{i=1..n} log σ(−Δ_{j_i}),    j_i ~ q with replacement.

    Z is a constant: the loss is least if exp(o_j)/Z is the probability of j, so the outputs normalise themselves as
    far as they can. Noise that happens to be a target stays in, as that minimum needs it.

    Bias: the loss is no estimate of a cross-entropy and says nothing about perplexity. Its minimum is that of the
    likelihood for every n: the gradient's mean is 0 there. Elsewhere it tends to that of −o_y + Σ_j exp(o_j)/Z as n
    grows, which is the likelihood's if Z is the normaliser. In eval mode the loss is −log p of the full softmax
    of the outputs, whatever Z.

    Args:
        in_features: d.
        num_classes: D.
        negatives, sampler, frequencies, alpha: as in `SampledHead`; 100 negatives if None (10 to 100 are usual),
            "log-uniform" without frequencies, and alpha 1, as in Mnih and Teh.
        log_normalizer: log Z; None for log D, so that outputs of 0 say that all classes are alike.
        bias, sparse, mesh, device, dtype: as in `SampledHead`.

    Raises:
        TypeError, ValueError: wrong options.

    >>> head = NoiseContrastiveHead(8, 1000, negatives=20)
    >>> head(torch.ones(2, 8), [[3], [14, 15]]).shape
    torch.Size([])
    """

    default_negatives = 100
    default_alpha = 1.0
    default_sampler = "log-uniform"

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        negatives: int | None = None,
        sampler: str | None = None,
        frequencies: Frequencies | None = None,
        alpha: float | None = None,
        log_normalizer: float | None = None,
        bias: bool = False,
        sparse: bool = True,
        mesh: DeviceMesh | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            in_features,
            num_classes,
            negatives=negatives,
            sampler=sampler,
            frequencies=frequencies,
            alpha=alpha,
            bias=bias,
            sparse=sparse,
            mesh=mesh,
            device=device,
            dtype=dtype,
        )
        self.fixed_log_normalizer = math.log(num_classes) if log_normalizer is None else float(log_normalizer)
        if not math.isfinite(self.fixed_log_normalizer):
            raise ValueError(f"Parameter `log_normalizer` should be finite. Found {log_normalizer}.")
        self._check_alike(self.fixed_log_normalizer)

    def _losses(self, hidden: Tensor, targets: SparseTargets) -> Tensor:
        drawn = self.sampler.sample(self.negatives)
        positive, negative, noise = self._outputs(self._widened(hidden), targets, drawn)
        told = softplus(self._log_noise(targets.class_ids, positive) - positive)
        mistaken = softplus(negative - self._log_noise(noise, negative))
        return mean_over_targets(told, targets) + mistaken.sum(1)

    def _log_noise(self, class_ids: Tensor, like: Tensor) -> Tensor:
        """log(Z n q) of some classes: the output from which on a class is rather a target than noise."""
        constant = self.fixed_log_normalizer + math.log(self.negatives)
        log_noise: Tensor = constant + self.sampler.log_prob(class_ids)
        return log_noise.to(like.dtype)
