"""What runs in each process: heads with parameters that are copied, cast, frozen, or given nothing."""

from __future__ import annotations

import copy
from typing import Any

import torch
from split.cases import batches, row_of
from split.heads import HEADS, WIDTH, both, optimizer_of, whole_losses
from support.properties import relative
from torch.optim.swa_utils import AveragedModel

import widehead as wh
from widehead.split import local

D = 41


def copied(mesh: Any, head: str) -> list[float]:
    """A copy and an average are heads of their own, of the same processes; a cast one goes on."""
    rank = mesh.get_local_rank()
    one, _ = both(mesh, head, D, torch.float32, True)
    twin, average = copy.deepcopy(one), AveragedModel(one)
    stepper = optimizer_of(one, "sgd")
    hidden, targets = batches(row_of("squared"), mesh.size(), 3, WIDTH, D, 0)[rank]
    before = one.weight()
    one(hidden.float(), targets).backward()
    stepper.step()
    average.update_parameters(one)
    average.update_parameters(one)
    mean = average.module.weight()
    off = [float((twin.weight() - before).abs().max()), float((mean - one.weight()).abs().max())]
    one.double()
    one.zero_grad()
    one(hidden, targets).backward()
    assert local(one.table.grad).dtype == torch.float64
    with torch.inference_mode():
        off.append(float((one.eval().scores(hidden) - hidden @ one.weight().T - one.bias()).abs().max()))
    return off


def given_nothing(mesh: Any, head: str) -> list[float]:
    """Rank 0 has examples without targets alone, rank 1 has no examples at all; then nobody has targets."""
    rank = mesh.get_local_rank()
    split, whole = both(mesh, head, D, torch.float64, False)
    some = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    off = []
    for last in ([[3], [], [5, 7]], [[], [], []]):
        parts = [(some, [[], [], []]), (some[:0], []), (2.0 * some, last)]
        targets = [wh.SparseTargets.from_lists(ids) for _, ids in parts]
        hidden = parts[rank][0].clone().requires_grad_()
        for one in (split, whole):
            one.zero_grad()
        torch.manual_seed(4 + rank)
        loss = split(hidden, targets[rank])
        loss.backward()
        expected = whole_losses(whole, [part for part, _ in parts], targets, 4)
        (sum(expected) / 3).backward()
        here = local(split.table.grad).to_dense()
        of_whole = whole.table.grad.to_dense()[split.split.first : split.split.end]
        off += [float((loss - expected[rank]).abs()), float((here - of_whole).abs().max())]
    return off


def frozen(mesh: Any, head: str) -> float:
    """A head that is not trained still gives the encoder its gradient."""
    rank = mesh.get_local_rank()
    split, whole = both(mesh, head, D, torch.float64, False)
    parts, found = batches(row_of("squared"), mesh.size(), 3, WIDTH, D, 0), []
    for one in (split, whole):
        one.requires_grad_(False)
    hidden = [part[0].clone().requires_grad_() for part in parts]
    torch.manual_seed(rank)
    split(hidden[rank], parts[rank][1]).backward()
    found.append(hidden[rank].grad.clone())
    hidden[rank].grad = None
    whole_losses(whole, hidden, [part[1] for part in parts], 0)[rank].backward()
    return relative(found[0], hidden[rank].grad)


def narrow(mesh: Any, head: str) -> list[float]:
    """In bfloat16: as near to the truth as such a head is with all rows."""
    rank = mesh.get_local_rank()
    split, truth = both(mesh, head, D, torch.bfloat16, False)
    alone = HEADS[head](WIDTH, D, dtype=torch.bfloat16)
    alone.load_weight(truth.weight())
    hidden, targets = batches(row_of("squared"), mesh.size(), 3, WIDTH, D, 0)[rank]
    losses = []
    for one in (split, alone, truth):
        torch.manual_seed(0)
        losses.append(one.eval()(hidden.to(one.dtype), targets).double())
    split.train()(hidden.bfloat16(), targets).backward()
    return [float((loss - losses[2]).abs()) for loss in losses[:2]]
