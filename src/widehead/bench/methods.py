"""One training step of an output layer by each method: forward, backward, gradient to the encoder, update of W."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from widehead.bench.problem import OutputLayerProblem
from widehead.heads import ExactHead, Head, ParameterHead
from widehead.heads.names import HEADS
from widehead.losses import SquaredError
from widehead.optim import SGD, HeadOptimizer, Muon, Newton, Shampoo
from widehead.targets import SparseTargets

__all__ = ["METHODS", "Method"]

_LR = 1e-4  # far below the limit of stability, so that no method leaves the range of ordinary numbers


class Method(Protocol):
    """A layer that can make a step; `step` returns the loss."""

    def step(self, hidden: Tensor, targets: SparseTargets) -> float: ...


class HeadMethod:
    """A head with its own loss and an optimiser of it."""

    head: Head
    optimizer: torch.optim.Optimizer

    def step(self, hidden: Tensor, targets: SparseTargets) -> float:
        loss = self.head(hidden.requires_grad_(), targets)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


class Exact(HeadMethod):
    """The exact head, with plain SGD or another optimiser."""

    def __init__(
        self,
        problem: OutputLayerProblem,
        device: torch.device,
        optimizer: type[HeadOptimizer] = SGD,
        **options: float,
    ) -> None:
        self.head = ExactHead(problem.width, problem.classes, SquaredError(), device=device)
        self.optimizer = optimizer(self.head, **{"lr": _LR, **options})


class Dense:
    """The same loss on an ordinary nn.Linear with torch.optim.SGD; no one-hot matrix is formed."""

    def __init__(self, problem: OutputLayerProblem, device: torch.device) -> None:
        self.loss = SquaredError()
        self.layer = nn.Linear(problem.width, 1, bias=False, device="meta")
        weight = torch.empty(problem.classes, problem.width, device=device)
        nn.init.normal_(weight, std=self.loss.initial_std(problem.width, problem.classes))
        self.layer.weight = nn.Parameter(weight)
        self.optimizer = torch.optim.SGD(self.layer.parameters(), lr=_LR)

    def step(self, hidden: Tensor, targets: SparseTargets) -> float:
        outputs = self.layer(hidden.requires_grad_())
        at_targets = outputs[targets.example_ids, targets.class_ids]
        squared_norm = torch.linalg.vecdot(outputs, outputs)
        loss = self.loss(squared_norm, outputs.sum(1), at_targets, targets, outputs.shape[1]).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


class Other(HeadMethod):
    """Another head with its own loss, an ordinary softmax or what stands for one, with Adam on what has a gradient."""

    def __init__(self, problem: OutputLayerProblem, device: torch.device, head: str) -> None:
        made = HEADS[head](problem.width, problem.classes, device=device)
        assert isinstance(made, ParameterHead)
        self.head = made
        kind = torch.optim.SparseAdam if made.sparse else torch.optim.Adam
        self.optimizer = kind(list(self.head.parameters()), lr=_LR)


METHODS: dict[str, Callable[[OutputLayerProblem, torch.device], Method]] = {
    "exact": Exact,
    "exact-momentum": partial(Exact, momentum=0.9),
    "exact-newton": partial(Exact, optimizer=Newton, lr=1.0),  # its natural scale; no step of it is unstable
    "exact-shampoo": partial(Exact, optimizer=Shampoo),
    "exact-muon": partial(Exact, optimizer=Muon),
    "dense": Dense,
    **{name: partial(Other, head=name) for name in HEADS if name != "exact"},
}
