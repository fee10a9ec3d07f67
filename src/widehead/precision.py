"""Heads compute in the type of their weights, whatever a program lets torch do to its products."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

_P = ParamSpec("_P")
_R = TypeVar("_R")
# Who computes products of float32, each with a setting of its own.
_BACKENDS = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
_FULL = ("none", "ieee")


class _FullProducts:
    """Products of float32 in float32, not TF32 or bfloat16, while somebody is inside; then what was set before.

    Torch has these settings for a process, not for a thread: the first who comes in puts them, the last who leaves puts
    them back. What other threads multiply meanwhile is exact too, and slower.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._before = threading.Lock(), 0, list[str]()

    def needed(self) -> bool:
        """Whether products are not in full, or somebody who leaves might make them so."""
        if self._inside > 0:
            return True
        try:  # a tenth of the time of asking each backend
            return torch.get_float32_matmul_precision() != "highest"
        except RuntimeError:  # the backends differ
            return True

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._before = [backend.fp32_precision for backend in _BACKENDS]
                self._put("ieee" if before not in _FULL else before for before in self._before)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._put(self._before)

    def _put(self, settings: Iterable[str]) -> None:
        for backend, setting in zip(_BACKENDS, settings, strict=True):
            if backend.fp32_precision != setting:
                backend.fp32_precision = "none"  # what is set for all backends counts again
            if backend.fp32_precision != setting:
                backend.fp32_precision = setting


_full_products = _FullProducts()


def in_full_precision(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """The same function, whose operations keep their types inside ``torch.autocast``, and its products of float32 all
    their digits, whatever ``torch.set_float32_matmul_precision`` said.

    The factored weights are updated, not recomputed: what a product in half precision loses is lost for good.
    """

    @wraps(function)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        active = [kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
        rounded = _full_products.needed()
        if not active and not rounded:
            return function(*args, **kwargs)
        with ExitStack() as stack:
            for kind in active:
                stack.enter_context(torch.autocast(kind, enabled=False))
            if rounded:
                stack.enter_context(_full_products)
            return function(*args, **kwargs)

    return wrapped
