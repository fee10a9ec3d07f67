"""The exact head in autograd's graph: the backward pass leaves the step for the optimiser (docs/mathematics.md).

Letters: m examples, nnz targets in all.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from widehead.arithmetic import Forward, OutputGradient
from widehead.errors import StaleGraphError
from widehead.factored import FactoredWeights, output_gradient
from widehead.losses import Partials
from widehead.precision import without_autocast

__all__ = ["Losses", "Statistics", "Tap", "Ticket"]


class Recording(Protocol):
    """What a head needs for that."""

    weights: FactoredWeights
    training: bool

    def record(self, gradient: OutputGradient) -> None: ...


class Statistics(torch.autograd.Function):
    """The statistics of the outputs; the backward pass leaves the step for the optimiser (docs/mathematics.md)."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, hook: Tensor | None, head: Recording, read: Forward, ticket: Ticket) -> Any:
        # What ctx holds must not hold an output of this function, which holds ctx: such a circle is never freed.
        ctx.head, ctx.read, ctx.remember, ctx.ticket = head, read, head.training, ticket
        ctx.set_materialize_grads(False)
        return read.statistics()

    @staticmethod
    @torch.autograd.function.once_differentiable
    @without_autocast
    def backward(ctx: Any, by_q: Tensor | None, by_s: Tensor | None, by_a: Tensor | None) -> Any:
        read: Forward = ctx.read
        curvature = torch.zeros_like(read.squared_norm) if by_q is None else 2.0 * by_q
        sparse = torch.zeros_like(read.outputs) if by_a is None else by_a
        return _backward(ctx, curvature, by_s, sparse, ctx.ticket.example_weight), None, None, None, None


class Losses(torch.autograd.Function):
    """The losses of examples, whose derivatives by the statistics are known; otherwise as `Statistics`."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, hook: Tensor | None, head: Recording, read: Forward, known: Partials) -> Any:
        ctx.head, ctx.read, ctx.remember = head, read, head.training
        ctx.partials = known.by_q, known.by_s, known.by_a
        return known.losses

    @staticmethod
    @torch.autograd.function.once_differentiable
    @without_autocast
    def backward(ctx: Any, by_losses: Tensor) -> Any:
        by_q, by_s, by_a = ctx.partials
        curvature = by_q * by_losses * 2.0
        constant = None if by_s is None else by_s * by_losses
        sparse = by_a * by_losses[ctx.read.plan.examples]
        return _backward(ctx, curvature, constant, sparse, by_losses), None, None, None, None


def _backward(
    ctx: Any, curvature: Tensor, constant: Tensor | None, sparse: Tensor, example_weight: Tensor | None
) -> Tensor | None:
    """The gradient by the hidden layer; the step is left for the optimiser."""
    head: Recording = ctx.head
    read: Forward = ctx.read
    if read.revision != head.weights.revision:
        raise StaleGraphError(
            "The head's weights changed between forward and backward (a step, a load or a move). "
            "Run the forward pass again."
        )
    gradient = output_gradient(head.weights, read, curvature, constant, sparse, example_weight)
    if ctx.remember:
        head.record(gradient)
    return gradient.by_hidden if ctx.needs_input_grad[0] else None


class Ticket:
    """Carries the weights of the examples' losses from where they are known to the backward pass of the statistics."""

    example_weight: Tensor | None = None


class Tap(torch.autograd.Function):
    """The losses unchanged; the backward pass notes ∂L/∂ℓ (m,), which includes the reduction and all weights."""

    @staticmethod
    def forward(ctx: Any, losses: Tensor, ticket: Ticket) -> Tensor:
        ctx.ticket = ticket
        return losses.view_as(losses)

    @staticmethod
    @torch.autograd.function.once_differentiable
    @without_autocast
    def backward(ctx: Any, by_losses: Tensor) -> Any:
        ctx.ticket.example_weight = by_losses
        return by_losses, None
