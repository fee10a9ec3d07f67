"""What Newton, Shampoo and Muon share: a right preconditioner R, and steps that it can be trusted with."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from widehead.arithmetic import OutputGradient, StepRule, is_known
from widehead.errors import check_number
from widehead.factored import WeightRecord, dense_curvature, target_curvature
from widehead.optim.base import HeadOptimizer, Proposal
from widehead.optim.heads import FactoredHead

_TOLERANCE = 1.01  # a step counts as scaled back if it passed what is allowed by more than rounding

# The probability up to which one example may bring a class whose output was 0; steps are kept below. Chosen on
# WikiText-2 with the spherical softmax; 0.1 and 0.001 are worse.
_SURPRISE = 0.01


@dataclass(frozen=True)
class Trust:
    """How often steps of a head were scaled back, because the curvature they met was more than R had seen."""

    steps: int
    scaled_back: int


def zero() -> Tensor:
    """() float64, for a field of a memory, which follows its head to a device and is never read there by the host."""
    return torch.zeros((), dtype=torch.float64)


@dataclass
class Memory:
    """What is remembered of a head between steps; torch's state_dict holds the same names as a dictionary.

    The host counts steps and ages, by which it knows when R is due; all else is tensors. Steps of examples that are all
    zero are left out on a CPU. On a GPU the host cannot know them: they count, and change nothing else.

    Attributes:
        steps: made so far.
        age: steps since R was made; 0 if it is new.
        scaled_back: () how many of the steps were.
        targets: () curvature that targets add to the last batch, in the metric of R.
        targets_by_bound: () what part of its bound that was when R was new.
    """

    steps: int = 0
    age: int = 0
    scaled_back: Tensor = field(default_factory=zero)
    targets: Tensor = field(default_factory=zero)
    targets_by_bound: Tensor = field(default_factory=lambda: zero() + 1.0)


M = TypeVar("M", bound=Memory)


class Preconditioned(HeadOptimizer, Generic[M]):
    """W ← (1 − lr·λ) W − η·∇W·R with a symmetric positive definite R (d, d) of its own for each head.

    The step is exact: with R given, every one of the D × d weights is what the dense computation makes it. Before it is
    made, η is compared with the curvature of the batch itself in the metric of R (the dense part's, and that of the
    target with the most); if η passes what that allows, it is scaled back.

    Args:
        heads: an ExactHead or several.
        lr: η; None for the optimiser's own.
        damping: of R, relative to the mean eigenvalue of what R is made of; None for the optimiser's own.
        weight_decay: λ, decoupled.
        max_grad_norm: scale the gradient of each head down to this exact Frobenius norm if it is larger.
        capturable: keep ``lr`` as a 0-d tensor on the head's device, for captured steps: see `wh.cuda.GraphedStep`.

    Raises:
        NonFiniteError: in `step`: NaN or infinity in some head's step; no head was changed.
        TypeError: in `step`: the backward pass did not come from the head's own loss.
    """

    default_damping: ClassVar[float] = 0.1
    #: what is remembered of each head
    memory: type[M]

    def __init__(
        self,
        heads: FactoredHead | Iterable[FactoredHead],
        lr: float | None = None,
        *,
        damping: float | None = None,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = None,
        capturable: bool = False,
    ) -> None:
        damping = self.default_damping if damping is None else damping
        check_number("damping", damping)
        options = {
            "damping": damping,
            "weight_decay": weight_decay,
            "max_grad_norm": max_grad_norm,
            "capturable": capturable,
        }
        super().__init__(heads, lr, options)

    def _add_options(self, **options: float) -> None:
        """Put what a subclass is asked for besides into the parameter groups."""
        self.defaults.update(options)
        for group in self.param_groups:
            group.update(options)

    def trust(self) -> list[Trust]:
        """For each head, the steps made and how many of them were scaled back."""
        memories = [self._remembered(*pair) for pair in zip(self.heads, self.param_groups, strict=True)]
        return [Trust(memory.steps, int(memory.scaled_back)) for memory in memories]

    def monitors(self) -> dict[str, float]:
        """ "scaled_back": the part of all steps so far that were scaled back."""
        trust = self.trust()
        return {"scaled_back": sum(t.scaled_back for t in trust) / max(1, sum(t.steps for t in trust))}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch.

        Raises:
            ValueError: the state is another optimiser's.
        """
        for index, state in state_dict["state"].items():
            expected, found = (_kinds(s) for s in (vars(self._fresh(self.heads[index])), state))
            if found != expected:
                raise ValueError(f"The state of {type(self).__name__} should hold {expected}. Found {found}.")
        super().load_state_dict(state_dict)

    @abstractmethod
    def _precondition(self, batch: Batch, group: dict[str, Any], memory: M) -> tuple[Tensor, Tensor | None]:
        """(m, d) HR and, if it is known, TTᵀHR; changes ``memory``, a copy, in which ``age`` is 0 if R is new."""

    def _length(self, batch: Batch, group: dict[str, Any], memory: M) -> Any:
        """η, a number or a 0-d tensor, before it is compared with the curvature of the batch."""
        return group["lr"]

    def _fresh(self, head: FactoredHead) -> M:
        """What is remembered of a head before its first step."""
        return self.memory()

    def _remembered(self, head: FactoredHead, group: dict[str, Any]) -> M:
        """A copy of what is remembered of a head, on the head's device, to which it may have moved meanwhile."""
        device = head.weights.values.device
        state: dict[str, Any] = self.state.get(group["params"][0]) or vars(self._fresh(head))
        strangers = {k: v.to(device) for k, v in state.items() if isinstance(v, Tensor) and v.device != device}
        return self.memory(**{**state, **strangers})

    def _state_before(self, head: FactoredHead, group: dict[str, Any]) -> dict[str, Any]:
        return vars(self._remembered(head, group))

    def _propose(self, head: FactoredHead, gradient: OutputGradient, group: dict[str, Any]) -> Proposal:
        lr, decay = group["lr"], group["weight_decay"]
        memory, batch = self._remembered(head, group), Batch.of(head, gradient)
        if batch.is_blank:  # there is no gradient, and nothing to learn
            return Proposal(StepRule.decoupled(0.0, lr, decay))
        hr, gram_hr = self._precondition(batch, group, memory)
        _measure_targets(batch, hr, memory)
        length = self._length(batch, group, memory)
        passed = length * (dense_curvature(batch.hidden, hr, batch.dense) + memory.targets)
        # If it is not finite, no length can be trusted: a GPU leaves the step out; here it meets the cause and says so.
        passed = torch.nan_to_num(passed, nan=torch.nan, posinf=torch.nan)
        memory.scaled_back = memory.scaled_back + (passed > _TOLERANCE)
        is_unknown = is_known(passed) and bool(passed.isnan())
        allowed = lr if is_unknown else passed.reciprocal().clamp(max=1.0) * length
        memory.steps += 1
        return Proposal(StepRule.decoupled(allowed, lr, decay), hr, gram_hr, vars(memory), batch.says)


