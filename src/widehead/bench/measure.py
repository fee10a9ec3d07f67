"""Timing that survives noisy machines: all methods in one process, in turn, medians, ratios of medians."""

import itertools
import math
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from widehead.arithmetic import find_compiled
from widehead.targets import SparseTargets

_SLICE = 0.25  # seconds that one method may take in one round, so that fast methods get many samples


def interleaved(
    steps: Mapping[str, Callable[[], object]],
    rounds: int,
    device: torch.device,
    agreed: Callable[[float], float] = lambda used: used,
) -> dict[str, list[float]]:
    """Seconds of each call of each function; the functions take turns, ``rounds`` times.

    A function that is quicker than a slice of a quarter second is called again until the slice is used up. Each
    should have been called once before, because first calls do what later ones do not have to.

    Args:
        agreed: what several processes that call them together take for the seconds of a slice that one has used.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            used = 0.0
            while used < _SLICE:
                seconds[name].append(timed(step, device))
                used = agreed(used + seconds[name][-1])
    return seconds


def timed(step: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, with everything that it gave the device to do; on a GPU by its own events."""
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        step()
        end.record()
        end.synchronize()
        return 1e-3 * begin.elapsed_time(end)
    start = now(device)
    step()
    return now(device) - start


def now(device: torch.device) -> float:
    """Seconds on a clock, once the device has done everything that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def in_turn(
    step: Callable[[Tensor, SparseTargets], Tensor], batches: Iterable[tuple[Tensor, SparseTargets]]
) -> Callable[[], object]:
    """A step on each of a few batches that were drawn beforehand, in turn, over and over, each as if just loaded."""
    turns = itertools.cycle(batches)

    def turn() -> Tensor:
        inputs, targets = next(turns)
        return step(inputs.detach(), targets.fresh())

    return turn


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that at least ``share`` of them do not pass.

    >>> percentile([3.0, 1.0, 2.0, 4.0], 0.5), percentile([3.0, 1.0, 2.0, 4.0], 0.99)
    (2.0, 4.0)
    """
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def sgemm_rate(device: torch.device, size: int = 1024) -> Callable[[], object]:
    """A product of two square float32 matrices, 2·size³ floating-point operations, to be timed beside the steps."""
    a, b = torch.randn(2, size, size, device=device)
    return lambda: a @ b


def hardware(device: torch.device) -> dict[str, str | int]:
    """What the figures were measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "kernels": find_compiled() is not None,
        "torch": torch.__version__,
        "system": platform.system(),
    }


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
