"""How much memory methods need: foreseen before any is built, and measured at the first step of each."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch

from widehead.training.memory import told

_CLEAR = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Need:
    """Bytes that a method holds between steps, and those that it holds on top of them during a step."""

    resident: int
    working: int = 0


def fitting(needs: Mapping[str, Need], free: int | None) -> dict[str, str]:
    """Which methods do not fit: {name: why}.

    Methods take turns, so all of them are resident and one at a time works. They are taken in their order, each if
    those taken before it leave enough room. Where ``free`` is None all fit.
    """
    refused: dict[str, str] = {}
    resident = working = 0
    for name, need in needs.items():
        together = resident + need.resident + max(working, need.working)
        if free is None or together <= free:
            resident, working = resident + need.resident, max(working, need.working)
            continue
        beside = f", {together / 1e9:.1f} GB together with the others" if resident else ""
        wanted = (need.resident + need.working) / 1e9
        refused[name] = f"{name} needs {wanted:.1f} GB{beside}. Found {free / 1e9:.1f} GB free."
    return refused


def available_memory(device: torch.device) -> int | None:
    """Bytes that can still be used without pushing anything out, None if the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if (free := told("MemAvailable", "/proc/meminfo")) is not None:
        return free
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


class PeakMemory:
    """Measures by how much the memory in use rises at most inside a ``with`` block: ``bytes``, or None if unknown.

    On the CPU that is the resident memory of the process, whose peak Linux can be asked to forget. What the C library
    keeps of memory freed before would hide that much of the rise, so glibc is asked to hand it back first.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.bytes: int | None = None

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before: int | None = torch.cuda.memory_allocated(self.device)
        else:
            gc.collect()
            _hand_back()
            self._before = told("VmRSS") if _peak_forgotten() else None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.device.type == "cuda":
            peak: int | None = torch.cuda.max_memory_allocated(self.device)
        else:
            peak = told("VmHWM")
        self.bytes = None if peak is None or self._before is None else max(0, peak - self._before)


def _hand_back() -> None:
    with contextlib.suppress(OSError, AttributeError, TypeError):  # not Linux, or a C library other than glibc
        ctypes.CDLL(None).malloc_trim(0)


def _peak_forgotten() -> bool:
    """Ask Linux to begin the peak of this process anew; whether it did."""
    try:
        _CLEAR.write_text("5", encoding="ascii")
    except OSError:
        return False
    return True
