"""Optimiser of an encoder: one rule for dense gradients, its twin for the rows of embeddings that a batch names."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from widehead.models.row_split_bag import RowSplitBag
from widehead.optim.clipping import joint_norm
from widehead.optim.row_adagrad import RowAdagrad
from widehead.optim.row_adam import RowAdam
from widehead.optim.rows import coalesced, values_of
from widehead.split import Peers, is_split


class EncoderOptimizer:
    """AdamW on the dense parameters and RowAdam on the embeddings with sparse gradients, as one; or both by Adagrad.

    ``parts`` holds the torch optimisers, for learning-rate schedulers: two at most. Parameters that need no gradient
    stay as they are; if none does, ``parts`` is empty.

    Args:
        encoder: module whose ``Embedding``, ``EmbeddingBag`` and `RowSplitBag` children say by ``sparse`` what
            gradients they have.
        lr: learning rate of both.
        rule: "adam", or "adagrad": torch's Adagrad and RowAdagrad.
        weight_decay: decoupled decay of the dense parameters, by AdamW alone. Embeddings with sparse gradients do not
            decay.
        max_grad_norm: limit of the Euclidean norm of all gradients of the encoder together, or None.

    Raises:
        ValueError: the encoder has no parameters, or a parameter is out of range; a weight decay with Adagrad.
    """

    def __init__(
        self,
        encoder: nn.Module,
        lr: float,
        *,
        rule: Literal["adam", "adagrad"] = "adam",
        weight_decay: float = 0.0,
        max_grad_norm: float | None = None,
    ) -> None:
        if rule == "adagrad" and weight_decay != 0.0:
            raise ValueError(f'Parameter `weight_decay` should be 0 with the rule "adagrad". Found {weight_decay}.')
        if next(encoder.parameters(), None) is None:
            raise ValueError(f"Parameter `encoder` should have parameters. Found none in {type(encoder).__name__}.")
        embeddings = [m for m in encoder.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag | RowSplitBag)]
        sparse = [m.weight for m in embeddings if m.sparse and m.weight.requires_grad]
        rows = {id(p) for p in sparse}
        dense = [p for p in encoder.parameters() if p.requires_grad and id(p) not in rows]
        self.parameters = [*dense, *sparse]
        rules: Sequence[Callable[..., torch.optim.Optimizer]] = (torch.optim.Adagrad, RowAdagrad)
        if rule == "adam":
            rules = (partial(torch.optim.AdamW, weight_decay=weight_decay), RowAdam)
        given = zip(rules, (dense, sparse), strict=True)
        self.parts: list[torch.optim.Optimizer] = [make(some, lr=lr) for make, some in given if some]
        self.max_grad_norm = max_grad_norm

    @property
    def lr(self) -> float:
        """The learning rate that the next step uses."""
        return float(self.parts[0].param_groups[0]["lr"]) if self.parts else 0.0

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad()

    def average(self, peers: Peers) -> None:
        """Give all processes the average of their gradients, dense or sparse, so that parameters stay the same."""
        average_gradients(self.parameters, peers)

    def gradient_norm(self) -> Tensor | None:
        """() Euclidean norm of all gradients, not finite if one of them or its square is not; None of none."""
        values = [values_of(g) for g in _gradients(self.parameters)]
        return joint_norm(values) if values else None

    def step(self) -> None:
        """Clip, then change the parameters."""
        if self.max_grad_norm is not None and self.parameters:
            clip(self.parameters, self.max_grad_norm)
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Both states; tensors are shared with the optimiser, not copied."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state of an optimiser of the same encoder."""
        for part, saved in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(saved)


def average_gradients(parameters: Sequence[Tensor], peers: Peers) -> None:
    """Give all processes the average of their gradients, dense or sparse; that of split rows is one already."""
    whole = [p for p in parameters if not is_split(p)]
    if peers.size == 1 or not whole:
        return
    found = [p.grad if p.grad is None else _once(p.grad) for p in whole]
    for parameter, gradient in zip(whole, peers.average(whole, found), strict=True):
        parameter.grad = gradient


@torch.no_grad()
def clip(parameters: list[Tensor], max_norm: float) -> Tensor:
    """Scale dense and sparse gradients together so that their norm is at most ``max_norm``; returns the norm before."""
    gradients = _gradients(parameters)
    norm = joint_norm([values_of(g) for g in gradients])
    scale = torch.clamp(max_norm / (norm + 1e-12), max=1.0)
    for gradient in gradients:
        gradient.mul_(scale)
    return norm


def _gradients(parameters: Sequence[Tensor]) -> list[Tensor]:
    """The gradients that there are; a sparse one is made to hold each row once."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad = _once(parameter.grad)
    return [p.grad for p in parameters if p.grad is not None]


def _once(gradient: Tensor) -> Tensor:
    """A gradient that holds each row once, if it is sparse in them, as that of split rows does."""
    return coalesced(gradient) if gradient.is_sparse and not is_split(gradient) else gradient
