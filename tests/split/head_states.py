"""What runs in each process: states of heads with parameters and of their optimisers, and clipping by torch."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from split.cases import batches, row_of
from split.heads import HEADS, WIDTH, both, optimizer_of, whole_losses
from torch import Tensor
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

import widehead as wh
from widehead.split import local

D = 41


def made(mesh: Any, head: str, optimizer: str) -> tuple[Any, Any]:
    torch.manual_seed(7)
    options = {} if mesh is None else {"mesh": mesh}
    one = HEADS[head](WIDTH, D, bias=True, **options)
    return one, optimizer_of(one, optimizer)


def train(head: Any, optimizer: Any, size: int, rank: int, steps: range) -> None:
    for step in steps:
        hidden, targets = batches(row_of("squared"), size, 3, WIDTH, D, step)[rank]
        optimizer.zero_grad()
        head(hidden.float(), targets).backward()
        optimizer.step()


def whole(part: Any) -> Tensor:
    return part.full_tensor() if hasattr(part, "full_tensor") else part


def numbers(head: Any, optimizer: Any) -> list[Tensor]:
    """W, the bias, and all tensors of the optimiser."""
    state = optimizer.state[head.table]
    tensors = [whole(state[name]) for name in sorted(state) if isinstance(state[name], Tensor)]
    steps = [torch.tensor(float(state["step"]))] if "step" in state else []
    return [head.weight(), head.bias(), *(one for one in tensors if one.ndim), *steps]


def saved(mesh: Any, head: str, optimizer: str, folder: str) -> list[Tensor]:
    one, stepper = made(mesh, head, optimizer)
    train(one, stepper, mesh.size(), mesh.get_local_rank(), range(6))
    state, of_optimizer = get_state_dict(one, stepper)
    dcp.save({"head": state, "optimizer": of_optimizer}, checkpoint_id=folder, process_group=mesh.get_group())
    return numbers(one, stepper)


def loaded(mesh: Any, head: str, optimizer: str, folder: str, again: str) -> list[Tensor]:
    """In other processes, or in one without a mesh; saved once more, and trained on."""
    one, stepper = made(mesh, head, optimizer)
    group = {} if mesh is None else {"process_group": mesh.get_group()}
    parts = dict(zip(("head", "optimizer"), get_state_dict(one, stepper), strict=True))
    dcp.load(parts, checkpoint_id=folder, **group)
    set_state_dict(one, stepper, model_state_dict=parts["head"], optim_state_dict=parts["optimizer"])
    found = [part.clone() for part in numbers(one, stepper)]
    parts = dict(zip(("head", "optimizer"), get_state_dict(one, stepper), strict=True))
    dcp.save(parts, checkpoint_id=again, **group)
    train(one, stepper, 1 if mesh is None else mesh.size(), 0 if mesh is None else mesh.get_local_rank(), range(2))
    assert not torch.equal(one.weight(), found[0])
    return found


def taken_apart(mesh: Any, head: str, state: dict[str, Tensor]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """A state of a head with all rows, by load_state_dict; and what a head with all rows makes of that of this one."""
    one, other = made(mesh, head, "sgd")[0], made(None, head, "sgd")[0]
    one.load_state_dict(state)
    other.load_state_dict(one.state_dict())
    return one.weight(), other.weight(), {name: whole(part) for name, part in one.state_dict().items()}


def clipped_by_torch(mesh: Any, head: str, order: float) -> list[float]:
    """The norm that torch finds, beside that of all rows, and how far gradients are apart then: of two passes."""
    rank, size = mesh.get_local_rank(), mesh.size()
    split, other = both(mesh, head, D, torch.float64, False)
    for one in (split, other):
        with torch.no_grad():
            one.table.mul_(3.0)
    other.sparse = False  # torch clips no sparse gradients
    for seed in range(2):  # of which the second is two losses in one graph
        parts = batches(row_of("squared"), size, 3, WIDTH, D, seed)
        torch.manual_seed(seed)
        sum(split(*parts[rank]) for _ in range(1 + seed)).backward()
        torch.manual_seed(seed)
        expected = [sum(whole_losses(other, *zip(*parts, strict=True), None)) for _ in range(1 + seed)]
        (sum(expected) / size).backward()
    norms = [torch.nn.utils.clip_grad_norm_(one.parameters(), 0.01, order) for one in (split, other)]
    off = local(split.table.grad).to_dense() - other.table.grad[split.split.first : split.split.end]
    return [float(whole(norms[0]) / norms[1] - 1.0), float(off.abs().max())]


def scaled(mesh: Any, head: str) -> tuple[bool, float]:
    """An infinity in the gradient of rank 1's rows alone: no process makes the step; the next is that of no scaler."""
    pair = [both(mesh, head, D, torch.float32, False)[0] for _ in range(2)]
    scaler = torch.amp.GradScaler("cpu")
    optimizers = [optimizer_of(one, "adam") for one in pair]
    batch, before, kept = batches(row_of("squared"), mesh.size(), 3, WIDTH, D, 0)[mesh.get_local_rank()], None, False
    for step in range(2):
        for one, optimizer, scale in zip(pair, optimizers, (scaler.scale, lambda loss: loss), strict=True):
            optimizer.zero_grad()
            torch.manual_seed(step)
            scale(one(batch[0].float(), batch[1])).backward()
        before = pair[0].weight()
        if step == 0:
            here = local(pair[0].table.grad)
            if mesh.get_local_rank() == 1:
                (here._values() if here.is_sparse else here)[0] = torch.inf
        else:
            optimizers[1].step()
        scaler.step(optimizers[0])
        scaler.update()
        kept = kept or torch.equal(pair[0].weight(), before)
    return kept, float((pair[0].weight() - pair[1].weight()).abs().max())


