"""Exact search: every row is looked at, a block of rows at a time."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn.functional import pad

from widehead.search.protocol import check_queries
from widehead.targets import SparseTargets


class ExhaustiveIndex:
    """Exact search on any device, ``block`` rows at a time: 2nd operations and (m, block) scores a batch.

    It holds the memory of ``rows`` (n, d) itself, not a copy, so changes of the rows in place are seen at once.
    """

    def __init__(self, rows: Tensor, block: int = 1 << 16) -> None:
        self.block = block
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
        starts = range(0, self.rows.shape[0], self.block)
        blocks = ((start, self.rows[start : start + self.block]) for start in starts)
        scores, ids = streaming_top_k(queries.to(self.rows), blocks, k)
        missing = (0, k - ids.shape[1])
        return pad(scores, missing, value=-torch.inf), pad(ids, missing, value=-1)


def streaming_top_k(
    queries: Tensor,
    blocks: Iterable[tuple[int, Tensor]],
    k: int,
    score: Callable[[Tensor], Tensor] | None = None,
    exclude: SparseTargets | None = None,
) -> tuple[Tensor, Tensor]:
    """(scores (m, k), ids (m, k)), best first, of ``score(queries @ block.T)`` over all blocks (first id, rows).

    Memory is one block of scores (m, block), whatever the number of rows. ``exclude`` names for each query the ids that
    score −inf. If there are fewer than k rows, there are as many columns.
    """
    best = queries.new_empty(queries.shape[0], 0)
    ids = torch.empty_like(best, dtype=torch.int64)
    for start, rows in blocks:
        scores = queries @ rows.T if score is None else score(queries @ rows.T)
        if exclude is not None:
            banned, places = exclude.sorted_by_class()
            edges = torch.tensor([start, start + rows.shape[0]], device=banned.device)
            a, b = torch.searchsorted(banned, edges).tolist()
            scores[exclude.example_ids[places[a:b]], banned[a:b] - start] = -torch.inf
        top, at = scores.topk(min(k, rows.shape[0]), dim=1)
        merged, merged_ids = torch.cat([best, top], 1), torch.cat([ids, at + start], 1)
        best, order = merged.topk(min(k, merged.shape[1]), dim=1)
        ids = merged_ids.gather(1, order)
    return best, ids
