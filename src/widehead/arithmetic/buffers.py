"""Large tensors whose memory was in use before: what comes anew from the system is mapped page by page.

A step's largest matrices, the rows of V that are targets, are as large as those of the step before. Where the C library
gives such blocks back to the system at once, as it does by default, mapping them took a sixth of the time of a step.
"""

import sys
from threading import Lock

import numpy as np
import torch
from torch import Tensor

_LEAST = 1 << 18  # numbers: smaller blocks are kept by the C library
_MOST = 1 << 26  # numbers that are kept altogether
_ALIGNED = 16  # numbers of a cache line
_NOBODY = 3  # references to a block that is in no tensor: of the list, of the loop and of the call that counts

_blocks: list[np.ndarray] = []
_lock = Lock()


def empty(rows: int, columns: int) -> Tensor:
    """(rows, columns) float32 on the CPU, with any numbers in it. Its memory serves again once no tensor has it."""
    size = rows * columns
    if size < _LEAST:
        return torch.empty(rows, columns)
    with _lock:
        block = _free(size)
    at = -block.ctypes.data // 4 % _ALIGNED
    return torch.from_numpy(block[at : at + size]).view(rows, columns)


def _free(size: int) -> np.ndarray:
    """The smallest block of at least ``size`` numbers that nobody has, or a new one in the place of a smaller."""
    unused = sorted((block for block in _blocks if sys.getrefcount(block) == _NOBODY), key=len)
    for block in unused:
        if len(block) >= size + _ALIGNED:
            return block
    made = np.empty(size + size // 8 + _ALIGNED, dtype=np.float32)  # sizes of batches vary
    for block in unused[:1]:
        _remove(block)
    if sum(map(len, _blocks)) + len(made) <= _MOST:
        _blocks.append(made)
    return made


def _remove(block: np.ndarray) -> None:
    del _blocks[next(i for i, other in enumerate(_blocks) if other is block)]
