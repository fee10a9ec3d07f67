"""What the project calls of torch.cuda, on the played device."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import torch
from torch import Tensor

from support.played.graphs import CUDAGraph, graph
from support.played.tensors import PLAYED

_MEMORY = 80 * 2**30


class Event:
    """torch.cuda.Event: it stands behind what was started before it was recorded."""

    def __init__(self, enable_timing: bool = False, **_: Any) -> None:
        self._behind: int | None = None
        self._time = 0.0

    def record(self, stream: Any = None) -> None:
        self._behind, self._time = PLAYED[-1].copies, time.perf_counter()
        self._late = PLAYED[-1].late_queries

    def query(self) -> bool:
        if self._behind is None:
            return True
        self._late -= 1
        if self._late >= 0:
            return False
        PLAYED[-1].deliver(self._behind)
        return True

    def synchronize(self) -> None:
        if self._behind is not None:
            PLAYED[-1].wait("Event.synchronize")

    def elapsed_time(self, end: Event) -> float:
        return 1000.0 * (end._time - self._time)


class Stream:
    """torch.cuda.Stream: all streams of the played device are one."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def synchronize(self) -> None:
        _synchronize()

    def wait_stream(self, stream: Any) -> None:
        pass


def _synchronize(device: Any = None) -> None:
    PLAYED[-1].wait("torch.cuda.synchronize")


def _set_rng_state(state: Tensor, device: Any = None) -> None:
    torch.set_rng_state(state)  # both devices draw from one generator


NAMES: dict[str, Any] = {
    "Event": Event,
    "Stream": Stream,
    "synchronize": _synchronize,
    "is_available": lambda: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "set_device": lambda device: None,
    "current_stream": Stream,
    "stream": lambda stream: contextlib.nullcontext(),
    "is_current_stream_capturing": lambda: PLAYED[-1].capturing is not None,
    "CUDAGraph": CUDAGraph,
    "graph": graph,
    "get_device_name": lambda device=None: "a CUDA device that the CPU plays",
    "get_device_capability": lambda device=None: (9, 0),
    "get_rng_state": lambda device=None: torch.get_rng_state(),
    "set_rng_state": _set_rng_state,
    "manual_seed_all": lambda seed: None,
    "mem_get_info": lambda device=None: (_MEMORY, _MEMORY),
    "memory_allocated": lambda device=None: 0,
    "max_memory_allocated": lambda device=None: 0,
    "reset_peak_memory_stats": lambda device=None: None,
    "empty_cache": lambda: None,
}
