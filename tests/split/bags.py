"""What runs in each process: bags whose rows are split, beside an nn.EmbeddingBag that has all rows and examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from split.failures import heard
from support.properties import relative
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

import widehead as wh
from widehead.errors import ProcessesError
from widehead.split import local

WIDTH = 5
STEPPERS: dict[str, Callable[..., Any]] = {
    "adam": lambda parameters: wh.optim.RowAdam(parameters, lr=0.02),
    "adagrad": lambda parameters: wh.optim.RowAdagrad(parameters, lr=0.1),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "dense": lambda parameters: torch.optim.AdamW(parameters, lr=0.02, weight_decay=0.1),
}


def bags_of(rank: int, step: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, some twice, offsets and weights of another number of bags on each process, some of them empty."""
    generator = torch.Generator().manual_seed(100 * step + rank)
    lengths = torch.randint(0, 4, (2 + (rank + step) % 3,), generator=generator)
    ids = torch.randint(0, count, (int(lengths.sum()),), generator=generator)
    weights = torch.randn(len(ids), generator=generator, dtype=torch.float64)
    return ids, lengths.cumsum(0) - lengths, weights


def trained(mesh: Any, optimizer: str, mode: str, count: int, weighted: bool) -> list[float]:
    size, rank, sparse = mesh.size(), mesh.get_local_rank(), optimizer != "dense"
    torch.manual_seed(3)
    whole = nn.EmbeddingBag(count, WIDTH, mode=mode, sparse=sparse, dtype=torch.float64)
    split = wh.RowSplitBag(count, WIDTH, mesh=mesh, mode=mode, sparse=sparse, dtype=torch.float64)
    split.load_state_dict(whole.state_dict())
    layers = [nn.Linear(WIDTH, 3, dtype=torch.float64) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    parallel = nn.parallel.DistributedDataParallel(layers[0], process_group=mesh.get_group())
    steppers = [STEPPERS[optimizer](one.parameters()) for one in (split, whole)]
    steppers += [torch.optim.SGD(layer.parameters(), lr=0.05) for layer in layers]
    off = [0.0]
    for step in range(12):
        every = [bags_of(r, step, count) for r in range(size)]
        arguments = [(ids, offsets, weights if weighted else None) for ids, offsets, weights in every]
        for stepper in steppers:
            stepper.zero_grad()
        sums = split(*arguments[rank])
        parallel(sums).square().mean().backward()
        expected = [whole(*one) for one in arguments]
        (sum(layers[1](one).square().mean() for one in expected) / size).backward()
        norms = [
            wh.optim.clip_grad_norm_([*layer.parameters(), *one.parameters()], [], 0.2)
            for layer, one in zip(layers, (split, whole), strict=True)
        ]
        off += [float((sums - expected[rank]).detach().abs().max()), relative(*norms)]
        for stepper in steppers:
            stepper.step()
    rows = whole.weight.detach()[split.split.first : split.split.end]
    off.append(float((local(split.weight) - rows).abs().max()) if len(rows) else 0.0)
    return [*off, relative(layers[0].weight.detach(), layers[1].weight.detach())]


def made(mesh: Any, count: int = 23) -> tuple[Any, Any]:
    torch.manual_seed(8)
    bag = nn.EmbeddingBag(count, WIDTH, mode="sum", sparse=True) if mesh is None else None
    bag = wh.RowSplitBag(count, WIDTH, mesh=mesh) if bag is None else bag
    return bag, STEPPERS["adam"](bag.parameters())


def numbers(bag: Any, stepper: Any) -> list[Tensor]:
    state = stepper.state[bag.weight]
    parts = [bag.weight.detach(), state["exp_avg"], state["exp_avg_sq"]]
    return [(part.full_tensor() if hasattr(part, "full_tensor") else part).clone() for part in parts]


def step_of(bag: Any, stepper: Any, rank: int, step: int) -> None:
    ids, offsets, weights = bags_of(rank, step, bag.num_embeddings)
    stepper.zero_grad()
    bag(ids, offsets, weights.float()).square().sum().backward()
    stepper.step()


def saved(mesh: Any, folder: str) -> list[Tensor]:
    bag, stepper = made(mesh)
    for step in range(4):
        step_of(bag, stepper, 0 if mesh is None else mesh.get_local_rank(), step)
    write(mesh, bag, stepper, folder)
    return numbers(bag, stepper)


def write(mesh: Any, bag: Any, stepper: Any, folder: str) -> None:
    group = {} if mesh is None else {"process_group": mesh.get_group()}
    dcp.save(dict(zip("ab", get_state_dict(bag, stepper), strict=True)), checkpoint_id=folder, **group)


def loaded(mesh: Any, folder: str, again: str) -> list[Tensor]:
    bag, stepper = made(mesh)
    parts = dict(zip("ab", get_state_dict(bag, stepper), strict=True))
    dcp.load(parts, checkpoint_id=folder, **({} if mesh is None else {"process_group": mesh.get_group()}))
    set_state_dict(bag, stepper, model_state_dict=parts["a"], optim_state_dict=parts["b"])
    write(mesh, bag, stepper, again)
    return numbers(bag, stepper)


def drawn(mesh: Any) -> list[Tensor]:
    torch.manual_seed(40 + mesh.get_local_rank())
    bag = wh.RowSplitBag(9001, 3, mesh=mesh)
    first = bag.weight.full_tensor().detach().clone()
    bag.reset_parameters()
    return [first, bag.weight.full_tensor().detach()]


def bytes_of_a_step(mesh: Any, count: int) -> dict[str, int]:
    bag, _ = made(mesh, count)
    bag.split.sent.clear()
    bag(torch.arange(12).view(4, 3)).sum().backward()
    return dict(bag.split.sent)


def wrong(mesh: Any, call: str) -> tuple[str, bool]:
    """Of rank 1 alone; then all go on."""
    is_wrong, (bag, stepper) = mesh.get_local_rank() == 1, made(mesh)
    before = bag.weight.full_tensor()
    ids = torch.tensor([1, 2, 3])
    calls = {
        "id": lambda: bag(ids + (20 if is_wrong else 0), ids[:1] - 1),
        "negative": lambda: bag(ids - (2 if is_wrong else 0), ids[:1] - 1),
        "type": lambda: bag(ids.double() if is_wrong else ids, ids[:1] - 1),
        "offsets": lambda: bag(ids, ids[:1] - (0 if is_wrong else 1)),
        "weights": lambda: bag(ids, ids[:1] - 1, torch.ones(2 if is_wrong else 3)),
        "state": lambda: (bag.load_state_dict({"weight": torch.zeros(22 + (not is_wrong), WIDTH)}), bag(ids[None])),
        "another": lambda: bag.reset_parameters() if is_wrong else bag(ids, ids[:1] - 1),
        "frozen": lambda: bag.requires_grad_(not is_wrong)(ids, ids[:1] - 1),
    }
    message = heard(calls[call], Exception if is_wrong else ProcessesError)
    same = torch.equal(bag.weight.full_tensor(), before) or call == "state"
    step_of(bag.requires_grad_(True), stepper, mesh.get_local_rank(), 0)
    return message, same
