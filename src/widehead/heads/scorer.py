"""A head as a plain module that scores, for programs that know nothing of heads."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from widehead.losses import Loss


class Scorer(nn.Module):
    """Hidden layers (…, d) to the scores (…, D) that a head ranks classes by: a layer, then what its loss makes of it.

    An ordinary module: torch.export and ONNX take it, it trains, and its state_dict is that of ``linear``.

    Args:
        linear: the outputs o.
        loss: whose `score` ranks classes; None for o itself.
    """

    def __init__(self, linear: nn.Linear, loss: Loss | None = None) -> None:
        super().__init__()
        self.linear = linear
        self.loss = loss

    def forward(self, hidden: Tensor) -> Tensor:
        """(…, D) scores of ``hidden`` (…, d): the best class is the largest."""
        outputs = self.linear(hidden)
        return outputs if self.loss is None else self.loss.score(outputs)

    def extra_repr(self) -> str:
        return "" if self.loss is None else f"loss={type(self.loss).__name__}"


class HeadScorer(nn.Module):
    """Hidden layers (…, d) to the scores (…, D) of a head that is no linear layer, as a tree of classes: log p.

    An ordinary module with a copy of the head: torch.export and ONNX take it, and its state_dict is that of ``head``.
    """

    @torch.no_grad()
    def __init__(self, head: Any) -> None:
        super().__init__()
        self.head = copy.deepcopy(head).eval()
        self(torch.zeros(1, head.in_features, device=head.device))  # a tree finds its levels, which are numbers

    def forward(self, hidden: Tensor) -> Tensor:
        """(…, D) scores of ``hidden`` (…, d): the best class is the largest."""
        scores: Tensor = self.head._all_scores(hidden.flatten(0, -2))
        return scores.unflatten(0, hidden.shape[:-1])