def drawn(mesh: Any, head: str) -> tuple[Tensor, Tensor, bool]:
    """First weights, and those drawn anew."""
    torch.manual_seed(3 + mesh.get_local_rank())
    one = HEADS[head](WIDTH, 9001, bias=True, mesh=mesh)
    first = one.weight()
    torch.manual_seed(8 + mesh.get_local_rank())
    one.reset_parameters()
    return first, one.weight(), bool((one.bias() == 0).all())


def bytes_of_a_step(mesh: Any, head: str, classes: int) -> dict[str, int]:
    torch.manual_seed(0)
    options = {"sampler": "uniform"} if "sampled" in head else {}
    kind = {"full": wh.FullSoftmaxHead, "sampled": wh.SampledSoftmaxHead}[head]
    one = kind(8, classes, mesh=mesh, **options, **({"negatives": 7} if options else {}))
    one.split.sent.clear()
    for step in range(3):
        hidden, targets = batches(row_of("squared"), mesh.size(), 5, 8, 300, step)[mesh.get_local_rank()]
        one(hidden.float().requires_grad_(), targets).backward()
    return dict(one.split.sent)


def clipped_with_fully_shard(mesh: Any) -> list[float]:
    """An encoder under FSDP2, on a mesh of its own, and a head, clipped by one norm."""
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import fully_shard

    rank, size = mesh.get_local_rank(), mesh.size()
    split, other = both(mesh, "sampled", D, torch.float64, False)
    encoders = []
    for _ in range(2):
        torch.manual_seed(3)
        encoders.append(torch.nn.Linear(WIDTH, WIDTH, dtype=torch.float64))
    fully_shard(encoders[0], mesh=DeviceMesh.from_group(mesh.get_group(), "cpu", mesh_dim_names=("data",)))
    parts = batches(row_of("squared"), size, 3, WIDTH, D, 0)
    torch.manual_seed(0)
    split(encoders[0](parts[rank][0]), parts[rank][1]).backward()
    torch.manual_seed(0)
    losses = whole_losses(other, [encoders[1](part[0]) for part in parts], [part[1] for part in parts], 0)
    (sum(losses) / size).backward()
    norms = [
        wh.optim.clip_grad_norm_([*encoder.parameters(), *head.parameters()], [], 0.01)
        for encoder, head in zip(encoders, (split, other), strict=True)
    ]
    off = whole(encoders[0].weight.grad) - encoders[1].weight.grad
    return [float(norms[0] / norms[1] - 1.0), float(off.abs().max())]
