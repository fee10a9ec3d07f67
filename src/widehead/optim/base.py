"""What all optimisers of exact heads share: groups, pending steps, clipping, steps that happen whole or not at all."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from widehead.arithmetic import OutputGradient, StepRule
from widehead.factored import Change, apply_step, plan_step
from widehead.optim.clipping import clip_factor
from widehead.optim.heads import FactoredHead, as_heads
from widehead.precision import without_autocast

__all__ = ["HeadOptimizer", "Proposal", "check_number"]


@dataclass(frozen=True)
class Proposal:
    """What an optimiser wants to do with one gradient.

    Attributes:
        rule: what becomes of W and the gradient.
        right: (m, d) HR, or None for R = I.
        gram_right: (m, d) TTᵀHR, where it is known.
        state: what the optimiser will remember of this step, once it has been made.
    """

    rule: StepRule
    right: Tensor | None
    state: dict[str, Any]
    gram_right: Tensor | None = None


class HeadOptimizer(torch.optim.Optimizer):
    """Base of the optimisers of exact heads.

    Each head is a parameter group of its own, in the order given, so torch's lr schedulers work. `step` uses up the
    pending gradients; several backward passes before it add up. A head without a backward pass is left alone.

    Args:
        heads: an ExactHead or several.
        lr: step size of each head; None for the default of `default_lr`.
        options: what else stands in each parameter group.
    """

    def __init__(
        self,
        heads: FactoredHead | Iterable[FactoredHead],
        lr: float | None,
        *,
        weight_decay: float,
        max_grad_norm: float | None,
        **options: Any,
    ) -> None:
        self._heads = as_heads(heads)
        check_number("lr", 0.0 if lr is None else lr)
        check_number("weight_decay", weight_decay)
        if max_grad_norm is not None and not max_grad_norm > 0.0:
            raise ValueError(f"Parameter `max_grad_norm` should be above 0. Found {max_grad_norm}.")
        options = {"weight_decay": weight_decay, "max_grad_norm": max_grad_norm, **options}
        # torch's bookkeeping wants a tensor in each group; W itself is no parameter, so an empty one stands for it.
        # It is float64 because torch casts what it loads into the state to the type of the parameter.
        groups = [
            {
                "params": [torch.empty(0, dtype=torch.float64, device=head.weights.values.device)],
                "lr": self.default_lr(head, options) if lr is None else lr,
            }
            for head in self._heads
        ]
        super().__init__(groups, {"lr": lr, **options})
        self._set_orders()

    @staticmethod
    @abstractmethod
    def default_lr(head: FactoredHead, options: dict[str, Any]) -> float:
        """The step size for a head where none is given."""

    @abstractmethod
    def _propose(
        self, head: FactoredHead, gradient: OutputGradient, group: dict[str, Any], state: dict[str, Any]
    ) -> Proposal:
        """What to do with ``gradient``; must leave ``state`` as it is."""

    def _watch(self, head: FactoredHead, gradient: OutputGradient, group: dict[str, Any]) -> None:
        """Warn, where there is reason to."""

    def _order(self, group: dict[str, Any]) -> int:
        """Blocks of numbers that rows of V need: 2 with momentum."""
        return 1

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the pending steps."""
        for head in self._heads:
            head.drop_pending()

    @torch.no_grad()
    @without_autocast
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Make the exact step of every head that has one pending: all of them or, where one fails, none.

        Raises:
            NonFiniteError: NaN or infinity in some head's step; no head was changed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._set_orders()
        planned: list[tuple[FactoredHead, Change, Tensor, dict[str, Any]]] = []
        for head, group in zip(self._heads, self.param_groups, strict=True):
            gradient = head.pending_gradient()
            if gradient is None:
                continue
            if group["max_grad_norm"] is not None:
                gradient = gradient.scaled(clip_factor(gradient.norm(), group["max_grad_norm"]))
            key = group["params"][0]
            proposal = self._propose(head, gradient, group, self._state_beside(head, key))
            change = plan_step(head.weights, gradient, proposal.rule, proposal.right, proposal.gram_right)
            self._watch(head, gradient, group)
            planned.append((head, change, key, proposal.state))
        for head, change, key, state in planned:
            apply_step(head.weights, change)
            head.drop_pending()
            if state:
                self.state[key] = state
        return loss

    def _state_beside(self, head: FactoredHead, key: Tensor) -> dict[str, Any]:
        """A copy of what is remembered of a head, on the head's device, to which it may have moved meanwhile."""
        device = head.weights.values.device
        return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in self.state.get(key, {}).items()}

    def _set_orders(self) -> None:
        """Give each head's rows a momentum, or take it away, as this optimiser needs."""
        for head, group in zip(self._heads, self.param_groups, strict=True):
            if head.weights.order != self._order(group):
                head.weights = head.weights.with_order(self._order(group))


def check_number(name: str, value: float, *, least: float = 0.0, below: float = math.inf) -> None:
    """ValueError naming a parameter that is not in [least, below)."""
    if not (math.isfinite(value) and least <= value < below):
        should = f"at least {least:g} and finite" if below == math.inf else f"in [{least:g}, {below:g})"
        raise ValueError(f"Parameter `{name}` should be {should}. Found {value}.")
