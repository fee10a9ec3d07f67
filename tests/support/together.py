"""What tests of `Together` share: a small model in float64, and its training by an optimiser each."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import widehead as wh
from support.small_head import WIDTH, data, make
from widehead.names import OPTIMIZERS
from widehead.optim import Together

EVERY = pytest.mark.parametrize("name", OPTIMIZERS)


class Model(nn.Module):
    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Linear(WIDTH, WIDTH).to(dtype)
        self.head = make(wh.losses.SphericalSoftmax(), dtype)

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        return self.head(self.encoder(x), ids)

    def weights(self) -> list[Tensor]:
        return [self.encoder.weight.detach().clone(), self.head.weight()]


def parts_of(model: Model, name: str = "newton", **options: Any) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    return torch.optim.AdamW(model.encoder.parameters(), lr=0.01), OPTIMIZERS[name](model.head, 0.05, **options)


def batch(model: Model, seed: int) -> tuple[Tensor, Tensor]:
    x, ids = data(6, seed)
    return x.to(model.head.dtype), ids


def by_hand(steps: int = 4, name: str = "newton", clip: float | None = None, passes: int = 1, **options: Any) -> Model:
    """A loop with an optimiser each."""
    model = Model()
    optimizers = parts_of(model, name, **options)
    for seed in range(steps):
        for part in range(passes):
            model(*batch(model, passes * seed + part)).backward()
        if clip is not None:
            wh.optim.clip_grad_norm_(model.encoder.parameters(), model.head, clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return model


def same(model: Model, other: Model, rtol: float = 0.0) -> bool:
    return all(
        torch.allclose(a, b, rtol=rtol, atol=1e-12 if rtol else 0.0)
        for a, b in zip(model.weights(), other.weights(), strict=True)
    )


# -- states and copies -------------------------------------------------------------------------------------------


def trained(model: Model, optimizer: Together, first: int, last: int) -> None:
    for seed in range(first, last):
        model(*batch(model, seed)).backward()
        optimizer.step()
        optimizer.zero_grad()
