"""What runs in each process: `loss_and_gradient` of a head whose rows are split, beside forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from split.cases import OPTIMIZERS, batches, row_of

import widehead as wh

KINDS: dict[str, dict[str, Any]] = {
    "float64": {"dtype": torch.float64},
    "float32, many": {"m": 40},
    "bfloat16": {"storage_dtype": torch.bfloat16},
    "bias": {"bias": True},
}
RESTS: dict[str, Callable[[wh.ExactHead], Any]] = {
    "eval": wh.ExactHead.eval,
    "frozen": lambda head: head.requires_grad_(False),
}


def by_autograd(head: wh.ExactHead, hidden: torch.Tensor, targets: Any, **options: Any) -> tuple[Any, Any]:
    """The twin."""
    hidden = hidden.detach().requires_grad_()
    loss = head(hidden, targets, **options)
    loss.backward()
    return loss.detach(), hidden.grad


def made(mesh: Any, loss: str, dtype: torch.dtype = torch.float32, **options: Any) -> wh.ExactHead:
    torch.manual_seed(5)
    return wh.ExactHead(6, 37, row_of(loss).make(), mesh=mesh, dtype=dtype, **options)


def trained(mesh: Any, loss: str, optimizer: str, kind: str, passes: int) -> list[bool]:
    """Whether losses, gradients and, in the end, W are the same to the last bit, with so many passes a step."""
    options = dict(KINDS[kind])
    rank, m = mesh.get_local_rank(), options.pop("m", 3)
    head, twin = (made(mesh, loss, **options) for _ in range(2))
    mine, theirs = OPTIMIZERS[optimizer](head), OPTIMIZERS[optimizer](twin)
    same = []
    for step in range(8):
        for part in range(passes):
            hidden, targets = batches(row_of(loss), mesh.size(), m, 6, 37, 10 * step + part)[rank]
            given = hidden.to(head.dtype), targets
            found, expected = head.loss_and_gradient(*given), by_autograd(twin, *given)
            same += [torch.equal(a, b) for a, b in zip(found, expected, strict=True)]
        same.append(torch.equal(head.grad_norm(), twin.grad_norm()))
        for stepper in (mine, theirs):
            torch.manual_seed(step)  # rows in bfloat16 are rounded at random
            stepper.step()
    same.append(torch.equal(head.weight(), twin.weight()))
    return same


def at_rest(mesh: Any, rest: str) -> list[bool]:
    """The same of a head that does not learn, which keeps no step."""
    head = made(mesh, "squared")
    twin = made(mesh, "squared")
    RESTS[rest](head)
    RESTS[rest](twin)
    hidden, targets = batches(row_of("squared"), mesh.size(), 3, 6, 37, 0)[mesh.get_local_rank()]
    found, expected = head.loss_and_gradient(hidden.float(), targets), by_autograd(twin, hidden.float(), targets)
    return [*(torch.equal(a, b) for a, b in zip(found, expected, strict=True)), head.pending_gradient() is None]
