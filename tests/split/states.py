"""What runs in each process: states that are saved by some processes and loaded by others."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from split.cases import OPTIMIZERS, batches, row_of
from torch import Tensor

import widehead as wh

D, WIDTH, LOSS = 41, 6, "taylor softmax"


def made(mesh: Any, *, momentum: bool = False, dtype: torch.dtype = torch.float32) -> tuple[wh.ExactHead, Any]:
    torch.manual_seed(7)
    head = wh.ExactHead(WIDTH, D, row_of(LOSS).make(), bias=True, mesh=mesh, dtype=dtype)
    return head, OPTIMIZERS["momentum" if momentum else "newton"](head)


def train(head: wh.ExactHead, optimizer: Any, parts_of: int, rank: int | None, steps: range) -> None:
    """Of ``parts_of`` batches a step, one in each process, or all of them in the only one."""
    for step in steps:
        parts = batches(row_of(LOSS), parts_of, 3, WIDTH, D, step)
        mine = parts if rank is None else [parts[rank]]
        for hidden, targets in mine:
            (head(hidden.to(head.dtype), targets) / len(mine)).backward()
        optimizer.step()


def saved(mesh: Any, folder: str, momentum: bool, steps: int) -> tuple[Tensor, Tensor | None]:
    """W and M after some steps, and a checkpoint of them."""
    head, optimizer = made(mesh, momentum=momentum)
    train(head, optimizer, mesh.size(), mesh.get_local_rank(), range(steps))
    dcp.save({"head": head.state_dict()}, checkpoint_id=folder, process_group=mesh.get_group())
    audit = head.audit()
    assert max(audit.gram, audit.column_sum) < 2e-6, audit
    return head.weight(), head.weights.momentum() if momentum else None


def loaded(mesh: Any, folder: str, momentum: bool, again: str) -> tuple[Tensor, Tensor | None]:
    """W and M of the checkpoint, which is saved once more; then some steps, after which Q is W's."""
    head, optimizer = made(mesh, momentum=momentum)
    with torch.no_grad():
        head.load_weight(torch.zeros(D, WIDTH), torch.zeros(D))
    state = {"head": head.state_dict()}
    dcp.load(state, checkpoint_id=folder, process_group=mesh.get_group())
    head.load_state_dict(state["head"])
    weight, beside = head.weight(), head.weights.momentum() if momentum else None
    dcp.save({"head": head.state_dict()}, checkpoint_id=again, process_group=mesh.get_group())
    train(head, optimizer, mesh.size(), mesh.get_local_rank(), range(20, 30))
    audit = head.audit()
    assert max(audit.gram, audit.column_sum) < 2e-6, audit
    return weight, beside


def taken_from_one(mesh: Any, state: dict[str, Tensor], expected: Tensor) -> float:
    """A state of a head that has all rows, in the middle of a segment."""
    head, optimizer = made(mesh)
    head.load_state_dict(state)
    off = float((head.weight() - expected).abs().max())
    train(head, optimizer, mesh.size(), mesh.get_local_rank(), range(20, 30))
    return max(off, head.audit().gram)


def stale(mesh: Any) -> str:
    """A state whose rows were trained on since."""
    head, optimizer = made(mesh)
    state = head.state_dict()
    train(head, optimizer, mesh.size(), mesh.get_local_rank(), range(3))
    try:
        head.load_state_dict(state)
    except RuntimeError as error:
        return str(error)
    return ""


def narrow(mesh: Any) -> float:
    """Rows in bfloat16 with a shift, which a state adds to them: Q and w̄ are those of what is stored then."""
    torch.manual_seed(7)
    head = wh.ExactHead(WIDTH, D, row_of(LOSS).make(), bias=True, mesh=mesh, storage_dtype=torch.bfloat16)
    optimizer = wh.optim.Newton(head)
    train(head, optimizer, mesh.size(), mesh.get_local_rank(), range(12))
    assert bool(head.weights.small.shift.any())
    head.state_dict()
    audit = head.audit()
    return max(audit.gram, audit.column_sum)
