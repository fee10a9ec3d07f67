"""What is counted: waits of the host, kernels, and copies to the host that are still under way."""

from __future__ import annotations

import collections
import contextlib
import functools
import math
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import widehead

_PACKAGE = str(Path(widehead.__file__).parent) + "/"

# How often an operation waits for the device inside, as ATen's sources have it.
_WAITS = {
    **dict.fromkeys(("nonzero", "masked_select", "unique_consecutive", "_unique2", "unique_dim", "isin", "histc"), 1),
    **dict.fromkeys(("linalg_eigh", "_linalg_eigh", "linalg_eigvalsh", "linalg_svd", "_linalg_svd", "linalg_eig"), 1),
    **dict.fromkeys(("_linalg_check_errors", "linalg_inv", "linalg_cholesky", "linalg_solve", "cholesky_inverse"), 1),
    **dict.fromkeys(("_local_scalar_dense", "equal", "is_nonzero", "_is_any_true", "_is_all_true"), 1),
    **dict.fromkeys(("_coalesce", "segment_reduce", "repeat_interleave.Tensor", "cholesky_solve"), 1),
    "bincount": 2,
}
# What makes no kernel: views, and memory that nobody writes.
_NO_KERNEL = {
    *("view", "t", "transpose", "slice", "select", "unsqueeze", "squeeze", "expand", "as_strided", "detach", "alias"),
    *("split", "split_with_sizes", "permute", "diagonal", "unbind", "_unsafe_view", "reshape", "_reshape_alias"),
    *("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "resize_", "set_", "lift_fresh"),
    *("values", "indices", "_values", "_indices", "crow_indices", "col_indices", "is_coalesced", "_coalesced_"),
    *("unsafe_split", "unsafe_chunk", "chunk", "narrow", "unfold", "_local_scalar_dense", "sym_size", "sym_stride"),
    *("_sparse_compressed_tensor_unsafe", "_sparse_csr_tensor_unsafe", "_sparse_coo_tensor_unsafe"),
    *("_sparse_coo_tensor_with_dims_and_tensors", "sparse_compressed_tensor", "_linalg_check_errors"),
}
# How many kernels an operation launches, if it is not one; roughly, as ATen's sources have it.
_KERNELS = {
    **dict.fromkeys(("linalg_eigh", "_linalg_eigh", "_linalg_svd", "linalg_svd"), 40),
    **dict.fromkeys(("sort", "argsort", "nonzero"), 4),
    **dict.fromkeys(("cumsum", "index_put_", "_index_put_impl_", "linalg_solve_triangular", "repeat_interleave"), 2),
    **dict.fromkeys(("unique_consecutive", "bincount", "linalg_cholesky_ex"), 6),
    **{"_unique2": 10, "isin": 12, "cholesky_inverse": 8, "linalg_inv_ex": 12, "segment_reduce": 3, "_coalesce": 12},
}
_INDEXED = ("index", "index_put", "index_put_", "_index_put_impl_")
_READ_SOME = ("index", "index_select", "gather", "embedding")  # no more than they give
_WRITE_SOME = ("index_copy_", "index_fill_", "index_put_", "scatter_reduce_", "scatter_add_", "index_add_")


@dataclass(frozen=True)
class Wait:
    """One wait of the host: what was asked for, and the innermost lines of the project that asked."""

    operation: str
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.operation} at {' < '.join(self.lines) or 'no line of the project'}"


def project_lines(most: int = 3) -> tuple[str, ...]:
    """The innermost lines of the package that are being run: "heads/base.py:57 forward"."""
    found = []
    for frame, line in traceback.walk_stack(sys._getframe(1)):
        path = frame.f_code.co_filename
        if path.startswith(_PACKAGE):
            found.append(f"{path.removeprefix(_PACKAGE)}:{line} {frame.f_code.co_name}")
            if len(found) == most:
                break
    return tuple(found)


@dataclass
class Count:
    """What happened while it was counted: waits in their order, kernels by operation and by line of the project.

    ``bytes`` is what the kernels read and wrote, each tensor once a kernel.
    """

    waits: list[Wait] = field(default_factory=list)
    kernels: collections.Counter[str] = field(default_factory=collections.Counter)
    kernels_by_line: collections.Counter[str] = field(default_factory=collections.Counter)
    bytes: int = 0

    @property
    def launches(self) -> int:
        return self.kernels.total()


