"""What optimisers need of a head."""

from collections.abc import Iterable
from typing import Protocol

from torch import Tensor

from widehead.arithmetic import OutputGradient
from widehead.factored import FactoredWeights, LearningRateMonitor
from widehead.losses import Loss


class FactoredHead(Protocol):
    """A head's factored weights, and what the backward passes left for its optimiser."""

    weights: FactoredWeights
    monitor: LearningRateMonitor
    loss: Loss
    in_features: int

    def keep_momentum(self, keep: bool) -> None: ...
    def pending_gradient(self) -> OutputGradient | None: ...
    def drop_pending(self) -> None: ...
    def scale_pending(self, factor: float | Tensor) -> None: ...
    def grad_norm(self) -> Tensor: ...


def as_heads(heads: FactoredHead | Iterable[FactoredHead]) -> list[FactoredHead]:
    """One head or several as a list; TypeError if something is no exact head, ValueError if one comes twice."""
    listed: list[FactoredHead] = list(heads) if isinstance(heads, Iterable) else [heads]
    for head in listed:
        if not isinstance(getattr(head, "weights", None), FactoredWeights):
            raise TypeError(f"`heads` should be ExactHead modules. Found {type(head).__name__}.")
    if len({id(head) for head in listed}) != len(listed):
        raise ValueError("`heads` should name each head once.")
    return listed
