"""An encoder and the wide output layer on top of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from widehead.targets import Inputs, TargetsLike


class WideNetwork(nn.Module):
    """Inputs to hidden vectors (``encoder``), hidden vectors to a loss or to the best classes (``head``).

    Args:
        encoder: inputs of m examples to (m, d); any module.
        head: an output layer of this library, with ``in_features`` = d: ``forward(hidden, targets)`` gives the loss.

    Attributes:
        beside: what ranks classes together with the head, as a job has it, or None. It is not trained, nor in the
            state_dict.
    """

    beside: Any

    def __init__(self, encoder: nn.Module, head: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.beside = None

    def forward(self, inputs: Inputs, targets: TargetsLike) -> Tensor:
        """The mean loss of m examples, a scalar."""
        return self.head(self.encoder(inputs), targets)

    def hidden(self, inputs: Inputs) -> Tensor:
        """(m, d) last hidden layer."""
        return self.encoder(inputs)

    @torch.no_grad()
    def top_k(self, inputs: Inputs, k: int, exclude: TargetsLike | None = None) -> tuple[Tensor, Tensor]:
        """(m, k) scores, best first, and their (m, k) class ids, leaving out the classes in ``exclude``."""
        scores, class_ids = self.head.top_k(self.encoder(inputs), k, exclude=exclude)
        return scores, class_ids
