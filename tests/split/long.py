"""Many steps of a head whose rows are split, in each process, and those of its dense twin, in one."""

from __future__ import annotations

import functools
from typing import Any

import torch
from split.cases import row_of
from support.optimizers import KINDS, PLAIN, Kind, partials
from support.properties import Batch, batch, relative
from torch import Tensor

import widehead as wh

OPTIMIZERS = {kind.name: kind for kind in (*PLAIN, *KINDS)}
CLASSES, WIDTH = 61, 8
SIZES = (9, 6, 19, 1, 9)  # examples of a batch, in turn: fewer than d and more, and fewer than processes


@functools.lru_cache(maxsize=1)
def _batches(loss: str, steps: int) -> list[Batch]:
    """Those of all processes; hidden layers are numbers of float32, in float64."""
    generator = torch.Generator().manual_seed(7)
    made = [batch(row_of(loss), generator, SIZES[t % len(SIZES)], WIDTH, CLASSES, dominant=3.0) for t in range(steps)]
    return [Batch(one.hidden.float().double(), one.ids, one.values) for one in made]


def _first_weight() -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(CLASSES, WIDTH, generator=generator).div(WIDTH**0.5).double()


def _part(of_all: Batch, own: slice) -> tuple[Tensor, wh.SparseTargets]:
    values = None if of_all.values is None else of_all.values[own]
    return of_all.hidden[own], wh.SparseTargets.from_lists(of_all.ids[own], values)


def split_weight(mesh: Any, loss: str, optimizer: str, dtype: torch.dtype, steps: int) -> Tensor:
    """(D, d) W after the steps: each process has its part of every batch, and what is trained is the batch's mean."""
    size, rank = mesh.size(), mesh.get_local_rank()
    head = wh.ExactHead(WIDTH, CLASSES, row_of(loss).make(), mesh=mesh, dtype=dtype)
    head.load_weight(_first_weight())
    stepper = OPTIMIZERS[optimizer].make(head)
    for of_all in _batches(loss, steps):
        m = len(of_all.ids)
        hidden, targets = _part(of_all, slice(rank * m // size, (rank + 1) * m // size))
        counted = max(head.num_counted(wh.SparseTargets.from_lists(of_all.ids, of_all.values)), 1)
        (head(hidden.to(dtype), targets, reduction="sum") * (size / counted)).backward()
        stepper.step()
    return head.weight()


def dense_weight(loss: str, optimizer: str, steps: int) -> Tensor:
    """(D, d) W of the dense twin after the same steps."""
    kind: Kind = OPTIMIZERS[optimizer]
    twin = kind.twin(_first_weight())
    for of_all in _batches(loss, steps):
        twin.step(of_all.hidden, *partials(row_of(loss), twin.weight, of_all))
    return twin.weight


def far(found: list[Tensor], expected: Tensor) -> float:
    """How far W is from the twin's in the process where it is farthest."""
    return max(relative(one, expected) for one in found)
