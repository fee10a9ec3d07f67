"""Parameters whose rows are split over processes: DTensors, `Shard(0)`.

So torch's optimisers keep their states likewise, torch's clipping finds the norm of the whole, and
torch.distributed.checkpoint takes both.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from widehead.split.processes import Form, Formed, RowSplit


def first_table(split: RowSplit, form: Formed, std: float, filled: int) -> nn.Parameter:
    """Normal numbers in the first ``filled`` columns, zeros in the others."""
    values = torch.zeros(len(split.rows), form.width, dtype=form.dtype, device=form.device)
    draw_table(split, values, std, filled)
    return nn.Parameter(split.tensor(values))


def draw_table(split: RowSplit, values: Tensor, std: float, filled: int) -> None:
    """The same into rows that are there."""
    for start, made in split.drawn(Form(filled, values.dtype, values.device), std):
        values[start : start + len(made), :filled] = made


def is_split(table: Tensor) -> bool:
    """Whether its rows are split over processes, so that it is a DTensor."""
    return hasattr(table, "to_local")


@torch.no_grad()
def local(table: Any) -> Tensor:
    """The rows here, without a gradient; of a tensor that is not split all of it."""
    found: Tensor = table.to_local() if is_split(table) else table.detach()
    return found


def as_split(split: RowSplit, table: Tensor, given: Any) -> Any:
    """A state's rows, split over other processes or not at all, as ``table`` is split; of another shape as they are."""
    part = split.part_of(given)
    if part is given and part.shape[:1] == (split.num_rows,):
        part = part[split.first : split.end]
    return split.tensor(part.to(table.device)) if given.shape == table.shape else part


def gradient_of_rows(table: Any, ids: Tensor, rows: Tensor, *, sparse: bool) -> Tensor:
    """The gradient of a split table that has ``rows`` (k, d) for ``ids`` (k,), rising, of those here, and no others."""
    mine = local(table)
    if sparse:
        part = torch.sparse_coo_tensor(ids[None], rows, mine.shape, is_coalesced=True, check_invariants=False)
    else:
        part = torch.zeros_like(mine).index_copy_(0, ids, rows)
    return like(table, part)


def like(table: Any, part: Tensor) -> Tensor:
    """A DTensor split as ``table`` is, with ``part`` as what is here, which may be sparse."""
    from torch.distributed.tensor import DTensor  # it takes long to import

    from widehead.split.gradient import SparseRows

    return SparseRows.of(part, table._spec) if part.is_sparse else DTensor(part, table._spec, requires_grad=False)
