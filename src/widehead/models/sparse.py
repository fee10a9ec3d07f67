"""Sparse matrices of scipy as those of torch, for products with dense blocks."""

import warnings
from typing import Any

import torch
from torch import Tensor


def as_torch(matrix: Any, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
    """A scipy CSR matrix (m, n) as a tensor of that layout."""
    offsets, columns = (torch.from_numpy(ids).to(torch.int64) for ids in (matrix.indptr, matrix.indices))
    values = torch.from_numpy(matrix.data).to(dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")  # torch calls the layout young
        made: Tensor = torch.sparse_csr_tensor(offsets, columns, values, matrix.shape, check_invariants=False)
    return made.to(device)
