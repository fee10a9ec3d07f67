"""Outputs of all classes, each process of its own rows, for the examples of all processes.

Letters (docs/notation.md): P processes, m examples of this one, M of all, D classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from widehead.split.processes import Formed, RowSplit
from widehead.split.reading import gather_batch, no_targets
from widehead.targets import SparseTargets


def best_of_all(
    split: RowSplit,
    rows: Formed,
    hidden: Tensor,
    k: int,
    banned: SparseTargets | None,
    find: Callable[[Tensor, int, SparseTargets], tuple[Tensor, Tensor]],
) -> tuple[Tensor, Tensor]:
    """(m, k) the best scores and their classes: each process finds those of its rows, and all are compared.

    Args:
        hidden: (m, d) of this process.
        find: (H (M, d), k, banned) → the best k of the rows here, with ids of classes.
    """
    given = no_targets(hidden) if banned is None else banned
    batch = gather_batch(split, rows, hidden, given, what="top_k")
    return best_of_found(
        split, batch.hidden, k, lambda own, count: find(own, count, batch.targets), batch.own(split.rank)
    )


def best_of_found(
    split: RowSplit, joint: Tensor, k: int, find: Callable[[Tensor, int], tuple[Tensor, Tensor]], wanted: slice
) -> tuple[Tensor, Tensor]:
    """The same of hidden layers that all processes have, (M, d), for the ``wanted`` among them."""
    scores = joint.new_full((len(joint), k), -torch.inf)
    ids = torch.zeros_like(scores, dtype=torch.int64)
    if len(split.rows):
        found, places = find(joint, min(k, len(split.rows)))
        scores[:, : found.shape[1]], ids[:, : found.shape[1]] = found, places
    told = [split.all_rows(part, [len(joint)] * split.size, what) for part, what in ((scores, "scores"), (ids, "ids"))]
    candidates, classes = (part.view(split.size, len(joint), k)[:, wanted].transpose(0, 1).flatten(1) for part in told)
    best, order = candidates.topk(k, dim=1)
    return best, classes.gather(1, order)


def outputs_of_all(split: RowSplit, rows: Formed, hidden: Tensor, read: Callable[[Tensor], Tensor]) -> Tensor:
    """(m, D) of ``hidden`` (m, d): ``read`` gives (M, n) of (M, d) and the n rows here."""
    batch = gather_batch(split, rows, hidden, no_targets(hidden), what="scores")
    here = read(batch.hidden).T if split.rows else hidden.new_empty(0, len(batch.hidden))
    return split.all_rows(here, split.counts, "scores")[:, batch.own(split.rank)].T
