"""A small exact head and badly scaled batches for it, shared by the tests of optimisers."""

from __future__ import annotations

import torch

import widehead as wh

D, WIDTH = 60, 8


def make(loss: wh.losses.Loss | None = None, dtype: torch.dtype = torch.float64) -> wh.ExactHead:
    torch.manual_seed(0)
    return wh.ExactHead(WIDTH, D, loss or wh.losses.SquaredError(), dtype=dtype)


def data(m: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(m, WIDTH, generator=generator, dtype=torch.float64) * torch.logspace(0, -2, WIDTH).double()
    return hidden, torch.randint(0, D, (m, 2), generator=generator)


def multi_hot(ids: torch.Tensor) -> torch.Tensor:
    return torch.zeros(ids.shape[0], D, dtype=torch.float64).scatter_add_(1, ids, torch.ones(ids.shape).double())
