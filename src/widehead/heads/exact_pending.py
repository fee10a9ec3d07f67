"""The step that backward passes of an exact head leave, and what optimisers, and who clips gradients, do to it."""

from __future__ import annotations

import torch
from torch import Tensor

from widehead.arithmetic import OutputGradient
from widehead.heads.exact_state import ExactState
from widehead.heads.pending import Pending
from widehead.precision import in_full_precision


class ExactPending(ExactState):
    """What `ExactHead` has of that."""

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__(in_features, num_classes)
        self._pending = Pending()

    def _await_step(self) -> None:
        """Said before a pass that may leave a step."""
        if self.learns:
            self._pending.before_forward(self)
            self._watch_handle()

    @property
    def learns(self) -> bool:
        """Whether a backward pass leaves a step: in train mode, unless `requires_grad_(False)` froze the head."""
        return self.training and bool(self._parameters["handle"].requires_grad)  # type: ignore[union-attr]

    def pending_gradient(self) -> OutputGradient | None:
        """What the backward passes since the last step left for the optimiser, as one gradient; None if nothing."""
        return self._pending.gradient(self.weights)

    def drop_pending(self) -> None:
        """Forget the pending step, as `zero_grad` does."""
        self._pending.drop()

    def scale_pending(self, factor: float | Tensor) -> None:
        """Multiply the pending gradient, as clipping by a norm over encoder and head together needs."""
        self._pending.scale(factor)

    def register_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Say that there is somebody to make the pending steps; optimisers of `widehead.optim` do it themselves."""
        self._pending.register(optimizer)

    def lend_handle(self, owner: object) -> None:
        """As long as ``owner`` lives, give the handle `lent_norm` as its gradient; `Together` asks for it."""
        self._pending.lend_to(owner)

    @property
    def lends_handle(self) -> bool:
        """Whether some owner asked for that."""
        return self._pending.is_lent

    def set_gradient(self, value: Tensor | None) -> None:
        """What programs do that set the gradient of a parameter: None drops the pending step."""
        if value is None:
            self.drop_pending()
        elif not self._pending.has_lent(value):  # as p.grad *= 0.5 sets it
            raise TypeError(
                "The gradient of an exact head should come from backward(). Found another; None drops it, and mul_ "
                "scales it in place."
            )

    @in_full_precision
    def lent_norm(self) -> Tensor | None:
        """(2,) of the norm ‖∇W‖ of the pending step, None if none pends; what others multiply it by, the step is."""
        with self.at_work():
            return self._pending.lent_norm(self.weights)

    @in_full_precision
    def grad_norm(self) -> Tensor:
        """() exact ‖∇W‖_F of the pending step in O(d²) an example, although ∇W is never formed; 0 if none pends."""
        with self.at_work():
            gradient = self.pending_gradient()
            if gradient is None:
                return torch.zeros((), dtype=torch.float64, device=self.device)
            return gradient.norm()

    def record(self, gradient: OutputGradient) -> None:
        """Leave a gradient for the optimiser, as a backward pass does."""
        self._pending.record(gradient)
