"""A small exact head that learnt a little."""

from __future__ import annotations

from typing import Any

import torch

import widehead as wh

D, WIDTH = 400, 7


def trained(steps: int, seed: int = 0, momentum: float = 0.0, **options: Any) -> wh.ExactHead:
    torch.manual_seed(0)
    head = wh.ExactHead(WIDTH, D, wh.losses.SphericalSoftmax(), **options)
    train(head, steps, seed, momentum)
    return head


def train(head: wh.ExactHead, steps: int, seed: int = 0, momentum: float = 0.0) -> None:
    optimizer = wh.optim.SGD(head, lr=0.3, momentum=momentum)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        hidden = torch.randn(16, WIDTH, generator=generator, dtype=torch.float64).to(head.dtype)
        head(hidden, torch.randint(0, D, (16,), generator=generator)).backward()
        optimizer.step()


def own_copy(state: dict[str, Any]) -> dict[str, Any]:
    return {name: part.clone() for name, part in state.items()}
