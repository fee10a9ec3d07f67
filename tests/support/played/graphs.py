"""CUDA graphs of the played device: operations are noted as they are captured, and made again, on the same memory, at
each replay. As on a card, what is captured is not made, and a wait while it is captured is an error.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from support.played.tensors import PLAYED, leaves, mapped


class CUDAGraph:
    """torch.cuda.CUDAGraph."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self._operations: list[tuple[Callable[[], Any], list[Tensor]]] = []
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def note(self, make: Callable[..., Any], args: Any, kwargs: Any, out: Any) -> None:
        """An operation that gave ``out``. Views stand for tensors, whose shapes may be changed in place later."""
        args, kwargs, out = mapped(lambda x: x.detach() if _is_strided(x) else x, (args, kwargs, out))
        self._operations.append((functools.partial(make, *args, **kwargs), _tensors(out)))

    def before_write(self, tensor: Tensor) -> None:
        """Keep the numbers of a tensor that is about to be written."""
        storage = tensor.untyped_storage()
        self._before.setdefault(storage.data_ptr(), (storage, storage.clone()))

    def undo(self) -> None:
        """Put all numbers back."""
        for storage, numbers in self._before.values():
            storage.copy_(numbers)
        self._before.clear()

    def replay(self) -> None:
        PLAYED[-1].launch("graph")
        with torch.no_grad():
            for make, out in self._operations:
                for old, new in zip(out, _tensors(make()), strict=True):
                    if old.data_ptr() != new.data_ptr():  # neither in place nor a view
                        old.copy_(new)

    def pool(self) -> tuple[int, int]:
        return (0, id(self))

    def reset(self) -> None:
        self._operations.clear()


def _tensors(out: Any) -> list[Tensor]:
    return [part for part in leaves(out) if _is_strided(part)]


def _is_strided(part: Any) -> bool:
    return isinstance(part, Tensor) and part.layout == torch.strided


@contextlib.contextmanager
def graph(cuda_graph: CUDAGraph, pool: Any = None, stream: Any = None, **_: Any) -> Iterator[None]:
    """torch.cuda.graph. What runs inside is made once, as numbers are needed for that, and undone."""
    device = PLAYED[-1]
    assert device.capturing is None, "graphs cannot be captured inside one another"
    device.capturing = cuda_graph
    try:
        yield
    finally:
        device.capturing = None
        cuda_graph.undo()
