"""What all optimisers of exact heads share: groups, pending steps, clipping, steps that happen whole or not at all."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from widehead.arithmetic import OutputGradient, StepRule, is_known
from widehead.errors import check_number
from widehead.optim.clipping import check_limit, clip_factor
from widehead.optim.heads import FactoredHead, StandIn, as_heads
from widehead.optim.light import LightOptimizer
from widehead.optim.scaling import ScaledLosses
from widehead.precision import in_full_precision

_LOOKS = 100  # on a GPU, steps from one look of the host to the next


@dataclass(frozen=True)
class Proposal:
    """What an optimiser wants to do with one gradient.

    Attributes:
        rule: what becomes of W and the gradient.
        hr: (m, d) HR, or None for R = I.
        gram_hr: (m, d) TTᵀHR, if it is known.
        state: what the optimiser will remember of this step, once it has been made.
        says: () whether there is something to remember; None if the host knows that there is.
    """

    rule: StepRule
    hr: Tensor | None = None
    gram_hr: Tensor | None = None
    state: dict[str, Any] = field(default_factory=dict)
    says: Tensor | None = None


class Planned(NamedTuple):
    """A step of a head that nothing was written of yet."""

    optimizer: HeadOptimizer
    head: FactoredHead
    group: dict[str, Any]
    change: Any
    proposal: Proposal
    may_cancel: bool


@torch.no_grad()
@in_full_precision
def make_steps(optimizers: Sequence[HeadOptimizer]) -> None:
    """Make the pending steps of several optimisers: plan all of them, then write all of them."""
    with ExitStack() as stack:
        heads = [head for optimizer in optimizers for head in optimizer.heads]
        for head in sorted(heads, key=id):  # so that two optimisers never wait for each other
            stack.enter_context(head.at_work())
        steps = [step for optimizer in optimizers for step in optimizer._planned()]
        allowed = tuple(step.change.allowed for step in steps if step.change.allowed is not None)
        for step in steps:
            step.optimizer._write(step, allowed)


class HeadOptimizer(LightOptimizer):
    """Base of the optimisers of exact heads.

    Each head is a parameter group of its own, in the order given, so torch's lr schedulers work. `step` uses up the
    pending gradients; several backward passes before it add up. A head without a backward pass is left alone.

    Args:
        heads: an ExactHead or several.
        lr: step size of each head; None for the default of `default_lr`.
        options: what else stands in each parameter group, "weight_decay", "max_grad_norm" and "capturable" included.
            With the last, ``lr`` becomes a 0-d tensor on the head's device, which schedulers of torch write into and
            each replay of a captured step reads.
    """

    def __init__(
        self, heads: FactoredHead | Iterable[FactoredHead], lr: float | None, options: Mapping[str, Any]
    ) -> None:
        stand_ins = [StandIn.of(head) for head in as_heads(heads)]
        check_number("lr", 0.0 if lr is None else lr)
        check_number("weight_decay", options["weight_decay"])
        check_limit(options["max_grad_norm"])
        groups = [
            {"params": [stand_in], "lr": self.default_lr(stand_in.head, options) if lr is None else lr}
            for stand_in in stand_ins
        ]
        if options.get("capturable"):
            for group, stand_in in zip(groups, stand_ins, strict=True):
                group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float64).to(stand_in.device)
        super().__init__(groups, {"lr": lr, **options})
        self._ask_for_momentum()
        self._register()

    #: GradScaler leaves gradients scaled, and says in `grad_scale` and `found_inf` what it knows
    _step_supports_amp_scaling = True

    @property
    def heads(self) -> list[FactoredHead]:
        """Those whose steps it makes."""
        return [group["params"][0].head for group in self.param_groups]

    def schedule(self) -> tuple[Any, ...]:
        """What the host decides of the next step, besides options: steps that agree in it are the same operations."""
        return ()

    def replayed(self, schedule: tuple[Any, ...]) -> None:
        """A captured step with this schedule was made once more."""

    def _register(self) -> None:
        self._scaled_losses = ScaledLosses()
        for head in self.heads:
            head.register_optimizer(self)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_momentum": self._momentum}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._register()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """For torch alone, as the optimiser is made: TypeError later."""
        if "_momentum" in vars(self):
            name = type(self).__name__
            raise TypeError(
                f"{name} should be given all its heads as it is made: {name}([head, other]). Found a parameter group "
                "later; make a second optimiser for another head, and one of torch's for parameters."
            )
        super().add_param_group(param_group)

    @staticmethod
    @abstractmethod
    def default_lr(head: FactoredHead, options: Mapping[str, Any]) -> float:
        """The step size for a head if none is given."""

    @abstractmethod
    def _propose(self, head: FactoredHead, gradient: OutputGradient, group: dict[str, Any]) -> Proposal:
        """What to do with ``gradient``; must leave the optimiser's state as it is."""

    def _state_before(self, head: FactoredHead, group: dict[str, Any]) -> dict[str, Any]:
        """What was remembered of a head before this step, on its device."""
        return self.state.get(group["params"][0], {})

    def _watch(self, head: FactoredHead, gradient: OutputGradient, group: dict[str, Any]) -> None:
        """Warn if there is reason to; called if the host may read numbers for it (`_may_look`)."""

    def _keeps_momentum(self, group: dict[str, Any]) -> bool:
        """Whether a head needs a momentum beside its weights."""
        return False

    def _basis(self, group: dict[str, Any]) -> float:
        """`StepRule.basis` of the first step, as far as it can be foretold."""
        return 0.0

    def _ask_for_momentum(self) -> None:
        """Ask each head, once, to keep a momentum or none."""
        self._momentum = [self._keeps_momentum(group) for group in self.param_groups]
        for head, group, keep in zip(self.heads, self.param_groups, self._momentum, strict=True):
            head.keep_momentum(keep, self._basis(group) if keep else 0.0)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch. A head that keeps momentum brings it in its own state_dict, which is best loaded before this."""
        super().load_state_dict(state_dict)
        self._ask_for_momentum()

    def monitors(self) -> dict[str, float]:
        """Figures of the training so far, by name, for a log."""
        return {}

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the pending steps."""
        for head in self.heads:
            head.drop_pending()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Make the exact step of every head that has one pending: all of them or, if one fails, none.

        In `torch.amp.GradScaler.step` it is the step of the unscaled loss; if that found NaN or infinity, none is made
        and what is pending is dropped.

        Raises:
            NonFiniteError: NaN or infinity in some head's step; no head was changed.
            RuntimeError: a head no longer keeps momentum as this optimiser asked it to; or a GradScaler scaled the
                loss, and did not unscale the gradient.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if is_known(found := getattr(self, "found_inf", 0.0)) and bool(found):
            self.zero_grad()
            return loss
        make_steps([self])
        return loss

    def _planned(self) -> Iterator[Planned]:
        """The steps of all heads that have one pending."""
        for head, group, momentum in zip(self.heads, self.param_groups, self._momentum, strict=True):
            gradient = head.pending_gradient()
            if gradient is None:
                continue
            _check_momentum(head, momentum)
            change, proposal = self._plan(head, self._unscaled(head, gradient), group)
            yield Planned(self, head, group, change, proposal, gradient.may_cancel)

    def _write(self, planned: Planned, allowed: tuple[Tensor, ...]) -> None:
        head, group, proposal = planned.head, planned.group, planned.proposal
        written = head.weights.apply(planned.change, allowed)
        if planned.may_cancel and not _is_captured():
            head.weights.recount()  # costs no more than so many targets
        head.drop_pending()
        if new := proposal.state:
            if written is not None:
                kept = written if proposal.says is None else written & proposal.says
                new = _chosen(kept, new, self._state_before(head, group))
            self.state[group["params"][0]] = new

    def _unscaled(self, head: FactoredHead, gradient: OutputGradient) -> OutputGradient:
        """As it is without GradScaler, which tells its scale in its own `step`, unless it has unscaled already."""
        if not hasattr(self, "found_inf") and _may_look(head):
            self._scaled_losses.refuse(gradient)
        scale = getattr(self, "grad_scale", None)
        return gradient if scale is None else gradient.scaled(1.0 / torch.as_tensor(scale, dtype=torch.float64))

    def _plan(self, head: FactoredHead, gradient: OutputGradient, group: dict[str, Any]) -> tuple[Any, Proposal]:
        """The change of a head's weights, and the proposal that it is made of."""
        if group["max_grad_norm"] is not None:
            gradient = gradient.scaled(clip_factor(gradient.norm(), group["max_grad_norm"]))
        proposal, found = self._propose(head, gradient, group), getattr(self, "found_inf", None)
        skip = None if is_known(found) else found
        change = head.weights.plan(gradient, proposal.rule, proposal.hr, proposal.gram_hr, skip)
        if _may_look(head):
            self._watch(head, gradient, group)
        return change, proposal


