"""Results of a comparison: which contender is best, and by how much."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from widehead.jobs.judging import LOWER_IS_BETTER


@dataclass(frozen=True)
class Result:
    """How one contender did.

    Attributes:
        name: of the contender, and of its run folder. head: its head.
        status: "finished", "interrupted" or, if it failed, why.
        metrics: of the last evaluation, by name.
        seconds: of training. preparation: those of them before the first step. steps, epochs: made in the others.
        peak_bytes: most memory that its process held (on CUDA: that torch allocated), if the system says.
        curve: evaluations in their order: "seconds", "step" and the metrics.
    """

    name: str
    head: str
    status: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    steps: int = 0
    epochs: float = 0.0
    peak_bytes: int | None = None
    curve: Sequence[Mapping[str, float]] = ()
    preparation: float = 0.0

    @property
    def milliseconds_a_step(self) -> float | None:
        return 1000.0 * (self.seconds - self.preparation) / self.steps if self.steps else None


def objective(results: Sequence[Result]) -> str | None:
    """The metric that decides: the first one of the first contender that all have; None if they share none."""
    judged = [result for result in results if result.metrics]
    shared = [name for name in judged[0].metrics if all(name in r.metrics for r in judged)] if judged else []
    return shared[0] if shared else None


def ranked(results: Sequence[Result]) -> list[Result]:
    """Best first by the objective; those without one last."""
    name = objective(results)
    sign = 1.0 if name in LOWER_IS_BETTER else -1.0

    def key(result: Result) -> float:
        value = math.nan if name is None else result.metrics.get(name, math.nan)
        return math.inf if math.isnan(value) else sign * value

    return sorted(results, key=key)


def verdict(results: Sequence[Result]) -> str:
    """One sentence: which head wins, and by how much."""
    name, order = objective(results), [result for result in ranked(results) if result.metrics]
    if name is None or not order:
        return "No contender has a result yet." if not order else "The contenders have no metric in common."
    best = order[0]
    said = f"{best.name} wins with {name} {best.metrics[name]:.4g}"
    if len(order) == 1:
        return f"{said}, alone."
    other = order[1].metrics[name]
    if other == best.metrics[name]:
        return f"{best.name} and {order[1].name} are level with {name} {other:.4g}."
    return f"{said}, {_lead(name, best.metrics[name], other)} {order[1].name} ({other:.4g})."


def _lead(name: str, best: float, other: float) -> str:
    """How ``best`` stands to another value of a metric: "10 % lower than", "3 times that of"."""
    if other == 0.0 or not math.isfinite(other):
        return "against"
    gap = abs(best - other) / abs(other)
    word = "lower" if name in LOWER_IS_BETTER else "higher"
    return f"{100.0 * gap:.2g} % {word} than" if gap < 1.0 else f"{gap + 1.0:,.0f} times that of"
