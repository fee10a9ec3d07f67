"""What Newton, Shampoo and Muon share: a right preconditioner R, and steps that it can be trusted with."""

from __future__ import annotations

import math
import sys
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from widehead.arithmetic import OutputGradient, StepRule
from widehead.factored import FactoredWeights, dense_curvature, target_curvature
from widehead.optim.base import HeadOptimizer, Proposal, check_number
from widehead.optim.heads import FactoredHead

__all__ = ["Preconditioned", "Remembering", "Trust", "damping_of"]

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

    default_damping: ClassVar[float] = 0.1

    def __init__(
        self,
        heads: FactoredHead | Iterable[FactoredHead],
        lr: float | None = None,
        *,
        damping: float | None = None,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = None,
        **options: Any,
    ) -> None:
        damping = self.default_damping if damping is None else damping
        check_number("damping", damping)
        super().__init__(heads, lr, weight_decay=weight_decay, max_grad_norm=max_grad_norm, damping=damping, **options)

    def trust(self) -> list[Trust]:
        """For each head, the steps made and how many of them were scaled back."""
        states = [self.state.get(group["params"][0], {}) for group in self.param_groups]
        return [Trust(state.get("steps", 0), state.get("scaled_back", 0)) for state in states]

    @abstractmethod
    def _right(self, batch: Batch, group: dict[str, Any], state: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
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
        batch = Batch.of(head, gradient)
        right, gram_right = self._right(batch, group, state)
        _measure_targets(batch, right, state)
        length = self._length(group, state)
        found = float(dense_curvature(batch.hidden, right, batch.dense)) + state["targets"]
        if not math.isfinite(length * found):  # NaN in the batch, which the step itself will meet and name
            length = group["lr"]
        elif length * found > 1.0:
            state["scaled_back"] += length * found > _TOLERANCE
            length = 1.0 / found
        state["steps"] += 1
        return Proposal(StepRule(((1.0 - decay,),), (-length,)), right, state, gram_right)


class Remembering(Preconditioned):
    """R made of a (d, d) matrix that is summed over steps, which fade, and turned into R every few steps."""

    default_refresh: ClassVar[int]
    # One in so many steps may be missing in R: while it is young, and where nothing fades.
    _young, _forgets_nothing = 10, 50

    def __init__(
        self,
        heads: FactoredHead | Iterable[FactoredHead],
        lr: float | None = None,
        *,
        decay: float = 0.95,
        refresh_every: int | None = None,
        **options: Any,
    ) -> None:
        check_number("decay", decay)
        if decay > 1.0:
            raise ValueError(f"Parameter `decay` should be at most 1. Found {decay}.")
        if refresh_every is None:  # where nothing fades a step is ever less of the sum, and R lasts ever longer
            refresh_every = self.default_refresh if decay < 1.0 else sys.maxsize
        check_number("refresh_every", refresh_every, least=1)
        super().__init__(heads, lr, decay=decay, refresh_every=refresh_every, **options)

    @abstractmethod
    def _made_right(self, total: Tensor, weight: float, damping: float) -> Tensor:
        """(d, d) R, of the sum and what the steps in it weigh together."""

    def _remember(self, added: Tensor, group: dict[str, Any], state: dict[str, Any]) -> Tensor:
        """(d, d) R in the type of ``added`` (d, d), which joins the sum; young sums are turned into R each step."""
        state["sum"] = state.get("sum", 0.0) * group["decay"] + added.to(torch.float64)
        state["weight"] = state.get("weight", 0.0) * group["decay"] + 1.0
        state["age"] = state.get("age", 0) + 1
        share = self._young if group["decay"] < 1.0 else self._forgets_nothing
        due = min(group["refresh_every"], 1 + state["steps"] // share)
        if "right" not in state or state["age"] >= due:
            state["right"] = self._made_right(state["sum"], state["weight"], damping_of(group, added))
            state["age"] = 0
        right: Tensor = state["right"]
        return right.to(added.dtype)


def damping_of(group: dict[str, Any], like: Tensor) -> float:
    """The group's damping, or d·ε where it is less: rounding of HR in the type of ``like`` (…, d) would be more."""
    return max(float(group["damping"]), like.shape[-1] * torch.finfo(like.dtype).eps)


def _measure_targets(batch: Batch, right: Tensor, state: dict[str, Any]) -> None:
    """Curvature that targets add, in the metric of R: measured when R is new, and meanwhile followed by a bound."""
    bound = float(batch.bound_of_targets(right))
    if state["age"] == 0 and bound > 0.0:
        state["targets_by_bound"] = float(batch.curvature_of_targets(right)) / bound
    state["targets"] = bound * state.get("targets_by_bound", 1.0)


@dataclass(frozen=True)
class Batch:
    """A gradient, the weights it met and the curvature of its loss.

    Attributes:
        dense: (m,) |λ|, the curvature of all outputs.
        targets: (nnz,) what targets add, or None where that is nothing.
    """

    weights: FactoredWeights
    gradient: OutputGradient
    dense: Tensor
    targets: Tensor | None

    @classmethod
    def of(cls, head: FactoredHead, gradient: OutputGradient) -> Batch:
        """From the head's loss, at the outputs that the forward pass met."""
        if gradient.example_weight is None:
            raise TypeError(
                "A preconditioned optimiser should know the loss. Found a backward pass from head.statistics(): call "
                "head(hidden, targets) with wh.losses.SphericalLoss(your function), or use wh.optim.SGD."
            )
        read = gradient.read
        targets = head.loss.target_curvature(*read.statistics(), read.targets, head.weights.num_classes)
        targets = targets * gradient.example_weight.abs()[read.plan.examples]
        return cls(
            head.weights, gradient, gradient.by_squared_norm.abs(), targets if bool((targets > 0).any()) else None
        )

    @property
    def hidden(self) -> Tensor:
        """(m, d)."""
        return self.gradient.read.hidden

    def gram_times(self, right: Tensor) -> Tensor:
        """(m, n) TTᵀX for X (m, n)."""
        return self.gradient.gram_times(right)

    def mean_curvature(self) -> Tensor:
        """(m,) mean over all classes."""
        if self.targets is None:
            return self.dense
        return self.dense + self.gradient.read.plan.row_sums(self.targets) / self.weights.num_classes

    def curvature_of_targets(self, right: Tensor) -> Tensor:
        """() λmax of what targets add, in the metric of R where HR = ``right``, for the class that has the most."""
        if self.targets is None:
            return right.new_zeros(())
        return target_curvature(self.gradient.read.plan, self.hidden, right, self.targets)

    def bound_of_targets(self, right: Tensor) -> Tensor:
        """() a bound of that, by traces: much cheaper, and far above it for classes with many examples."""
        if self.targets is None:
            return right.new_zeros(())
        plan = self.gradient.read.plan
        lengths = torch.linalg.vecdot(self.hidden, right)
        return plan.class_sums(self.targets * lengths[plan.examples]).max()
