"""The oracle of search: every row is looked at."""

from __future__ import annotations

import torch
from torch import Tensor

from widehead.search.protocol import check_queries

__all__ = ["ExhaustiveIndex"]

_BLOCK = 1 << 16  # rows whose scores are held at a time


class ExhaustiveIndex:
    """Exact search on any device, a block of rows at a time: 2nd operations and (m, 65,536) scores a batch.

    It holds the memory of ``rows`` (n, d) itself, not a copy, so changes of the rows in place are seen at once.
    """

    def __init__(self, rows: Tensor) -> None:
        self.refresh(rows)

    def refresh(self, rows: Tensor) -> None:
        """Hold ``rows`` (n, d) from now on."""
        if rows.ndim != 2:
            raise ValueError(f"Parameter `rows` should have shape (n, d). Found {tuple(rows.shape)}.")
        self.rows = rows.detach()

    @torch.no_grad()
    def search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """(scores (m, k), ids (m, k)), best first; (−inf, −1) past the n-th.

        Raises:
            ValueError: queries of another width, or k < 1.
        """
        check_queries(queries, k, self.rows.shape[1])
        queries = queries.to(self.rows)
        best = queries.new_full((queries.shape[0], k), -torch.inf)
        ids = torch.full_like(best, -1, dtype=torch.int64)
        for start in range(0, self.rows.shape[0], _BLOCK):
            block = self.rows[start : start + _BLOCK]
            top, at = (queries @ block.T).topk(min(k, block.shape[0]), dim=1)
            best, order = torch.cat([best, top], 1).topk(k, dim=1)
            ids = torch.cat([ids, at + start], 1).gather(1, order)
        return best, ids
