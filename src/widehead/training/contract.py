"""What a trainer is given and what it gives: batches, how to judge, what hears of it, how a run ended."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from widehead.models import WideNetwork
from widehead.targets import Inputs, SparseTargets

OnLog: TypeAlias = Callable[[WideNetwork, dict[str, Any]], object]
"""What is told each record of the log."""


class TrainingBatches(Protocol):
    """Batches of examples whose order in epoch n is a function of n."""

    def __len__(self) -> int:
        """Batches in an epoch."""

    def epoch(self, n: int, start: int = 0) -> Iterator[tuple[Inputs, SparseTargets]]:
        """(inputs, targets) of epoch n from batch ``start`` on."""


@dataclass(frozen=True)
class Evaluator:
    """How a run is judged while it trains.

    Args:
        metrics: no arguments, to a number for each metric's name. The network is in eval mode meanwhile; it
            should draw nothing from torch's generators and change no weights.
        objective: name of the metric that decides which checkpoint is best.
        lower_is_better: whether small numbers of it are good, as with perplexity.
    """

    metrics: Callable[[], Mapping[str, float]]
    objective: str
    lower_is_better: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a run ended: ``status`` "finished" or "interrupted", where, and its last metrics (empty without a test).

    ``seconds`` are of training, ``preparation`` those of them that weights made from the data took before any step.
    """

    status: str
    step: int
    epoch: float
    seconds: float
    preparation: float
    metrics: Mapping[str, float]
