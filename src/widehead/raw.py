"""Numbers as users give them, as tensors: lists, arrays, tensors of any integer type.

Raises:
    TypeError, ValueError: what was given has another type or shape; ``name`` is the parameter's.
"""

import operator
from typing import Any

import numpy as np
import torch
from torch import Tensor

INTEGER = (
    *(torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint64, torch.uint32, torch.uint16, torch.uint8),
)
_LARGEST_ID = 2**63 - 1


def row_of(b: int, row: Any) -> list[int]:
    """Row ``b`` of lists of class ids."""
    try:
        ids = [_index(c) for c in row]
    except TypeError as error:
        raise TypeError(
            f"Parameter `lists` should hold one list of integer class ids an example. Found lists[{b}] = {row!r}."
        ) from error
    if max(ids, default=0) > _LARGEST_ID or min(ids, default=0) < -_LARGEST_ID:
        raise ValueError(f"Class ids should be at most {_LARGEST_ID}. Found lists[{b}] = {row!r}.")
    return ids


def _index(c: Any) -> int:
    if isinstance(c, bool) or getattr(c, "dtype", None) == torch.bool:
        raise TypeError(f"{c!r} is not an integer")
    return operator.index(c)


def flat_values(rows: list[Any], lengths: list[int]) -> list[float]:
    """All values of rows that have these lengths."""
    if len(rows) != len(lengths):
        raise ValueError(
            f"Parameter `values` should have as many rows as `lists`. Found {len(rows)} and {len(lengths)}."
        )
    flat: list[float] = []
    for b, row in enumerate(rows):
        try:
            numbers = [float(v) for v in row]
        except (TypeError, ValueError, OverflowError) as error:
            raise TypeError(
                f"Parameter `values` should hold one list of numbers an example. Found values[{b}] = {row!r}."
            ) from error
        if len(numbers) != lengths[b]:
            raise ValueError(
                f"Parameter `values` should have as many entries in each row as `lists`. "
                f"Found {len(numbers)} and {lengths[b]} in row {b}."
            )
        flat += numbers
    return flat


def as_tensor(name: str, value: Any) -> Tensor:
    """A dense tensor, of the same memory if that can be."""
    if isinstance(value, Tensor):
        if value.layout != torch.strided:
            raise TypeError(f"Parameter `{name}` should be a dense tensor. Found layout {value.layout}.")
        return value.detach()
    try:
        array = np.asarray(value)
        if array.size == 0 and not isinstance(value, np.ndarray):
            array = array.astype(np.int64)
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        # torch takes neither negative strides nor, without a warning, memory that may not be written.
        ready = all(step > 0 for step in array.strides) and array.flags.writeable
        return torch.from_numpy(array if ready else array.copy())
    except (TypeError, ValueError) as error:
        raise TypeError(f"Parameter `{name}` should be a tensor of numbers. Found {type(value).__name__}.") from error


def integers(name: str, value: Any, device: torch.device | None = None) -> Tensor:
    """(n,) int64."""
    tensor = as_tensor(name, value)
    if tensor.dtype not in INTEGER:
        raise TypeError(f"Parameter `{name}` should hold integers. Found dtype {tensor.dtype}.")
    if tensor.ndim != 1:
        raise ValueError(f"Parameter `{name}` should have one dimension. Found shape {tuple(tensor.shape)}.")
    return tensor.to(device=device or tensor.device, dtype=torch.int64)


def reals(name: str, value: Any, like: Tensor) -> Tensor:
    """Real numbers in the shape and on the device of ``like``."""
    tensor = as_tensor(name, value)
    if tensor.dtype.is_complex or tensor.shape != like.shape:
        raise ValueError(
            f"Parameter `{name}` should hold one real number a target, shape {tuple(like.shape)}. "
            f"Found shape {tuple(tensor.shape)}, dtype {tensor.dtype}."
        )
    tensor = tensor.to(like.device)
    return tensor if tensor.dtype.is_floating_point else tensor.to(torch.get_default_dtype())
