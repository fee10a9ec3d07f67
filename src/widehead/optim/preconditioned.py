"""What Newton, Shampoo and Muon share: a right preconditioner R, and steps that it can be trusted with."""

from __future__ import annotations

import math
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

_TOLERANCE = 1.01  # a step counts as scaled back where it passed what is allowed by more than rounding


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
        super().__init__(heads, lr, weight_decay=weight_decay, max_grad_norm=max_grad_norm, damping=damping, **options)

    def trust(self) -> list[Trust]:
        """For each head, the steps made and how many of them were scaled back."""
        states = [self.state.get(group["params"][0], {}) for group in self.param_groups]
        return [Trust(state.get("steps", 0), state.get("scaled_back", 0)) for state in states]

    @abstractmethod
    def _right(
        self,
        head: FactoredHead,
        gradient: OutputGradient,
        curvature: Curvature,
        group: dict[str, Any],
        state: dict[str, Any],
    ) -> tuple[Tensor, Tensor | None]:
        """(m, d) HR and, where it is known, TTᵀHR; changes ``state``, a copy. ``state["age"]`` is 0 where R is new."""

    def _length(self, group: dict[str, Any], state: dict[str, Any]) -> float:
        """η, before it is compared with the curvature of the batch."""
        return float(group["lr"])

    def _propose(
        self, head: FactoredHead, gradient: OutputGradient, group: dict[str, Any], state: dict[str, Any]
    ) -> Proposal:
        decay = group["lr"] * group["weight_decay"]
        check_number("lr * weight_decay", decay, below=1.0)
        state.setdefault("steps", 0)
        state.setdefault("scaled_back", 0)
        curvature = Curvature.of(head, gradient)
        right, gram_right = self._right(head, gradient, curvature, group, state)
        _measure_targets(gradient, curvature, right, state)
        length = self._length(group, state)
        found = float(dense_curvature(gradient.read.hidden, right, curvature.dense)) + state["targets"]
        if not math.isfinite(length * found):  # NaN in the batch, which the step itself will meet and name
            length = group["lr"]
        elif length * found > 1.0:
            state["scaled_back"] += length * found > _TOLERANCE
            length = 1.0 / found
        state["steps"] += 1
        return Proposal(StepRule(((1.0 - decay,),), (-length,)), right, state, gram_right)


def _measure_targets(gradient: OutputGradient, curvature: Curvature, right: Tensor, state: dict[str, Any]) -> None:
    """Curvature that targets add, in the metric of R: measured when R is new, and meanwhile followed by a bound."""
    bound = float(curvature.bound_of_targets(gradient, right))
    if state["age"] == 0 and bound > 0.0:
        state["targets_by_bound"] = float(curvature.of_targets(gradient, right)) / bound
    state["targets"] = bound * state.get("targets_by_bound", 1.0)


@dataclass(frozen=True)
class Curvature:
    """Curvature of a batch: ``dense`` (m,) |λ|, of all outputs; ``targets`` (nnz,), what targets add, or None."""

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

    def of_targets(self, gradient: OutputGradient, right: Tensor) -> Tensor:
        """() λmax of what targets add, in the metric of R where Hr = ``right``, for the class that has the most."""
        if self.targets is None:
            return right.new_zeros(())
        return target_curvature(gradient.read.plan, gradient.read.hidden, right, self.targets)

    def bound_of_targets(self, gradient: OutputGradient, right: Tensor) -> Tensor:
        """() a bound of `of_targets`, by traces: much cheaper, and far above it for classes with many examples."""
        if self.targets is None:
            return right.new_zeros(())
        plan = gradient.read.plan
        lengths = torch.linalg.vecdot(gradient.read.hidden, right)
        return plan.class_sums(self.targets * lengths[plan.examples]).max()
