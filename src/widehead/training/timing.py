"""Clocks of a run: which part of the time the head takes, and how the learning rates move."""

import itertools
import math
import time
from typing import Any

import torch

_Mark = Any  # a number of seconds, or an event on a GPU


class HeadClock:
    """Adds up the time between pairs of marks; on a GPU by events in its stream, so that nothing waits for it."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._spans: list[tuple[_Mark, _Mark]] = []

    def mark(self) -> _Mark:
        """Now, in the order of the work given to the device."""
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def add(self, begin: _Mark, end: _Mark) -> None:
        """Count the time from one mark to another."""
        self._spans.append((begin, end))

    def take(self) -> float:
        """Seconds counted since the last call, of spans that have ended; the others are for the next call."""
        if self._cuda:
            ended = list(itertools.takewhile(lambda span: span[1].query(), self._spans))
            total = sum(begin.elapsed_time(end) for begin, end in ended) / 1000.0
        else:
            ended = self._spans
            total = sum(end - begin for begin, end in ended)
        self._spans = self._spans[len(ended) :]
        return float(total)


def rate_factor(schedule: str, warmup_steps: int, step: int, done: float) -> float:
    """What the learning rates are multiplied by at step ``step`` (from 0), with ``done`` (0 to 1) of the run done.

    >>> [rate_factor("linear", 2, step, step / 4) for step in range(4)]
    [0.5, 0.75, 0.5, 0.25]
    """
    warm = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    done = min(max(done, 0.0), 1.0)
    if schedule == "cosine":
        return warm * 0.5 * (1.0 + math.cos(math.pi * done))
    return warm * (1.0 - done) if schedule == "linear" else warm
