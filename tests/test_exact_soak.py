"""A million float32 steps on hostile hidden layers, every step made by a dense float64 twin too.

The full length is a slow proof, which prints the drift a hundred times on its way:

    OMP_NUM_THREADS=1 pytest -m slow -s tests/test_exact_soak.py
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import reference
from support.properties import DEVICE, relative
from torch import Tensor

import widehead as wh
from widehead.errors import UnstableStepWarning

pytestmark = pytest.mark.long

D, WIDTH, M, TARGETS = 2_000, 16, 8, 4
LIMIT = 1e-4
STEPS = [1_000, pytest.param(1_000_000, marks=pytest.mark.slow)]
OPTIMIZERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], Callable[..., Any], dict[str, float]]] = {
    "sgd": (wh.optim.SGD, reference.DenseSGD, {"lr": 0.0}),
    "newton": (
        wh.optim.Newton,
        reference.DenseNewton,
        {"lr": 1.0, "damping": 0.05, "decay": 0.99, "refresh_every": 10},
    ),
}


def hostile(step: int, generator: torch.Generator) -> Tensor:
    """(m, d) float32: one slowly turning direction 10 times stronger, sizes from 0.01 to 10, sometimes zeros."""
    if step % 1_000 == 777:
        return torch.zeros(M, WIDTH)
    direction = torch.cos(torch.arange(WIDTH) * (1.0 + 1e-5 * step))
    direction /= direction.norm()
    m = 1 if step % 50 == 3 else M
    hidden = 0.3 * torch.randn(m, WIDTH, generator=generator)
    hidden += 3.0 * torch.randn(m, 1, generator=generator) * direction
    return hidden * 10.0 ** (-2.0 * float(torch.rand((), generator=generator)) ** 4)


def ragged(m: int, generator: torch.Generator) -> Tensor:
    """(m, 4) class ids, some of them left out: popular classes, rare ones, repeats, examples without any."""
    ids = (D * torch.rand(m, TARGETS, generator=generator) ** 3).long()
    return ids.masked_fill(torch.rand(m, TARGETS, generator=generator) < 0.4, -100)


def rate(name: str, step: int, hidden: Tensor, generator: torch.Generator) -> float:
    """For SGD, up to 0.9 of the limit of stability; for single examples 2η‖h‖² = 1, where U would be singular."""
    share = float(torch.rand((), generator=generator))
    if name == "newton":
        return share
    share = 0.5 if step % 50 == 3 else 0.9 * share**3
    return 2.0 * share / max(2.0 / len(hidden) * float(torch.linalg.matrix_norm(hidden, 2)) ** 2, 1e-3)


def set_rate(ours: torch.optim.Optimizer, twin: Any, lr: float) -> None:
    ours.param_groups[0]["lr"] = lr
    if isinstance(twin, reference.DenseSGD):
        twin.optimizer.param_groups[0]["lr"] = lr
    else:
        twin.lr = lr


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("steps", STEPS)
def test_no_drift_from_the_dense_twin_however_long(name: str, steps: int) -> None:
    ours_of, dense_of, options = OPTIMIZERS[name]
    weight = torch.randn(D, WIDTH, generator=torch.Generator().manual_seed(0)) / WIDTH**0.5
    head = wh.ExactHead(WIDTH, D, wh.losses.SquaredError(), dtype=torch.float32, device=DEVICE)
    head.load_weight(weight)
    ours, twin = ours_of(head, **options), dense_of(weight.double(), **options)
    generator = torch.Generator().manual_seed(1)
    begin, drifts = time.process_time(), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnstableStepWarning)
        for step in range(steps):
            hidden = hostile(step, generator)
            ids = ragged(len(hidden), generator)
            set_rate(ours, twin, rate(name, step, hidden, generator))
            by_hidden = hidden.to(DEVICE, copy=True).requires_grad_()
            loss = head(by_hidden, ids.to(DEVICE))
            loss.backward()
            wrong = difference(twin.weight, hidden.double(), ids)
            due = (step + 1) % max(steps // 100, 1) == 0
            if due:
                expected = float(wrong.square().sum()) / len(hidden)
                by_loss = abs(float(loss.detach()) - expected) / expected
                by_gradient = relative(by_hidden.grad, 2.0 / len(hidden) * wrong @ twin.weight)
            ours.step()
            curvature = torch.full((len(hidden),), 2.0 / len(hidden), dtype=torch.float64)
            twin.step(hidden.double(), 2.0 / len(hidden) * wrong, curvature, torch.zeros(len(hidden), 1).double())
            if due:
                found = head.audit()
                drifts.append((relative(head.weight(), twin.weight), by_loss, by_gradient, found.gram))
                figures = "W {:.1e}, loss {:.1e}, gradient {:.1e}, Q {:.1e}".format(*drifts[-1])
                seconds = time.process_time() - begin
                print(f"{name} {step + 1:,} ({seconds:.0f} s): {figures}, {found.closes:,} segments", flush=True)
    assert max(max(drift) for drift in drifts) < LIMIT


def difference(weight: Tensor, hidden: Tensor, ids: Tensor) -> Tensor:
    """(m, D) O − Y of the dense twin."""
    outputs = hidden @ weight.T
    example, column = (ids >= 0).nonzero(as_tuple=True)
    return outputs.index_put_(
        (example, ids[example, column]), -torch.ones(len(example), dtype=outputs.dtype), accumulate=True
    )
