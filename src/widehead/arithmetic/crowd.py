"""How many threads a step takes where other programs use the cores too.

The threads of a step wait for one another some ten times. Beside other busy programs one of them is always waiting for
a core, and the others wait for it, which uses up their own turns: then fewer threads make a quicker step. The system
tells how long a thread was ready to run and had no core (Linux, /proc/self/task/…/schedstat).
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import torch

from widehead.arithmetic.library import library

_PERIOD = 0.1  # seconds from one look to the next
_MOST = 8  # threads that are looked at
_CROWDED = 0.15  # part of the time that threads wait for a core: a moment's work of others is less
_LOOKS = 2  # one after the other that say so before threads become fewer
_PATIENCE = 0.5, 30.0  # seconds without a crowd after which more threads are tried, at first and at most
_TRIAL = 1.0  # seconds without a crowd after which that was right


@dataclass
class Crew:
    """How many of ``whole`` threads to take, from looks at how long they waited for cores.

    In a crowd half of them, down to one. After some time without one twice as many; if that crowds, it was too early,
    and the next time is twice as long.
    """

    whole: int
    threads: int = field(init=False)
    _patience: float = _PATIENCE[0]
    _crowded: int = 0
    _calm_since: float | None = None
    _tried: float | None = None

    def __post_init__(self) -> None:
        self.threads = self.whole

    def look(self, now: float, share: float) -> None:
        """A look at the time ``now``, in seconds: since the last one threads waited this share of the time."""
        if share > _CROWDED:
            self._crowd()
        else:
            self._calm(now)

    def _crowd(self) -> None:
        self._crowded, self._calm_since = self._crowded + 1, None
        if self._crowded < (_LOOKS if self._tried is None else 1):
            return
        if self._tried is not None:
            self._patience = min(2.0 * self._patience, _PATIENCE[1])
        self.threads, self._tried, self._crowded = max(1, self.threads // 2), None, 0

    def _calm(self, now: float) -> None:
        self._crowded = 0
        if self._calm_since is None:
            self._calm_since = now
        if self._tried is not None and now - self._tried >= _TRIAL:
            self._tried, self._patience = None, _PATIENCE[0]
        if self.threads < self.whole and now - self._calm_since >= self._patience:
            self.threads, self._tried, self._calm_since = min(self.whole, 2 * self.threads), now, now


@dataclass(frozen=True)
class _Limit:
    """So many ``threads`` in the place of ``whole``, and what the BLAS took before of the calling thread alone."""

    kernels: ctypes.CDLL
    whole: int
    threads: int
    local: int


class Sharing(threading.local):
    """A context around work of a thread: fewer threads join it in a crowd. It may be entered again inside.

    Not if there are no kernels, if the system does not tell, or if torch is to be deterministic: the last bits of a
    product may depend on how many threads make it. If torch is told another number of threads inside, that stays.
    """

    def __init__(self) -> None:
        self._depth, self._at = 0, 0.0
        self._limit: _Limit | None = None
        self._crew = Crew(1)
        self._team: list[int] = []
        self._waited: list[float] = []

    def __enter__(self) -> None:
        if self._depth == 0:
            self._limit = self._limited()
        self._depth += 1

    def __exit__(self, *error: object) -> None:
        self._depth -= 1
        if self._depth == 0 and self._limit is not None:
            limit, self._limit = self._limit, None
            if torch.get_num_threads() == limit.threads:  # else torch was told another number inside, which stays
                limit.kernels.widehead_limit(limit.whole, limit.local)

    def _limited(self) -> _Limit | None:
        """Take fewer threads from now on, or None."""
        whole = torch.get_num_threads()
        if whole == 1 or torch.are_deterministic_algorithms_enabled() or (kernels := library()) is None:
            return None
        if (threads := self._decide(kernels, whole)) == whole:
            return None
        return _Limit(kernels, whole, threads, kernels.widehead_limit(threads, threads))

    def _decide(self, kernels: ctypes.CDLL, whole: int) -> int:
        """How many threads to take of ``whole``."""
        now = perf_counter()
        if self._crew.whole != whole:
            self._crew, self._team = Crew(whole), []
        if now - self._at >= _PERIOD:
            looked = min(self._crew.threads, _MOST)
            waited = _waits(self._team[:looked])
            if waited is None or not self._team:
                self._team = _team(kernels, whole)
                waited = _waits(self._team[:looked])
            elif len(waited) == len(self._waited):
                lost = sum(waited) - sum(self._waited)
                self._crew.look(now, lost / (looked * (now - self._at)))
            self._waited, self._at = waited or [], now
        return self._crew.threads


def _team(kernels: ctypes.CDLL, whole: int) -> list[int]:
    """What the system calls the threads of this thread's parallel regions, this one first."""
    ids = (ctypes.c_int64 * whole)()
    kernels.widehead_team(whole, ids)
    return list(ids)


def _waits(team: Sequence[int]) -> list[float] | None:
    """Seconds that each thread was ready to run and had no core; None if one is gone, or the system does not tell."""
    try:
        return [1e-9 * int(Path(f"/proc/self/task/{one}/schedstat").read_bytes().split()[1]) for one in team]
    except (OSError, IndexError, ValueError):
        return None


#: around the work of a pass or a step: see `Sharing`
sharing = Sharing()
