"""Examples that join a run late: something is chosen by them first, then they train the network like all others."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from widehead.training.contract import TrainingBatches
from widehead.training.position import Position

BEGIN = 0.8
"""Part of a run that is done when they join (recipes/LOG.md, 2026-11-29)."""


@dataclass(frozen=True)
class Joining:
    """What happens once in a run, before the last part of it.

    Args:
        batches: of all examples, those that join included, as many batches as there were before or more.
        count: how many examples a pass has then. what: joins, for people.
        choose: chooses by them, once, between two steps, and keeps that outside of the trainer. It draws nothing from
            torch's generators and changes no weights. It gives what people should know, if anything.
    """

    batches: TrainingBatches
    count: int
    what: str
    choose: Callable[[], str | None]

    def is_due(self, position: Position, done: float) -> bool:
        """Whether they should join now, with ``done`` (0 to 1) of the run done."""
        return not position.joined and BEGIN <= done < 1.0

    def num_steps(self, epochs: int, length: int) -> int:
        """Steps of a run of so many epochs, which have ``length`` batches each until the others join."""
        guess, most = max(0, int(BEGIN * epochs * length) - 1), epochs * length
        begins = (s for s in itertools.count(guess) if s == most or self._done_after(s, epochs, length) >= BEGIN)
        position = _after(next(begins), length)
        if position.step == most:
            return most
        position.join(length, len(self.batches))
        return position.step + (epochs - position.epoch) * len(self.batches) - position.batch

    @staticmethod
    def _done_after(steps: int, epochs: int, length: int) -> float:
        return _after(steps, length).epochs(length) / epochs


def _after(steps: int, length: int) -> Position:
    epoch, batch = divmod(steps, length)
    return Position(step=steps, epoch=epoch, batch=batch)
