"""What runs in each process: states that are saved by some processes and loaded by others."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from split.cases import OPTIMIZERS, batches, row_of
from torch import Tensor, distributed
from torch.distributed.checkpoint import filesystem
from torch.distributed.device_mesh import init_device_mesh

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


def saved_meanwhile(mesh: Any, folder: str) -> tuple[Tensor, None]:
    """W when a save began that went on while the head was trained further, by messages of its own."""
    head, optimizer = made(mesh)
    train(head, optimizer, mesh.size(), mesh.get_local_rank(), range(12))
    state, weight = head.state_dict(), head.weight()
    group = distributed.new_group(list(range(mesh.size())))
    saving = dcp.async_save({"head": state}, checkpoint_id=folder, process_group=group)
    train(head, optimizer, mesh.size(), mesh.get_local_rank(), range(12, 24))
    saving.result()
    assert not torch.equal(head.weight(), weight)
    return weight, None


def die_in_a_save(rank: int, size: int, place: str, folder: str, before: bool, opened: bool) -> None:
    """Rank 1 dies as it has ``opened`` its file, or is about to; perhaps there was a save to the folder ``before``."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=size)
    mesh = init_device_mesh("cpu", (size,))
    head, optimizer = made(mesh)
    if before:
        train(head, optimizer, size, rank, range(12))
        dcp.save({"head": head.state_dict()}, checkpoint_id=folder)
    train(head, optimizer, size, rank, range(12, 24))
    if rank == 1:
        owner, name = (filesystem, "_write_item") if opened else (filesystem.FileSystemWriter, "write_data")
        setattr(owner, name, lambda *given: os._exit(9))
    try:
        dcp.save({"head": head.state_dict()}, checkpoint_id=folder)
    except BaseException:  # noqa: BLE001 - torch's own, of a process that is gone
        os._exit(3)


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
