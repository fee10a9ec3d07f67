"""What optimisers need of a head."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from widehead.arithmetic import OutputGradient
from widehead.factored import LearningRateMonitor, WeightRecord
from widehead.losses import Loss


class FactoredHead(Protocol):
    """A head's factored weights, and what the backward passes left for its optimiser."""

    weights: WeightRecord
    monitor: LearningRateMonitor
    loss: Loss
    in_features: int
    handle: nn.Parameter

    def at_work(self) -> AbstractContextManager[None]: ...
    def keep_momentum(self, keep: bool, basis: float = 0.0) -> None: ...
    def pending_gradient(self) -> OutputGradient | None: ...
    def drop_pending(self) -> None: ...
    def scale_pending(self, factor: float | Tensor) -> None: ...
    def grad_norm(self) -> Tensor: ...
    def lent_norm(self) -> Tensor | None: ...
    def lend_handle(self, owner: object) -> None: ...
    def set_gradient(self, value: Tensor | None) -> None: ...
    def register_optimizer(self, optimizer: torch.optim.Optimizer) -> None: ...


class StandIn(Tensor):
    """A number in a parameter group, in the place of a head's W: its gradient has the norm of the head's.

    What torch does to gradients through parameters (GradScaler unscales them and looks for infinities, frameworks clip
    them by their norm) it so does to the head's.
    """

    head: FactoredHead

    @staticmethod
    def of(head: FactoredHead) -> StandIn:
        """Float64, because torch casts what it loads into the state to the type of the parameter."""
        made = torch.zeros(1, dtype=torch.float64, device=head.weights.values.device).as_subclass(StandIn)
        made.head = head
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> StandIn:
        return memo.setdefault(id(self), StandIn.of(copy.deepcopy(self.head, memo)))

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return StandIn.of, (self.head,)

    @property
    def grad(self) -> Tensor | None:
        """(2,) or None."""
        return self.head.lent_norm()

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        self.head.set_gradient(value)


def as_heads(heads: FactoredHead | Iterable[FactoredHead]) -> list[FactoredHead]:
    """One head or several as a list; TypeError if something is no exact head, ValueError if one comes twice."""
    listed: list[Any] = list(heads) if isinstance(heads, Iterable) else [heads]
    for head in listed:
        if not _is_exact(head):
            raise TypeError(f"Expected exact heads, as wh.ExactHead makes them. Found {_found(heads, head)}.")
    if len({id(head) for head in listed}) != len(listed):
        raise ValueError("`heads` should name each head once.")
    return listed


def _is_exact(head: Any) -> bool:
    return isinstance(getattr(head, "weights", None), WeightRecord)


def _found(given: Any, head: Any) -> str:
    """What was given in the place of exact heads, and what to do with it."""
    kind = type(given if isinstance(given, nn.Module) else head).__name__
    names = [n for n, m in given.named_modules() if _is_exact(m)] if isinstance(given, nn.Module) else []
    if names:
        heads = ", ".join(f"model.{name}" for name in names)
        return f"{kind}, a model that holds some: give {heads}, and the other parameters to an optimiser of torch"
    if isinstance(head, dict):
        return f"{kind}: give the heads themselves, not parameter groups"
    if isinstance(head, Tensor):
        return "a Parameter: give the head itself, not its parameters"
    if hasattr(head, "num_classes") and hasattr(head, "sparse"):
        rows, dense = "wh.optim.RowAdam", "torch.optim.Adam"
        return f"{kind}, whose weights are parameters: {rows if head.sparse else dense}(head.parameters()) trains it"
    return kind
