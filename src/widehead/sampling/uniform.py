"""All classes alike."""

import math

import torch
from torch import Tensor

from widehead.sampling.base import Sampler, checked_draws


class UniformSampler(Sampler):
    """q_j = 1/D.

    Args:
        num_classes: D.
        device: as in torch.

    >>> UniformSampler(10).sample(3).shape
    torch.Size([3])
    """

    def sample(self, n: int) -> Tensor:
        return torch.randint(self.num_classes, (checked_draws(n),), device=self.device)

    def log_prob(self, class_ids: Tensor) -> Tensor:
        return torch.full(class_ids.shape, -math.log(self.num_classes), dtype=torch.float64, device=class_ids.device)
