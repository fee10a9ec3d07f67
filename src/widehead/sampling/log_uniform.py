"""Nearly Zipf's law, for classes numbered by falling frequency; needs no table."""

import math

import torch
from torch import Tensor

from widehead.sampling.base import Sampler, checked_draws


class LogUniformSampler(Sampler):
    """q_j = log((j + 2)/(j + 1)) / log(D + 1): class 0 should be the most frequent, class D − 1 the rarest.

    The distribution of TensorFlow's ``log_uniform_candidate_sampler``, here always with replacement.

    Args:
        num_classes: D.
        device: as in torch.

    >>> sampler = LogUniformSampler(3)
    >>> sampler.log_prob(torch.arange(3)).exp().sum().item()
    1.0
    """

    def sample(self, n: int) -> Tensor:
        # The inverse of the distribution function log(j + 1)/log(D + 1). In float64, as float32 has no 10^8 steps.
        uniform = torch.rand(checked_draws(n), dtype=torch.float64, device=self.device)
        ids = torch.exp(uniform * math.log(self.num_classes + 1)).to(torch.int64) - 1
        return ids.clamp(0, self.num_classes - 1)

    def log_prob(self, class_ids: Tensor) -> Tensor:
        shares = torch.log1p(1.0 / (class_ids.to(torch.float64) + 1.0)) / math.log(self.num_classes + 1)
        return shares.log()
