"""What the exact head's upkeep costs over a long run: segments that are closed, rows that are moved forward, pauses."""

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import torch

from widehead.arithmetic import using
from widehead.bench.measure import hardware, now, percentile, timed
from widehead.bench.methods import Exact
from widehead.bench.problem import OutputLayerProblem, TrainedStream
from widehead.bench.provenance import provenance
from widehead.errors import check_choice, check_number
from widehead.optim import SGD, HeadOptimizer, Newton

_CLOSING, _MOVING = "closing", "moving"
_CURVATURE = 0.5


class UpkeepClock:
    """Times the phases of the exact head's operations that are upkeep.

    Attributes:
        seconds: {"closing": seconds of each time, "moving": …}.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, list[float]] = {_CLOSING: [], _MOVING: []}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """The context of one time; see `Arithmetic.phase`."""
        begin = now(self.device)
        try:
            yield
        finally:
            self.seconds[name].append(now(self.device) - begin)


def measure_upkeep(
    classes: int = 1_000_000,
    width: int = 64,
    batch: int = 128,
    targets_per_example: int = 1,
    *,
    steps: int = 20_000,
    optimizer: Literal["sgd", "newton"] = "sgd",
    curvature: float | None = None,
    targets: Literal["zipf", "uniform"] = "zipf",
    device: str = "cpu",
    seed: int = 0,
) -> dict[str, Any]:
    """Train the exact head on a stream like a trained encoder's and time every step and all upkeep in it.

    Args:
        classes, width, batch, targets_per_example: D, d, m, K.
        steps: how many to make. What is loaded at first use is loaded before.
        optimizer: SGD, or Newton at its natural lr of 1.
        curvature: SGD's lr as a fraction in (0, 1] of the largest stable one; None for 0.5. Not for Newton.
        targets: how target classes are drawn, see `TrainedStream`.

    Returns:
        "seconds" (median of a step); "p99_in_medians", "p999_in_medians" and "max_in_medians" (99th and 99.9th
        percentile and maximum of a step, in medians); "closes_per_step" (corrections too); "rows_moved" (by sweeps);
        "closing_share", "moving_share" and "upkeep_share" (of all time spent in steps); "longest_close" and
        "longest_move" (seconds, 0 if there was none); the settings, the hardware, "date", "commit" and "version".

    Raises:
        ValueError: an unknown option, a size or ``steps`` below 1, a ``curvature`` outside (0, 1] or for Newton.
    """
    problem, place = OutputLayerProblem(classes, width, batch, targets_per_example), torch.device(device)
    _check(steps, optimizer, curvature)
    kind: type[HeadOptimizer]
    generator = torch.Generator(device=place).manual_seed(seed)
    stream = TrainedStream(problem, targets, generator)
    if optimizer == "sgd":
        curvature = _CURVATURE if curvature is None else curvature
        lr, kind = curvature * stream.largest_stable_lr(), SGD
    else:
        lr, kind = 1.0, Newton
    small = OutputLayerProblem(max(300, targets_per_example), width, batch, targets_per_example)
    Exact(small, place, lr=lr, optimizer=kind).step(*TrainedStream(small, targets, generator).draw())
    method = Exact(problem, place, lr=lr, optimizer=kind)
    seconds = []
    clock = UpkeepClock(place)
    with using(method.head.weights.rows.arithmetic.with_phases(clock.phase)):
        for _ in range(steps):
            seconds.append(timed(partial(method.step, *stream.draw()), place))
    return {
        **_figures(seconds, clock),
        "closes_per_step": method.head.weights.closes / steps,
        "rows_moved": method.head.weights.moved_rows,
        **problem.sizes,
        "steps": steps,
        "optimizer": optimizer,
        "lr": lr,
        "curvature": curvature,
        "targets": targets,
        **hardware(place),
        **provenance(),
    }


def _check(steps: int, optimizer: str, curvature: float | None) -> None:
    check_number("steps", steps, 1)
    check_choice("optimizer", optimizer, ("sgd", "newton"))
    if curvature is not None and optimizer == "newton":
        raise ValueError(f"Parameter `curvature` scales the lr of SGD; Newton's is 1. Found {curvature}: leave it out.")
    if curvature is not None and not 0.0 < curvature <= 1.0:
        raise ValueError(f"Parameter `curvature` should be in (0, 1]. Found {curvature}.")


def _figures(seconds: list[float], clock: UpkeepClock) -> dict[str, float]:
    median, total = statistics.median(seconds), sum(seconds)
    closing, moving = clock.seconds[_CLOSING], clock.seconds[_MOVING]
    return {
        "seconds": median,
        "p99_in_medians": percentile(seconds, 0.99) / median,
        "p999_in_medians": percentile(seconds, 0.999) / median,
        "max_in_medians": max(seconds) / median,
        "closing_share": sum(closing) / total,
        "moving_share": sum(moving) / total,
        "upkeep_share": (sum(closing) + sum(moving)) / total,
        "longest_close": max(closing, default=0.0),
        "longest_move": max(moving, default=0.0),
    }