def _may_look(head: FactoredHead) -> bool:
    """Whether the host may read numbers of a step in order to warn or to refuse it.

    On a GPU it would wait for them: there only in the first step and in each hundredth after it, and never while CUDA
    captures a graph.
    """
    if head.weights.values.device.type == "cpu":
        return True
    return head.weights.steps % _LOOKS == 0 and not _is_captured()


def _is_captured() -> bool:
    """Whether what runs is captured for a graph, and not made: `HeadOptimizer.replayed` counts it when it is."""
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def _chosen(kept: Tensor, new: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """What to remember of a step of which the device alone knows whether it is ``kept`` ().

    Tensors of ``before`` are written into, as what CUDA captured reads and writes the same memory each time.
    """
    for name, value in new.items():
        old = before.get(name)
        if isinstance(value, Tensor) and isinstance(old, Tensor):
            if value is not old:
                torch.where(kept, value, old, out=old)
            new[name] = old
        elif _is_captured():
            new[name] = old
    return new


def _check_momentum(head: FactoredHead, asked: bool) -> None:
    if (head.weights.order == 2) != asked:
        should, found = ("", "none") if asked else ("no ", "one")
        raise RuntimeError(
            f"The head should keep {should}momentum, as this optimiser asked. Found {found}: another optimiser was "
            "made for the head since, or a state loaded into it. Make this optimiser anew, or load its state after "
            "the head's."
        )
