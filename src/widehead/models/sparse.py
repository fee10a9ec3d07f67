"""Products of sparse matrices of scipy with dense blocks of torch."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def product_of(
    matrix: Any, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Callable[[Tensor], Tensor]:
    """What multiplies a scipy CSR matrix (m, n), in a type, with dense (n, b) on a device.

    On the CPU as sums of bags, which take half of the time that products with torch's sparse layout do: with 8.6
    million numbers, 3 to 4 against 1.4 GFLOP/s on a core.
    """
    offsets, columns = torch.from_numpy(matrix.indptr), torch.from_numpy(matrix.indices)
    values = torch.from_numpy(matrix.data).to(dtype)
    if torch.device(device).type != "cpu":
        made = _layout(offsets, columns, values, matrix.shape).to(device)
        return lambda block: made @ block
    offsets = offsets.to(columns.dtype)
    return lambda block: torch.embedding_bag(block, columns, offsets, False, 0, False, values, True)[0]


def _layout(offsets: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")  # torch calls the layout young
        return torch.sparse_csr_tensor(offsets.long(), columns.long(), values, shape, check_invariants=False)
