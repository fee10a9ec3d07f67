"""Large tensors whose memory was in use before: what comes anew from the system is mapped page by page.

A step's largest matrices, the rows of V that are targets, are as large as those of the step before. Where the C library
gives such blocks back to the system at once, as it does by default, mapping them took a sixth of the time of a step.
"""

from dataclasses import dataclass
from threading import Lock
from weakref import ref

import numpy as np
import torch
from torch import Tensor

_LEAST = 1 << 18  # numbers: smaller blocks are kept by the C library
_MOST = 1 << 26  # numbers that are kept altogether
_ALIGNED = 16  # numbers of a cache line


@dataclass(eq=False)
class _Block:
    """Memory, and the last part of it that was given away, which lives as long as some tensor has it."""

    memory: np.ndarray
    part: ref[np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.memory)

    @property
    def is_free(self) -> bool:
        return self.part is None or self.part() is None

    def given(self, size: int) -> np.ndarray:
        """(size,) of it, from the beginning of a cache line."""
        at = -self.memory.ctypes.data // 4 % _ALIGNED
        part = self.memory[at : at + size]
        self.part = ref(part)
        return part


_blocks: list[_Block] = []
_lock = Lock()


def empty(rows: int, columns: int) -> Tensor:
    """(rows, columns) float32 on the CPU, with any numbers in it. Its memory serves again once no tensor has it."""
    size = rows * columns
    if size < _LEAST:
        # Whatever torch's defaults are: C writes it.
        return torch.empty(rows, columns, dtype=torch.float32, device="cpu")
    with _lock:
        part = _free(size).given(size)
    return torch.from_numpy(part).view(rows, columns)


def empty_like(part: Tensor) -> Tensor:
    """A matrix like ``part`` with any numbers in it, in memory that served before if it is float32 on the CPU."""
    if part.dtype != torch.float32 or part.device.type != "cpu":
        return torch.empty_like(part)
    return empty(*part.shape)


def drop_unused() -> None:
    """Keep no memory that no tensor has."""
    with _lock:
        _blocks[:] = [block for block in _blocks if not block.is_free]


def _free(size: int) -> _Block:
    """The smallest block of at least ``size`` numbers that nobody has, or a new one in the place of a smaller."""
    unused = sorted((block for block in _blocks if block.is_free), key=len)
    for block in unused:
        if len(block) >= size + _ALIGNED:
            return block
    made = _Block(np.empty(size + size // 8 + _ALIGNED, dtype=np.float32))  # sizes of batches vary
    for block in unused[:1]:
        _blocks.remove(block)
    if sum(map(len, _blocks)) + len(made) <= _MOST:
        _blocks.append(made)
    return made
