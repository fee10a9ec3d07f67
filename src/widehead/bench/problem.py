"""The problem that output layers are timed on: random hidden layers, random target classes.

Letters: D classes, d width, m examples a batch, K targets an example.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from widehead.targets import SparseTargets

__all__ = ["OutputLayerProblem"]


@dataclass(frozen=True)
class OutputLayerProblem:
    """Sizes of an output layer. Raises ValueError where one is not a whole number of at least 1, or K > D."""

    classes: int
    width: int
    batch: int
    targets_per_example: int = 1

    def __post_init__(self) -> None:
        for name in ("classes", "width", "batch", "targets_per_example"):
            if getattr(self, name) < 1:
                raise ValueError(f"Parameter `{name}` should be at least 1. Found {getattr(self, name)}.")
        if self.targets_per_example > self.classes:
            raise ValueError(
                f"Parameter `targets_per_example` should be at most classes = {self.classes}. "
                f"Found {self.targets_per_example}."
            )

    def draw(self, generator: torch.Generator) -> tuple[Tensor, SparseTargets]:
        """One batch: hidden (m, d) with entries of unit size, and K uniform targets an example."""
        hidden = torch.randn(self.batch, self.width, generator=generator, device=generator.device)
        shape = (self.batch, self.targets_per_example)
        ids = torch.randint(0, self.classes, shape, generator=generator, device=generator.device)
        return hidden, SparseTargets.from_ids(ids)

    @property
    def floor_flops(self) -> float:
        """14 d² m: the multiplications and additions that an exact step cannot do without."""
        return 14.0 * self.width**2 * self.batch

    @property
    def dense_bytes(self) -> int:
        """What a dense float32 step holds at its peak: W, its gradient, and three m × D matrices."""
        return 4 * self.classes * (2 * self.width + 3 * self.batch)
