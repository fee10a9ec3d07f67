"""What an index of maximum inner product search does, and how well it does it."""

from typing import Protocol

import torch
from torch import Tensor

from widehead.errors import check_number


class Index(Protocol):
    """Finds the rows of a matrix (n, d) that have the largest inner products with a query.

    Laws: no id is named twice for one query; ids are in [−1, n), and −1 says that fewer were found; scores belong
    to the rows that the index holds, which may be older than the matrix is now. What is found need not be the best.
    """

    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """(scores (m, k), ids (m, k) int64), best first, for ``queries`` (m, d); ids −1 if nothing was found."""

    def refresh(self, rows: Tensor) -> None:
        """Hold ``rows`` (n, d) from now on."""


def recall(found: Tensor, best: Tensor, num_rows: int) -> float:
    """Part of ``best`` (m, k) ids that is among ``found`` (m, K) ids of the same queries; 1 if there are none.

    >>> recall(torch.tensor([[4, 2, -1]]), torch.tensor([[2, 3]]), num_rows=5)
    0.5
    """
    if best.numel() == 0:
        return 1.0
    offset = torch.arange(best.shape[0], device=best.device)[:, None] * (num_rows + 1)
    return float(torch.isin(best + offset, (found + offset)[found >= 0]).double().mean())


def check_queries(queries: Tensor, k: int, width: int) -> None:
    """ValueError if ``queries`` are not (m, width) or k < 1."""
    if queries.ndim != 2 or queries.shape[1] != width:
        raise ValueError(f"Parameter `queries` should have shape (m, {width}). Found {tuple(queries.shape)}.")
    check_number("k", k, 1)
