"""Compressed rows as plain tensors: what is checked of them, and which entries examples have.

Letters: m examples, D classes, nnz targets in all.
"""

import functools
from typing import Any

import torch
from torch import Tensor

from widehead.raw import INTEGER, as_tensor

_FEW = 1024  # that torch sorts as soon
_KEY_BITS = 63  # of a whole number of 64, besides its sign


def starts_run(*keys: Tensor) -> Tensor:
    """(n,) whether an entry of sorted ``keys`` (n,) is not the one before it in all of them; so the first is one."""
    first = torch.ones_like(keys[0], dtype=torch.bool)
    first[1:] = functools.reduce(torch.logical_or, [key[1:] != key[:-1] for key in keys])
    return first


def sorted_stably(ids: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) whole numbers, rising, and (n,) the places they had; equal ones keep their order, as in torch.sort.

    On a CPU many of them are sorted as one number of 64 bits each, which has the place in its last bits: NumPy sorts
    those by vector instructions, in a fifth of torch's time or less (benchmarks/LOG.md, 2026-11-29).
    """
    bits = (ids.numel() - 1).bit_length()
    if ids.device.type != "cpu" or ids.numel() < _FEW or not _fits_beside(ids, bits):
        found, places = torch.sort(ids, stable=True)
        return found, places
    keys = ids.to(torch.int64).bitwise_left_shift(bits).bitwise_or_(torch.arange(ids.numel()))
    keys.numpy().sort()  # in place, the same memory
    return keys.bitwise_right_shift(bits).to(ids.dtype), keys.bitwise_and_((1 << bits) - 1)


def _fits_beside(ids: Tensor, bits: int) -> bool:
    """Whether each of them fits into a key beside so many bits."""
    low, high = (int(end) for end in torch.aminmax(ids))
    limit = 1 << (_KEY_BITS - bits)
    return -limit <= low and high < limit


def offsets_of(counts: Tensor) -> Tensor:
    return torch.nn.functional.pad(counts.cumsum(0), (1, 0))


def check_ids(class_ids: Tensor, num_classes: int | None, offsets: Tensor | None = None, hint: str = "") -> int:
    """The number after the largest id, 0 if there are none."""
    if class_ids.numel() == 0:
        return 0
    low, high = (int(x) for x in torch.aminmax(class_ids))
    if low >= 0 and (num_classes is None or high < num_classes):
        return high + 1
    wrong = class_ids < 0 if num_classes is None else (class_ids < 0) | (class_ids >= num_classes)
    at = int(wrong.nonzero()[0])
    where = "" if offsets is None else f" in example {int(torch.searchsorted(offsets, at, right=True)) - 1}"
    limit = "at least 0" if num_classes is None else f"in [0, {num_classes})"
    raise ValueError(f"Class ids should be {limit}. Found class_ids[{at}] = {int(class_ids[at])}{where}.{hint}")


def offsets_message(offsets: Tensor, nnz: int) -> str:
    should = f"Parameter `offsets` should rise from 0 to nnz = {nnz} without decreasing."
    falls = (offsets.diff() < 0).nonzero()
    if offsets[0] != 0:
        return f"{should} Found offsets[0] = {int(offsets[0])}."
    if len(falls):
        at = int(falls[0])
        return f"{should} Found offsets[{at}] = {int(offsets[at])} > offsets[{at + 1}] = {int(offsets[at + 1])}."
    return f"{should} Found offsets[{offsets.numel() - 1}] = {int(offsets[-1])}."


def examples_at(index: Any, count: int) -> Tensor:
    """(n,) int64: the examples among ``count`` that an index names, as in torch: a number, slice, list, array, tensor
    or mask.

    Raises:
        IndexError: a number outside [−count, count), or a mask of another length.
        TypeError: something else.
    """
    if isinstance(index, slice):
        return torch.tensor(range(*index.indices(count)), dtype=torch.int64)
    if isinstance(index, tuple) or index is None or index is Ellipsis:
        raise TypeError(f"An index of examples should have one dimension. Found {index!r}.")
    found = as_tensor("index", [index] if isinstance(index, int) and not isinstance(index, bool) else index)
    if found.dtype == torch.bool:
        if found.shape != (count,):
            raise IndexError(f"A mask should have the shape ({count},) of the examples. Found {tuple(found.shape)}.")
        return found.nonzero().squeeze(1)
    if found.dtype not in INTEGER or found.ndim > 1:
        raise TypeError(
            "An index of examples should be a whole number, a slice, whole numbers (n,) or a mask (m,). "
            f"Found {found.dtype} of shape {tuple(found.shape)}."
        )
    return _within(found.reshape(-1).to(torch.int64), count)


def _within(found: Tensor, count: int) -> Tensor:
    outside = (found < -count) | (found >= count)
    if bool(outside.any()):
        raise IndexError(f"Examples should be in [{-count}, {count}). Found {int(found[outside][0])}.")
    return torch.where(found < 0, found + count, found)
