"""What samplers of class ids that do not look at the hidden layer have in common."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

__all__ = ["Sampler", "checked_draws", "checked_num_classes"]


class Sampler(nn.Module):
    """A fixed distribution q over the class ids 0 … D − 1, each of which has q > 0.

    Law: `sample` draws independently, with replacement, from exactly the q that `log_prob` tells, so that
    Σ f(j)/(n q_j) over n draws is an unbiased estimate of the sum of f over all classes. Draws come from torch's
    default generator of the device.

    Args:
        num_classes: D.
        device: where draws are made; moves with ``.to(device)``.
    """

    _place: Tensor

    def __init__(self, num_classes: int, *, device: torch.device | str | None = None) -> None:
        super().__init__()
        checked_num_classes(num_classes)
        self.num_classes = num_classes
        self.register_buffer("_place", torch.empty(0, device=device), persistent=False)

    @property
    def device(self) -> torch.device:
        return self._place.device

    @abstractmethod
    def sample(self, n: int) -> Tensor:
        """(n,) int64 class ids, drawn with replacement.

        Raises:
            ValueError: n is not a whole number of at least 0.
        """

    @abstractmethod
    def log_prob(self, class_ids: Tensor) -> Tensor:
        """log q of each of ``class_ids``, in their shape, float64. Ids should be in [0, D)."""

    def extra_repr(self) -> str:
        return f"num_classes={self.num_classes}"


def checked_num_classes(num_classes: int) -> None:
    """ValueError where it is not a whole number of at least 1."""
    if not isinstance(num_classes, int) or isinstance(num_classes, bool) or num_classes < 1:
        raise ValueError(f"Parameter `num_classes` should be a whole number of at least 1. Found {num_classes!r}.")


def checked_draws(n: int) -> int:
    """``n`` itself, if it is a whole number of at least 0."""
    if not isinstance(n, int) or isinstance(n, bool) or n < 0:
        raise ValueError(f"Parameter `n` should be a whole number of at least 0. Found {n!r}.")
    return n
