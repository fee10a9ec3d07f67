"""Rows of a table that is split over processes, read by all of them in autograd's graph.

Letters: P processes, N ids of all of them, n ids that rank 0 drew, d width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding

from widehead.heads.graph import differentiable_once
from widehead.split import Form, RowSplit, check_alike, gradient_of_rows, local


class JointRows(NamedTuple):
    """Rows that were asked for.

    Attributes:
        ids: (N,) of which classes: those of all processes, or of this one.
        begin: which of them is the first that this process asked for.
        drawn: (n,) further ones, that rank 0 asked for.
        rows: (N + n, d) of both.
    """

    ids: Tensor
    begin: int
    drawn: Tensor
    rows: Tensor


def joint_rows(
    split: RowSplit, table: Tensor, own: Tensor, drawn: Tensor, *, of_all: bool = False, sparse: bool = False
) -> JointRows:
    """Rows of all processes, with a gradient: two messages of the rows, each once, and one of ids.

    Args:
        own: (n,) ids that this process asks for. drawn: (n,) ids, of which those of rank 0 are read by all.
        of_all: whether each wants what all ask for.
        sparse: whether the gradient of the rows here is sparse.
    """
    learns = torch.is_grad_enabled() and table.requires_grad
    given = split.meet("reading rows", own.numel(), drawn.numel(), learns, rows=Form.of(table))
    counts, draws, learning, _ = (list(column) for column in zip(*given, strict=True))
    check_alike(learning)
    told = torch.cat([own, drawn]) if split.rank == 0 else own
    every = split.all_rows(told, [counts[0] + draws[0], *counts[1:]], "ids")
    first, drawn, rest = every.split([counts[0], draws[0], sum(counts[1:])])
    ids, begin = torch.cat([first, rest]), sum(counts[: split.rank])
    unique, places = torch.cat([ids, drawn]).unique(return_inverse=True)
    if not of_all:
        ids, places = own, torch.cat([places[begin : begin + len(own)], places[len(ids) :]])
    rows = _Rows.apply(table, split, unique, sparse)
    return JointRows(ids, begin if of_all else 0, drawn, embedding(places, rows))


class _Rows(torch.autograd.Function):
    """(table, split, ids (k,) rising, the same in all processes, whether gradients are sparse) → rows (k, d)."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, split: RowSplit, ids: Tensor, sparse: bool) -> Tensor:
        ctx.table, ctx.split, ctx.sparse = table.detach(), split, sparse
        bounds = torch.searchsorted(ids, ids.new_tensor([split.first, split.end])).tolist()
        ctx.here = slice(*bounds)
        ctx.ids = ids[ctx.here] - split.first
        mine = local(table)
        rows = mine.new_zeros(len(ids), mine.shape[1])
        rows[ctx.here] = mine[ctx.ids]
        return split.sum_(rows, "rows")

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, by_rows: Tensor) -> Any:
        """Of the mean of all processes' losses, as torch averages the gradients of encoders."""
        split = ctx.split
        split.meet("backward", rows=Form.of(ctx.table))
        found = split.sum_(by_rows.clone(), "row gradients").div_(split.size)[ctx.here]
        return gradient_of_rows(ctx.table, ctx.ids, found, sparse=ctx.sparse), None, None, None
