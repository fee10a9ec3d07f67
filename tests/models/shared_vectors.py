"""Singular vectors in several processes, as functions of their mesh, or in one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

from widehead.models import SharedMatrix, SparseMatrix, leading_singular_vectors
from widehead.split import Peers, Share


def matrix_of(shape: tuple[int, int], seed: int) -> Any:
    """Some rows and columns of it are empty."""
    random = np.random.default_rng(seed)
    rows, columns = (np.minimum(size * random.random(8 * sum(shape)) ** 2, size - 2).astype(int) for size in shape)
    return scipy.sparse.csr_matrix((random.random(len(rows)) + 0.5, (rows, columns)), shape=shape)


def found_by(mesh: Any, shape: tuple[int, int], k: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Values and vectors of all, and what torch draws next."""
    torch.manual_seed(5)
    matrix = matrix_of(shape, 3)
    if mesh is None:
        return *leading_singular_vectors(SparseMatrix(matrix, dtype=dtype), k), float(torch.rand(1))
    share = Share(Peers(mesh))
    columns = [0] * share.size
    columns[-1] = shape[1] // 3  # uneven, and perhaps none
    columns[0] = shape[1] - columns[-1]
    made = SharedMatrix(matrix[share.own], share, shape[0], columns, dtype)
    values, vectors = leading_singular_vectors(made, k)
    return values, share.split.all_rows(vectors, columns, "rows"), float(torch.rand(1))


def refused(mesh: Any, rank: int, number: float) -> str:
    """What is said of a number in the rows of one process."""
    share = Share(Peers(mesh))
    matrix = scipy.sparse.csr_matrix(np.ones((9, 6)))[share.own]
    if share.rank == rank:
        matrix.data[2] = number
    with pytest.raises(ValueError, match="finite") as told:
        leading_singular_vectors(SharedMatrix(matrix, share, 9, [2] * share.size), 2)
    return str(told.value)
