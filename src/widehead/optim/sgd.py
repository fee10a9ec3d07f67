"""Stochastic gradient descent on the weights of exact heads, exact to the last class."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch

from widehead.errors import UnstableStepWarning
from widehead.factored import Change, OutputGradient, apply_step, plan_step
from widehead.optim.clipping import clip_factor
from widehead.optim.heads import FactoredHead, as_heads

__all__ = ["SGD"]


class SGD(torch.optim.Optimizer):
    """What torch.optim.SGD does with the same arguments on dense weights, in O(d²) an example.

    Each head is a parameter group of its own, in the order given, so torch's lr schedulers work. `step` uses up the
    pending gradients; several backward passes before it add up. A head without a backward pass is left alone.

    Args:
        heads: an ExactHead or several.
        lr: step size; None for one that is safe for each loss whatever the targets, where hidden units
            are at most about 1 in size (mean ‖h‖² ≤ d).
        weight_decay: coupled decay: λW is added to the gradient.
        max_grad_norm: scale the gradient of each head down to this exact Frobenius norm where it is larger.

    Raises (`step`):
        NonFiniteError: NaN or infinity in some head's step; no head was changed.

    Warns:
        UnstableStepWarning: once a head, when the step's curvature passes 2; names the largest stable lr.
    """

    def __init__(
        self,
        heads: FactoredHead | Iterable[FactoredHead],
        lr: float | None = None,
        *,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = None,
    ) -> None:
        self._heads = as_heads(heads)
        _check_at_least_zero("lr", 0.0 if lr is None else lr)
        _check_at_least_zero("weight_decay", weight_decay)
        if max_grad_norm is not None and not max_grad_norm > 0.0:
            raise ValueError(f"Parameter `max_grad_norm` should be above 0. Found {max_grad_norm}.")
        self._warned: set[int] = set()
        # torch's bookkeeping wants a tensor in each group; W itself is no parameter, so an empty one stands for it.
        groups = [
            {
                "params": [torch.empty(0)],
                "lr": head.loss.default_lr(head.in_features, head.in_features) if lr is None else lr,
            }
            for head in self._heads
        ]
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "max_grad_norm": max_grad_norm})

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the pending steps."""
        for head in self._heads:
            head.drop_pending()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Make the exact step of every head that has one pending: all of them or, where one fails, none."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        planned: list[tuple[FactoredHead, Change]] = []
        for index, (head, group) in enumerate(zip(self._heads, self.param_groups, strict=True)):
            gradient = head.pending_gradient()
            if gradient is not None:
                planned.append((head, self._plan(index, head, gradient, group)))
        for head, change in planned:
            apply_step(head.weights, change)
            head.drop_pending()
        return loss

    def _plan(self, index: int, head: FactoredHead, gradient: OutputGradient, group: dict[str, Any]) -> Change:
        if group["max_grad_norm"] is not None:
            gradient = gradient.scaled(clip_factor(gradient.norm(head.weights), group["max_grad_norm"]))
        change = plan_step(head.weights, gradient, group["lr"], weight_decay=group["weight_decay"])
        if index not in self._warned:
            self._warn_if_unstable(index, head, gradient, group["lr"])
        return change

    def _warn_if_unstable(self, index: int, head: FactoredHead, gradient: OutputGradient, lr: float) -> None:
        if lr * head.curvature.bound(gradient) <= 2.0 or lr * head.curvature.largest(gradient) <= 2.0:
            return
        stable = 2.0 / head.curvature.largest(gradient, precise=True)
        self._warned.add(index)
        warnings.warn(
            f"lr = {lr:.4g} passes what the loss's curvature allows: steps like this one make it grow. "
            f"The largest stable lr for this batch is {stable:.4g}; use about half of it.",
            UnstableStepWarning,
            stacklevel=4,
        )


def _check_at_least_zero(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0.0):
        raise ValueError(f"Parameter `{name}` should be at least 0 and finite. Found {value}.")
