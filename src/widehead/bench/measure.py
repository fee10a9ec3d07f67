"""Timing that survives noisy machines: all methods in one process, in turn, medians, ratios of medians."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

__all__ = ["available_memory", "hardware", "interleaved", "sgemm_rate"]

_SLICE = 0.25  # seconds that one method may take in one round, so that fast methods get many samples


def interleaved(steps: Mapping[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of each call of each function; the functions take turns, ``rounds`` times, after a warm-up.

    A function that is quicker than a slice of a quarter second is called again until the slice is used up.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        _timed(step, device)
    for _ in range(rounds):
        for name, step in steps.items():
            used = 0.0
            while used < _SLICE:
                seconds[name].append(_timed(step, device))
                used += seconds[name][-1]
    return seconds


def _timed(step: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    begin = time.perf_counter()
    step()
    _wait(device)
    return time.perf_counter() - begin


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def sgemm_rate(device: torch.device, size: int = 1024) -> Callable[[], object]:
    """A product of two square float32 matrices, 2·size³ floating-point operations, to be timed beside the steps."""
    a, b = torch.randn(2, size, size, device=device)
    return lambda: a @ b


def available_memory() -> int | None:
    """Bytes of main memory that can still be used, None where the system does not say."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def hardware(device: torch.device) -> dict[str, str | int]:
    """What the figures were measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__, "system": platform.system()}


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