def _kinds(state: Mapping[str, Any]) -> dict[str, str]:
    """The names of a state, with the shapes of its tensors."""
    return {k: str(tuple(v.shape)) if isinstance(v, Tensor) else type(v).__name__ for k, v in sorted(state.items())}


@dataclass
class MemoryOfSum(Memory):
    """Of an optimiser whose R is made of a sum.

    Attributes:
        sum: (d, d) float64, what R is made of.
        preconditioner: (d, d) float64 R; 0 before the first step.
    """

    sum: Tensor = field(default_factory=zero)
    preconditioner: Tensor = field(default_factory=zero)


S = TypeVar("S", bound=MemoryOfSum)


class Remembering(Preconditioned[S]):
    """R made of a (d, d) matrix that is summed over steps, which fade, and turned into R every few steps."""

    default_refresh: ClassVar[int]
    # One in so many steps may be missing in R: while it is young, and if nothing fades.
    _young, _forgets_nothing = 10, 50

    def __init__(
        self,
        heads: FactoredHead | Iterable[FactoredHead],
        lr: float | None = None,
        *,
        decay: float = 0.95,
        refresh_every: int | None = None,
        damping: float | None = None,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = None,
        capturable: bool = False,
    ) -> None:
        check_number("decay", decay)
        if decay > 1.0:
            raise ValueError(f"Parameter `decay` should be at most 1. Found {decay}.")
        if refresh_every is None:  # if nothing fades, a step is ever less of the sum, and R lasts ever longer
            refresh_every = self.default_refresh if decay < 1.0 else sys.maxsize
        check_number("refresh_every", refresh_every, least=1)
        super().__init__(
            heads, lr, damping=damping, weight_decay=weight_decay, max_grad_norm=max_grad_norm, capturable=capturable
        )
        self._add_options(decay=decay, refresh_every=refresh_every)

    @abstractmethod
    def _made_preconditioner(self, memory: S, damping: float) -> Tensor:
        """(d, d) R, of the sum."""

    def _fresh(self, head: FactoredHead) -> S:
        nothing = torch.zeros(head.weights.width, head.weights.width, dtype=torch.float64)
        return self.memory(sum=nothing, preconditioner=nothing.clone())

    def _first_diagonal(self, first: Tensor, group: dict[str, Any]) -> Tensor | None:
        """() what is on the diagonal of the sum before the share of the first step, (d, d) float64, joins it."""
        return None

    def _remember(self, added: Tensor, group: dict[str, Any], memory: S) -> Tensor:
        """(d, d) R in the type of ``added`` (d, d), which joins the sum; young sums are turned into R each step."""
        precise, before = added.to(torch.float64), memory.sum
        memory.sum = torch.add(precise, before, alpha=group["decay"])
        if (first := self._first_diagonal(precise, group)) is not None:
            is_new = torch.trace(before) < _least(added)
            memory.sum.diagonal().add_(torch.where(is_new, first * group["decay"], 0.0))
        due = self._is_due(memory, group)
        memory.age += 1
        if due:
            self._renew(torch.trace(memory.sum) < _least(added), memory, damping_of(group, added))
        return memory.preconditioner.to(added.dtype)

    def _renew(self, is_small: Tensor, memory: S, damping: float) -> None:
        """Make R anew: 0 if the sum is too small for the working type to hold its inverse."""
        if is_known(is_small) and is_small:  # soon it may not be
            memory.preconditioner = torch.zeros_like(memory.sum)
            return
        memory.preconditioner = torch.where(is_small, 0.0, self._made_preconditioner(memory, damping))
        memory.age = 0

    def _is_due(self, memory: S, group: dict[str, Any]) -> bool:
        """Whether the next step makes R anew."""
        share = self._young if group["decay"] < 1.0 else self._forgets_nothing
        return memory.age + 1 >= min(group["refresh_every"], 1 + memory.steps // share)

    def schedule(self) -> tuple[Any, ...]:
        pairs = zip(self.heads, self.param_groups, strict=True)
        return tuple(self._is_due(self._remembered(*pair), pair[1]) for pair in pairs)

    def replayed(self, schedule: tuple[Any, ...]) -> None:
        for group, due in zip(self.param_groups, schedule, strict=True):
            state = self.state[group["params"][0]]
            state["steps"] += 1
            state["age"] = 0 if due else state["age"] + 1


def _least(like: Tensor) -> float:
    """The trace of a matrix (d, d) below which the type of ``like`` (d, d) may not hold its inverse."""
    type_ = torch.finfo(like.dtype)
    return len(like) * type_.tiny / type_.eps


def damping_of(group: dict[str, Any], like: Tensor) -> float:
    """The group's damping, or d·ε if it is less: rounding of HR in the type of ``like`` (…, d) would be more."""
    return max(float(group["damping"]), like.shape[-1] * torch.finfo(like.dtype).eps)


def _measure_targets(batch: Batch, hr: Tensor, memory: Memory) -> None:
    """Curvature that targets add, in the metric of R, for the class that has the most.

    It is measured when R is new, and meanwhile followed by a bound: by traces, which are much cheaper, and far above it
    for classes with many examples.
    """
    if not batch.curves_at_targets:
        return
    if batch.targets is None:
        memory.targets = torch.zeros_like(memory.targets)
        return
    plan = batch.gradient.read.plan
    lengths = torch.linalg.vecdot(batch.hidden, hr)
    bound = plan.class_sums(batch.targets * lengths[plan.examples]).max().to(torch.float64)
    if memory.age == 0:
        found = target_curvature(plan, batch.hidden, hr, batch.targets) / bound
        memory.targets_by_bound = torch.where(bound > 0.0, found, memory.targets_by_bound)
    memory.targets = bound * memory.targets_by_bound


@dataclass(frozen=True)
class Batch:
    """A gradient, the weights it met and the curvature of its loss.

    Attributes:
        dense: (m,) |λ|, the curvature of all outputs.
        curves_at_targets: whether targets ever add curvature.
        targets: (nnz,) what they add, or None if they add none.
    """

    weights: WeightRecord
    gradient: OutputGradient
    dense: Tensor
    curves_at_targets: bool
    targets: Tensor | None

    @classmethod
    def of(cls, head: FactoredHead, gradient: OutputGradient) -> Batch:
        """From the head's loss, at the outputs that the forward pass met."""
        if gradient.example_weight is None:
            raise TypeError(
                "A preconditioned optimiser should know the loss. Found a backward pass from head.statistics(): call "
                "head(hidden, targets) with wh.losses.SphericalLoss(your function), or use wh.optim.SGD."
            )
        read, dense, curves = gradient.read, gradient.by_squared_norm.abs(), head.loss.curves_at_targets
        if not (curves and read.plan.examples.numel()):
            return cls(head.weights, gradient, dense, curves, None)
        targets = head.loss.target_curvature(*read.statistics(), read.targets, head.weights.num_classes, _SURPRISE)
        return cls(head.weights, gradient, dense, curves, targets * gradient.example_weight.abs()[read.plan.examples])

    @property
    def hidden(self) -> Tensor:
        """(m, d)."""
        return self.gradient.read.hidden

    @cached_property
    def says(self) -> Tensor:
        """() whether the hidden layer is not all zero."""
        if self.gradient.bound:  # no pass over it is needed
            return torch.ones((), dtype=torch.bool)
        return self.hidden.any()

    @property
    def is_blank(self) -> bool:
        """Whether the hidden layer is known to be all zero."""
        return not self.hidden.numel() or (is_known(self.says) and not self.says)

    def gram_times(self, hr: Tensor) -> Tensor:
        """(m, n) TTᵀX for X (m, n)."""
        return self.gradient.gram_times(hr)

    def mean_curvature(self) -> Tensor:
        """(m,) mean over all classes."""
        if self.targets is None:
            return self.dense
        return self.dense + self.gradient.read.plan.row_sums(self.targets) / self.weights.num_classes
