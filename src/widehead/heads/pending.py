"""What backward passes leave for the optimisers of an exact head, and whether there are any."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

from widehead import factored
from widehead.arithmetic import OutputGradient
from widehead.errors import NoOptimizerWarning, StaleGraphError, warn_user
from widehead.factored import WeightRecord
from widehead.heads.graph import check_unwritten, writes_into
from widehead.heads.processes import in_several, refuse_data_parallel

_MANY = 1000  # more than anybody would add up
_PARTS = 0.28, 0.96  # of a norm of 1: if both are clipped by value, their ratio is another


class LentNorm(Tensor):
    """(2,) in the place of a gradient that nobody formed: of the same norm, and not of the same other norms."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if name.endswith("norm"):
            _check_order(args[1] if len(args) > 1 else kwargs.get("ord", kwargs.get("p", 2)))
        elif name.endswith("_") and isinstance(args[0], Tensor) and args[0].numel() == 0:
            raise RuntimeError(
                "The handle of an exact head should be in no other optimiser beside a `Together`. Found one that makes "
                "a step of it: give it [p for p in model.parameters() if p is not head.handle]."
            )
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)


def _check_order(order: Any) -> None:
    if order not in (2, "fro", None):
        raise ValueError(
            f"The gradient of an exact head should be clipped by its norm of order 2: it is never formed. Found order "
            f"{order}: clip the encoder's parameters by that, and the head by max_grad_norm of its optimiser."
        )


@dataclass(frozen=True)
class _Part:
    """The gradient of a pass, and how often its hidden layer had been written into then."""

    gradient: OutputGradient
    writes: int | None

    @classmethod
    def of(cls, gradient: OutputGradient) -> _Part:
        return cls(gradient, writes_into(gradient.read.hidden))

    def scaled(self, factor: float | Tensor) -> _Part:
        return replace(self, gradient=self.gradient.scaled(factor))

    def check(self) -> None:
        check_unwritten(self.gradient.read.hidden, self.writes)


class Pending:
    """Gradients at the same W, in a list until somebody reads them. Copies and pickles have no optimiser yet."""

    def __init__(self) -> None:
        self._parts: list[_Part] = []
        self._optimizers: WeakSet[Any] = WeakSet()
        self._owners: WeakSet[Any] = WeakSet()
        self._is_ignored = False
        self._lent: tuple[Tensor, Tensor] | None = None
        self._is_alone = False

    def __getstate__(self) -> list[OutputGradient]:
        self._settle()
        for part in self._parts:
            part.check()
        return [part.gradient for part in self._parts]

    def __setstate__(self, parts: list[OutputGradient]) -> None:
        self.__init__()  # type: ignore[misc]
        self._parts = [_Part.of(part) for part in parts]

    def register(self, optimizer: Any) -> None:
        """From now on there is an optimiser, as long as others hold it."""
        self._optimizers.add(optimizer)
        self._is_ignored = False

    def lend_to(self, owner: object) -> None:
        """As long as others hold ``owner``, the handle has a gradient."""
        self._owners.add(owner)

    @property
    def is_lent(self) -> bool:
        """Whether there is an owner."""
        return len(self._owners) > 0

    def before_forward(self, head: nn.Module) -> None:
        """Warn, once, if what earlier passes left is for nobody, of which nothing is kept from then on.

        RuntimeError if data-parallel processes would make steps of their own.
        """
        if not self._is_alone and in_several():
            refuse_data_parallel(head)
            self._is_alone = True
        if self._parts and not self._optimizers:
            self.drop()
            self._is_ignored = True
            warn_user(
                "An exact head in training should have an optimiser of widehead: W is no parameter of torch's. Found "
                "backward passes without one: W stays as it is, and their gradients are no longer kept. Make one, such "
                "as wh.optim.Newton(head), and call its step() beside the encoder's; or head.requires_grad_(False).",
                NoOptimizerWarning,
            )
        if len(self._parts) == _MANY:
            warn_user(
                "An exact head's optimiser should make a step from time to time. Found "
                f"{_MANY:,} backward passes since the last, all of them kept: call its step() beside the encoder's.",
                NoOptimizerWarning,
            )

    def record(self, gradient: OutputGradient) -> None:
        """Add the gradient of one backward pass."""
        if not self._is_ignored:
            self._settle()
            self._parts.append(_Part.of(gradient))

    def drop(self) -> None:
        """Forget them."""
        self._parts, self._lent = [], None

    def scale(self, factor: float | Tensor) -> None:
        """Multiply them."""
        self._settle()
        self._parts = [part.scaled(factor) for part in self._parts]

    def gradient(self, weights: WeightRecord) -> OutputGradient | None:
        """All of them as one, or None; StaleGraphError if W, or the hidden layer of one, changed since."""
        self._settle()
        if not self._parts:
            return None
        if self._parts[0].gradient.read.revision != weights.revision:
            raise StaleGraphError(
                "The weights changed after the backward pass. Call zero_grad(), then forward and backward again."
            )
        for part in self._parts:
            part.check()
        found = factored.accumulate(weights, [part.gradient for part in self._parts])
        self._parts = [_Part.of(found)]
        return found

    def lent_norm(self, weights: WeightRecord) -> Tensor | None:
        """(2,) of norm ‖∇W‖ or None: whatever others multiply it by, ∇W is multiplied by when it is read.

        torch's clipping and GradScaler read and change gradients through parameters.
        """
        if self._lent is None:
            gradient = self.gradient(weights)
            if gradient is None:
                return None
            norm = gradient.norm()
            lent = torch.stack([norm * part for part in _PARTS])
            self._lent = lent, lent.clone().as_subclass(LentNorm)
        return self._lent[1]

    def has_lent(self, value: Tensor) -> bool:
        """Whether this is what `lent_norm` gave."""
        return self._lent is not None and self._lent[1] is value

    def _settle(self) -> None:
        """Do to ∇W what was done to its norm."""
        if self._lent is None:
            return
        before, after = self._lent
        if not torch.equal(before, after):
            factors = torch.where(before == 0.0, 1.0, after / before)
            if bool((factors[0] - factors[1]).abs() > 1e-6 * factors[1].abs()):  # and not if they are NaN
                raise ValueError(
                    "The gradient of an exact head should be multiplied by a factor, as clipping by a norm does: it is "
                    "never formed. Found that its numbers were clipped by value, or that something was added to them."
                )
            # What was set to zero is forgotten, as by zero_grad(set_to_none=False).
            self._parts = [part.scaled(factors[1]) for part in self._parts] if bool(after.any()) else []
        self._lent = None
