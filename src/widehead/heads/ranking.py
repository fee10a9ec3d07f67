"""The k best classes while W streams by in blocks; shared by every head that can read its weights in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from widehead.targets import SparseTargets

__all__ = ["streaming_top_k"]


def streaming_top_k(
    hidden: Tensor,
    blocks: Iterable[tuple[int, Tensor]],
    k: int,
    score: Callable[[Tensor], Tensor],
    exclude: SparseTargets | None,
) -> tuple[Tensor, Tensor]:
    """(scores (m, k), class ids (m, k)), best first, of ``score(hidden @ block.T)`` over all blocks.

    Memory is one block of scores (m, block) whatever the number of classes. Excluded classes score −inf.
    """
    m = hidden.shape[0]
    best = hidden.new_full((m, 0), -torch.inf)
    ids = torch.empty(m, 0, dtype=torch.int64, device=hidden.device)
    banned, banned_examples = _sorted_by_class(exclude)
    for start, rows in blocks:
        scores = score(hidden @ rows.T)
        if banned is not None and banned_examples is not None:
            edges = torch.tensor([start, start + rows.shape[0]], device=banned.device)
            a, b = torch.searchsorted(banned, edges).tolist()
            scores[banned_examples[a:b], banned[a:b] - start] = -torch.inf
        top, at = scores.topk(min(k, rows.shape[0]), dim=1)
        merged, merged_ids = torch.cat([best, top], 1), torch.cat([ids, at + start], 1)
        best, order = merged.topk(min(k, merged.shape[1]), dim=1)
        ids = merged_ids.gather(1, order)
    return best, ids


def _sorted_by_class(exclude: SparseTargets | None) -> tuple[Tensor | None, Tensor | None]:
    if exclude is None:
        return None, None
    ids, order = torch.sort(exclude.class_ids)
    return ids, exclude.example_ids[order]