@dataclass
class Device:
    """The played device.

    Attributes:
        capturing: the graph that is being captured, or None.
        late_queries: how often an event says that the device is not that far yet, before it says that it is.
    """

    late_queries: int = 0
    capturing: Any = None
    _counts: list[Count] = field(default_factory=list)
    _late: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    _copies: int = 0

    @contextlib.contextmanager
    def counting(self) -> Iterator[Count]:
        """What happens inside is counted."""
        self._counts.append(Count())
        try:
            yield self._counts[-1]
        finally:
            self._counts.pop()

    @property
    def is_counting(self) -> bool:
        return bool(self._counts)

    def wait(self, operation: str) -> None:
        """The host waits: it is counted, and all that was under way arrives."""
        if self.capturing is not None:
            raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing ({operation})")
        self.deliver(self._copies)
        if self._counts:
            wait = Wait(operation, project_lines())
            for count in self._counts:
                count.waits.append(wait)

    def launch(self, operation: str, kernels: int = 1) -> None:
        if self._counts:
            line = next(iter(project_lines(1)), "")
            for count in self._counts:
                count.kernels[operation] += kernels
                count.kernels_by_line[line] += kernels

    def copy_later(self, to: Tensor, source: Tensor) -> None:
        """``to``, in the host's memory, gets the numbers of ``source`` when the device has been waited for."""
        flat = to.detach().reshape(-1) if to.is_contiguous() else torch.empty(0)
        flat.view(torch.uint8).fill_(0xA5)  # so that whoever reads too early sees it
        self._copies += 1
        self._late[self._copies] = to.detach(), source.detach().clone()

    @property
    def copies(self) -> int:
        """How many copies were started: an event that is recorded now stands behind them."""
        return self._copies

    def deliver(self, last: int) -> None:
        """The copies up to number ``last`` arrive."""
        for number in [number for number in self._late if number <= last]:
            to, source = self._late.pop(number)
            to.copy_(source)

    def saw(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Count the waits and kernels of one of ATen's operations on this device."""
        full, name = names_of(func).full, names_of(func).short
        if (full in _WAITS or name in _WAITS) and not _needs_none(name, kwargs):
            for _ in range(_WAITS.get(full, _WAITS.get(name, 0))):
                self.wait(full)
        if name in _INDEXED:
            for index in args[1]:
                if isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8):
                    self.wait(f"{name} by a mask")
        if name not in _NO_KERNEL:
            self.launch(name, _KERNELS.get(name, 1))

    def moved(self, func: Any, given: list[Any], out: list[Any]) -> None:
        """Count the bytes of an operation that was ``given`` tensors and gave others, ``out``."""
        name, made = names_of(func).short, [part for part in out if isinstance(part, Tensor)]
        if name not in _NO_KERNEL:
            tensors = [part for part in given if isinstance(part, Tensor)]
            if name in _WRITE_SOME:  # and read them before
                moved = 2 * sum(map(_bytes, tensors[1:]))
            else:
                moved = sum(map(_bytes, made)) + sum(map(_bytes, made if name in _READ_SOME else tensors))
            for count in self._counts:
                count.bytes += moved


def _bytes(tensor: Tensor) -> int:
    """Of the numbers that it has in memory; what is expanded is there once."""
    if tensor.layout != torch.strided:
        return 0
    lengths = zip(tensor.shape, tensor.stride(), strict=True)
    return math.prod(length for length, stride in lengths if stride != 0) * tensor.element_size()


@dataclass(frozen=True)
class Names:
    """ "sort.stable", "sort" and "sort" of aten::sort.stable; ``plain`` alone tells what writes into out=."""

    full: str
    short: str
    plain: str


@functools.cache
def names_of(func: Any) -> Names:
    plain = func._schema.name.removeprefix("aten::")
    short, overload = plain.removesuffix("_out"), func._schema.overload_name.removesuffix("out").rstrip("_.")
    return Names(f"{short}.{overload}" if overload else short, short, plain)


def _needs_none(name: str, kwargs: dict[str, Any]) -> bool:
    if name == "repeat_interleave":
        return kwargs.get("output_size") is not None
    return name == "segment_reduce" and bool(kwargs.get("unsafe"))
