"""Where a run is: counters and sums, all of which go into its checkpoints."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from widehead.errors import check_number, check_whole
from widehead.options import TrainingConfig


@dataclass
class Position:
    """Counters of a run; ``count`` moves them by one step."""

    step: int = 0
    epoch: int = 0  # whole epochs done
    batch: int = 0  # batches done in the epoch that runs
    joined: bool = False  # whether the examples that join late have done so
    seconds: float = 0.0  # of preparation and steps; evaluations and checkpoints are left out
    preparation_seconds: float = 0.0  # those of them that first weights took
    evaluated_step: int = 0
    evaluated_seconds: float = 0.0
    saved_seconds: float = 0.0
    best: float | None = None  # best objective so far, the larger the better
    metrics: dict[str, float] = field(default_factory=dict)  # last evaluation
    # Since the last line of kind "train":
    loss_sum: float = 0.0
    steps: int = 0
    examples: int = 0
    span: float = 0.0
    head_span: float = 0.0

    @classmethod
    def of(cls, saved: Any) -> Position:
        """That of a checkpoint; TypeError or ValueError, which names the counter, if it cannot be one."""
        made = cls(**saved)
        for counter in fields(cls):
            kind, value = type(counter.default), getattr(made, counter.name)
            if kind is bool and not isinstance(value, bool):
                raise TypeError(f"`{counter.name}` should be true or false. Found {value!r}.")
            if kind is int:
                check_whole(counter.name, value, 0)
            elif kind is float:
                check_number(counter.name, value, -math.inf if counter.name == "loss_sum" else 0.0)
        return made

    def count(self, examples: int, seconds: float, epoch_length: int) -> None:
        """One step is done: its examples, what it took, and the number of batches in an epoch."""
        self.step += 1
        self.batch += 1
        if self.batch == epoch_length:
            self.epoch, self.batch = self.epoch + 1, 0
        self.seconds += seconds
        self.span += seconds
        self.steps += 1
        self.examples += examples

    def join(self, before: int, now: int) -> None:
        """More examples take part from here on: an epoch had so many batches before, and has more of them now.

        The epoch that runs goes on in the order of the new one, where at least the same part of it is done.
        """
        self.joined, self.batch = True, -(-self.batch * now // before)

    def prepared(self, seconds: float) -> None:
        """First weights were made, which is training too."""
        self.seconds += seconds
        self.preparation_seconds += seconds

    def forget(self) -> None:
        """Start the sums of the next line of kind "train"."""
        self.loss_sum = self.span = self.head_span = 0.0
        self.steps = self.examples = 0

    def figures(self) -> dict[str, float]:
        """Mean loss, examples per second and the head's share of the time since the last such line."""
        span = max(self.span, 1e-9)
        return {
            "loss": self.loss_sum / max(self.steps, 1),
            "examples_per_second": self.examples / span,
            "head_share": min(self.head_span / span, 1.0),
        }

    def where(self, epoch_length: int) -> dict[str, float]:
        """The keys that every line of the log has."""
        return {
            "step": self.step,
            "epoch": self.epochs(epoch_length),
            "seconds": self.seconds,
            "preparation": self.preparation_seconds,
        }

    def epochs(self, epoch_length: int) -> float:
        """Epochs done, with the part of the one that runs."""
        return self.epoch + self.batch / epoch_length

    def left(self, config: TrainingConfig, epoch_length: int) -> float:
        """Seconds to the nearer limit, if steps go on as they did; infinity if none was made."""
        by_time = math.inf if config.minutes is None else 60.0 * config.minutes - self.seconds
        if config.epochs is None or not (epochs := self.epochs(epoch_length)):
            return by_time
        return max(0.0, min(by_time, (self.seconds - self.preparation_seconds) * (config.epochs / epochs - 1.0)))

    def done(self, config: TrainingConfig, epoch_length: int) -> float:
        """Part of the run that is done: 1 and more at the limit of epochs or minutes, whichever is nearer."""
        by_epochs = 0.0 if config.epochs is None else self.epochs(epoch_length) / config.epochs
        by_time = 0.0 if config.minutes is None else self.seconds / (60.0 * config.minutes)
        return max(by_epochs, by_time)
