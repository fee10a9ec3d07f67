"""The exact head in autograd's graph: the backward pass leaves the step for the optimiser (docs/mathematics.md).

Letters: m examples, nnz targets in all.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar

import torch
from torch import Tensor

from widehead.arithmetic import Forward, OutputGradient
from widehead.errors import StaleGraphError
from widehead.factored import WeightRecord
from widehead.losses import Partials
from widehead.precision import in_full_precision

_P = ParamSpec("_P")
_R = TypeVar("_R")


def differentiable_once(backward: Callable[_P, _R]) -> Callable[_P, _R]:
    """A backward pass of a head that refuses create_graph=True.

    torch's once_differentiable lets what it returns pass as constants if the loss is a mean, say, whose own derivative
    is one: then a penalty on the gradient would train nothing.
    """

    @wraps(backward)
    def refusing(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "This head can be differentiated once. Found a backward pass with create_graph=True; a head that can "
                "be twice is wh.SampledSoftmaxHead."
            )
        return backward(*args, **kwargs)

    return refusing


class Recording(Protocol):
    """What a head needs for that."""

    weights: WeightRecord
    handle: Tensor

    @property
    def learns(self) -> bool: ...

    def record(self, gradient: OutputGradient) -> None: ...
    def at_work(self) -> AbstractContextManager[None]: ...


class ExactFunction(torch.autograd.Function):
    """What a loss needs of the outputs: q, s and a, or the losses themselves if their derivatives are known.

    The backward pass gives the gradient by the hidden layer and leaves the step for the optimiser.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, handle: Tensor, head: Recording, read: Forward, known: Partials | None
    ) -> Any:
        # What ctx holds must not hold an output of this function, which holds ctx: such a circle is never freed.
        ctx.head, ctx.read, ctx.remember, ctx.writes = head, read, head.learns, writes_into(read.hidden)
        ctx.by_losses = None if known is None else (known.by_q, known.by_s, known.by_a)
        ctx.set_materialize_grads(known is not None)
        return read.statistics() if known is None else known.losses

    @staticmethod
    @differentiable_once
    @in_full_precision
    def backward(ctx: Any, *by_outputs: Any) -> Any:
        head: Recording = ctx.head
        parts = (_by_statistics if ctx.by_losses is None else _by_losses)(ctx, *by_outputs)
        check_unwritten(ctx.read.hidden, ctx.writes)
        with head.at_work():
            check_revision(head.weights, ctx.read)
            gradient = head.weights.gradient(ctx.read, *parts)
        # As in torch: backward() leaves a gradient, torch.autograd.grad() by other tensors does not.
        if ctx.remember and torch._C._will_engine_execute_node(ctx.next_functions[1][0]):
            head.record(gradient)
        by_hidden, by_handle = ctx.needs_input_grad[:2]
        of_handle = torch.empty_like(head.handle) if by_handle else None  # no number
        return head.weights.by_hidden(gradient, ctx.read) if by_hidden else None, of_handle, None, None, None


def check_revision(weights: WeightRecord, read: Forward) -> None:
    """StaleGraphError if the weights are others than those that were read."""
    if read.revision != weights.revision:
        raise StaleGraphError(
            "The head's weights changed between forward and backward (a step, a load or a move). "
            "Run the forward pass again."
        )


def writes_into(hidden: Tensor) -> int | None:
    """How often somebody wrote into a tensor or a view of it; None of inference tensors, of which nobody counts it."""
    return None if hidden.is_inference() else hidden._version


def check_unwritten(hidden: Tensor, writes: int | None) -> None:
    """StaleGraphError if somebody wrote into the hidden layer of a pass since then: the step is made of it."""
    if writes_into(hidden) != writes:
        raise StaleGraphError(
            "A hidden layer should stay as it is until the head's optimiser has made its step. Found that it was "
            "written into after the forward pass: give the head a copy, hidden.clone(), or write elsewhere."
        )


def _by_statistics(ctx: Any, by_q: Tensor | None, by_s: Tensor | None, by_a: Tensor | None) -> tuple[Any, ...]:
    """λ, σ, g of `OutputGradient` from the derivatives by q, s and a; weights of examples are not known."""
    lam = torch.zeros_like(ctx.read.squared_norm) if by_q is None else 2.0 * by_q
    return lam, by_s, torch.zeros_like(ctx.read.outputs) if by_a is None else by_a


def _by_losses(ctx: Any, weight: Tensor) -> tuple[Any, ...]:
    by_q, by_s, by_a = ctx.by_losses
    return output_derivatives(ctx.read, by_q, by_s, by_a, weight)


def output_derivatives(
    read: Forward, by_q: Tensor, by_s: Tensor | None, by_a: Tensor, weight: Tensor
) -> tuple[Any, ...]:
    """λ, σ, g and the weight of each example, from the derivatives by the losses (m,), which are those weights."""
    weight = weight if weight.dtype == by_q.dtype else weight.to(by_q.dtype)
    constant = None if by_s is None else by_s * weight
    return by_q * weight * 2.0, constant, by_a * weight[read.examples], weight
