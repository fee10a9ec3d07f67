"""A small model with an exact head, its data, and the loop by hand that trainers of other people must equal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import widehead as wh

WIDTH, D, EXAMPLES, BATCH = 8, 60, 48, 8


class Examples(Dataset[dict[str, Tensor]]):
    """Inputs (5,) and a class id, by name."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        self.x = torch.randn(EXAMPLES, 5, generator=generator)
        self.labels = torch.randint(0, D, (EXAMPLES,), generator=generator)

    def __len__(self) -> int:
        return EXAMPLES

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.x[index], "labels": self.labels[index]}

    def batches(self, epochs: int = 1) -> list[tuple[Tensor, Tensor]]:
        """In their order."""
        return list(zip(self.x.split(BATCH), self.labels.split(BATCH), strict=True)) * epochs


class Model(nn.Module):
    """Encoder and exact head; the loss as a program of Hugging Face takes it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(5, WIDTH), nn.Tanh())
        self.head = wh.ExactHead(WIDTH, D, wh.losses.SphericalSoftmax())

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": self.head(self.encoder(x), labels)}

    def weights(self) -> list[Tensor]:
        return [*(p.detach().clone() for p in self.encoder.parameters()), self.head.weight()]


def parts(model: Any) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    return torch.optim.AdamW(model.encoder.parameters(), lr=0.01), wh.optim.Newton(model.head)


def together(model: Any) -> wh.optim.Together:
    return wh.optim.Together(*parts(model))


Schedule = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]


def by_hand(
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    clip: float | None = None,
    passes: int = 1,
    schedule: Schedule | None = None,
    autocast: bool = False,
) -> Model:
    """What a user writes with an optimiser each."""
    model = Model()
    optimizers = parts(model)
    schedules = [] if schedule is None else [schedule(optimizer) for optimizer in optimizers]
    for count, (x, labels) in enumerate(batches, start=1):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = model(x, labels)["loss"] / passes
        loss.backward()
        if count % passes:
            continue
        if clip is not None:
            wh.optim.clip_grad_norm_(model.encoder.parameters(), model.head, clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        for each in schedules:
            each.step()
    return model


def assert_same(found: Sequence[Tensor], expected: Sequence[Tensor], *, exactly: bool = True) -> None:
    """Weights to the last bit, or to rounding; W moved."""
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b) if exactly else torch.allclose(a, b, rtol=1e-4, atol=1e-6), (a - b).abs().max()
    assert not torch.equal(found[-1], Model().head.weight())
