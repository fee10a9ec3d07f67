"""Stochastic gradient descent on the weights of exact heads, exact to the last class."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from widehead.arithmetic import OutputGradient, StepRule, is_known
from widehead.errors import UnstableStepWarning, check_number, warn_user
from widehead.losses import Loss
from widehead.optim.base import HeadOptimizer, Proposal
from widehead.optim.heads import FactoredHead

# The part of the limit of stability that default step sizes take, because hidden layers grow while they train. Chosen
# on gowalla, Moby, WikiText-2 and citeulike-t; 0.05 to 0.5 do about as well.
_CAUTION = 0.15


class SGD(HeadOptimizer):
    """What torch.optim.SGD does with the same arguments on dense weights, in O(d²) an example.

    Momentum is exact too: every one of the D × d momenta is kept, as a second half of each row of V, which doubles the
    head's memory. It is part of the head's state_dict, not of the optimiser's.

    Args:
        heads: an ExactHead or several.
        lr: step size; None for one that is safe for each loss whatever the targets, if hidden units
            are at most about 1 in size (mean ‖h‖² ≤ d).
        momentum: μ of heavy-ball momentum, in [0, 1).
        nesterov: Nesterov's form of it.
        weight_decay: coupled decay: λW is added to the gradient, before momentum.
        decoupled: scale W by 1 − lr·λ instead, as AdamW does; without momentum both are the same.
        max_grad_norm: scale the gradient of each head down to this exact Frobenius norm if it is larger.
        capturable: keep ``lr`` as a 0-d tensor on the head's device, for captured steps: see `wh.cuda.GraphedStep`.

    Raises:
        NonFiniteError: in `step`: NaN or infinity in some head's step; no head was changed.
        RuntimeError: in `step`: a head no longer keeps momentum as asked; see `HeadOptimizer.step`.

    Warns:
        UnstableStepWarning: once a head, when the step's curvature passes what is stable; names the largest stable lr.
            On a GPU one step in a hundred is looked at, as the host waits for it.
    """

    def __init__(
        self,
        heads: FactoredHead | Iterable[FactoredHead],
        lr: float | None = None,
        momentum: float = 0.0,
        *,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        max_grad_norm: float | None = None,
        capturable: bool = False,
    ) -> None:
        check_number("momentum", momentum, below=1.0)
        if nesterov and momentum == 0.0:
            raise ValueError("Parameter `nesterov` should come with a momentum above 0. Found momentum = 0.")
        options = {
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
            "decoupled": decoupled,
            "max_grad_norm": max_grad_norm,
            "capturable": capturable,
        }
        super().__init__(heads, lr, options)
        self._warned: set[FactoredHead] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_warned": self._warned}

    @staticmethod
    def default_lr(head: FactoredHead, options: Mapping[str, Any]) -> float:
        """A cautious one, divided by how much momentum lengthens a step."""
        return cautious_lr(head.loss, head.in_features, head.in_features) * (1.0 - float(options["momentum"]))

    def _keeps_momentum(self, group: dict[str, Any]) -> bool:
        # Schedulers may bring momentum down to 0 and up again, and a state may be loaded meanwhile.
        return bool(self.defaults["momentum"] > 0.0 or group["momentum"] > 0.0)

    def _basis(self, group: dict[str, Any]) -> float:
        lr, momentum = group["lr"], group["momentum"]
        return StepRule.heavy_ball(lr, momentum, nesterov=group["nesterov"]).known().basis() if is_known(lr) else 0.0

    def _propose(self, head: FactoredHead, gradient: OutputGradient, group: dict[str, Any]) -> Proposal:
        lr, decay = group["lr"], group["weight_decay"]
        if head.weights.order == 1:
            if isinstance(group["momentum"], Tensor) or group["momentum"] > 0.0:
                raise ValueError(
                    "Parameter `momentum` should be above 0 from the beginning if it is to change later. "
                    f"Found {group['momentum']} in an optimiser that was made without momentum."
                )
            return Proposal(StepRule.sgd(lr, decay))
        rule = StepRule.heavy_ball(
            lr, group["momentum"], nesterov=group["nesterov"], weight_decay=decay, decoupled=group["decoupled"]
        )
        return Proposal(rule)

    def _watch(self, head: FactoredHead, gradient: OutputGradient, group: dict[str, Any]) -> None:
        """Steps are stable below 2/λmax, heavy-ball ones below (2 + 2μ)/λmax, Nesterov's below that/(1 + 2μ)."""
        if head in self._warned:
            return
        lr, momentum, curvature = group["lr"], group["momentum"], head.monitor
        limit = 2.0 * (1.0 + momentum) / (1.0 + 2.0 * momentum if group["nesterov"] else 1.0)
        if lr * curvature.bound(gradient) <= limit or lr * curvature.largest(gradient) <= limit:
            return
        self._warned.add(head)
        warn_user(
            f"lr = {lr:.4g} passes what the loss's curvature allows: steps like this one make it grow. "
            f"The largest stable lr for this batch is {limit / curvature.largest(gradient, precise=True):.4g}; "
            "use about half of it.",
            UnstableStepWarning,
        )


def cautious_lr(loss: Loss, dense: float, targets: float) -> float:
    """The default lr without momentum, a part of `Loss.largest_step` for the same curvatures."""
    return _CAUTION * loss.largest_step(dense, targets)
