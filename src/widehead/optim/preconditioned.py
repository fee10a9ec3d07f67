"""What Newton, Shampoo and Muon share: a right preconditioner R, renewed now and then, and steps it can be trusted with."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from widehead.factored import OutputGradient, StepRule, dense_curvature, target_curvature
from widehead.optim.base import HeadOptimizer, Proposal, check_number
from widehead.optim.heads import FactoredHead

__all__ = ["Preconditioned", "Trust"]

_TOLERANCE = 1.05  # a step is scaled back only where it passes what is allowed by more than rounding


@dataclass(frozen=True)
class Trust:
    """How often steps of a head were scaled back, because the curvature they met was more than R had seen."""

    steps: int
    scaled_back: int


class Preconditioned(HeadOptimizer):
    """W ← (1 − lr·λ) W − η·∇W·R with a symmetric positive definite R (d, d) of its own for each head.

    The step is exact: with R given, every one of the D × d weights is what the dense computation makes it. Before it is
    made, η is compared with the curvature of the batch itself in the metric of R (the dense part's, and that of the
    target with the most); where η passes what that allows, it is scaled back. Weight decay is decoupled.
    """

    def __init__(
        self,
        heads: FactoredHead | Iterable[FactoredHead],
        lr: float | None,
        *,
        damping: float,
        weight_decay: float,
        max_grad_norm: float | None,
        **options: Any,
    ) -> None:
        check_number("damping", damping)
        super().__init__(
            heads, lr, weight_decay=weight_decay, max_grad_norm=max_grad_norm, damping=damping, **options
        )

    def trust(self) -> list[Trust]:
        """For each head, the steps made and how many of them were scaled back."""
        states = [self.state.get(group["params"][0], {}) for group in self.param_groups]
        return [Trust(state.get("steps", 0), state.get("scaled_back", 0)) for state in states]

    @abstractmethod
    def _right(
        self, head: FactoredHead, gradient: OutputGradient, curvature: Curvature, options: dict[str, Any], state: dict[str, Any]
    ) -> Tensor:
        """(m, d) HR; changes ``state``, which is a copy."""

    def _propose(
        self, head: FactoredHead, gradient: OutputGradient, group: dict[str, Any], state: dict[str, Any]
    ) -> Proposal:
        state.setdefault("steps", 0)
        state.setdefault("scaled_back", 0)
        curvature = Curvature.of(head, gradient)
        right = self._right(head, gradient, curvature, group, state)
        lr = self._trusted(gradient, curvature, right, group["lr"], state)
        state["steps"] += 1
        decay = group["lr"] * group["weight_decay"]
        check_number("lr * weight_decay", decay, below=1.0)
        return Proposal(StepRule(((1.0 - decay,),), (-lr,)), right, state)

    def _trusted(
        self, gradient: OutputGradient, curvature: Curvature, right: Tensor, lr: float, state: dict[str, Any]
    ) -> float:
        """The largest step up to ``lr`` that does not overshoot on this batch."""
        found = curvature.largest(gradient, right)
        if lr * found <= _TOLERANCE:
            return lr
        state["scaled_back"] += 1
        return 1.0 / found


@dataclass(frozen=True)
class Curvature:
    """Curvature of a batch: ``dense`` (m,) |λ|, of every output of an example; ``targets`` (nnz,), of its targets besides.

    ``targets`` is None where there is none.
    """

    dense: Tensor
    targets: Tensor | None

    @classmethod
    def of(cls, head: FactoredHead, gradient: OutputGradient) -> Curvature:
        """From the head's loss, at the outputs that the forward pass met."""
        if gradient.example_weight is None:
            raise TypeError(
                "A preconditioned optimiser should know the loss. Found a backward pass from head.statistics(): call "
                "head(hidden, targets) with wh.losses.SphericalLoss(your function), or use wh.optim.SGD."
            )
        read = gradient.read
        targets = head.loss.target_curvature(*read.statistics(), read.targets, head.weights.num_classes)
        targets = targets * gradient.example_weight.abs()[read.plan.examples]
        return cls(gradient.curvature.abs(), targets if bool((targets > 0).any()) else None)

    def mean(self, gradient: OutputGradient, num_classes: int) -> Tensor:
        """(m,) mean over all classes."""
        if self.targets is None:
            return self.dense
        return self.dense + gradient.read.plan.row_sums(self.targets) / num_classes

    def largest(self, gradient: OutputGradient, right: Tensor) -> float:
        """λmax over all classes, in the metric of R, where Hr = ``right``."""
        return float(dense_curvature(gradient.read.hidden, right, self.dense) + self.of_targets(gradient, right))

    def of_targets(self, gradient: OutputGradient, right: Tensor) -> Tensor:
        """() the part that the target with the most curvature has in it."""
        if self.targets is None:
            return right.new_zeros(())
        return target_curvature(gradient.read.plan, gradient.read.hidden, right, self.targets)
