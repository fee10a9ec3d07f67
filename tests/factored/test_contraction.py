"""Steps that leave little of every direction of W, one after the other: what is left is W, and not rounding.

U, or a product of corrections, is I and what was added to it. If it becomes small as a whole, its rounding does not.
"""

from __future__ import annotations

import pytest
import torch
from support.properties import DEVICE, DTYPES
from torch import Tensor

import widehead as wh
from widehead.arithmetic import TORCH, choose, using

D = 60
LIMIT = {torch.float32: 1e-4, torch.float64: 1e-12}


def orthonormal(d: int) -> Tensor:
    return torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]


def worst(d: int, dtype: torch.dtype, left: float, batches: list[Tensor], *, targets: bool) -> float:
    """The largest relative error of W over SGD steps that leave so much of the directions of each batch."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(D, d, generator=generator, dtype=torch.float64)
    head = wh.ExactHead(d, D, wh.losses.SquaredError(), dtype=dtype, device=DEVICE)
    head.load_weight(weight)
    optimizer, errors = wh.optim.SGD(head, lr=0.5 * (1.0 - left)), []
    for step, hidden in enumerate(batches):
        ids = [[(7 * step + b) % D] if targets else [] for b in range(len(hidden))]
        head(hidden.to(DEVICE, dtype), ids, reduction="sum").backward()
        optimizer.step()
        wanted = torch.zeros(len(ids), D, dtype=torch.float64)
        for b, row in enumerate(ids):
            wanted[b, row] = 1.0
        seen = hidden.to(dtype).double()
        weight = weight - (1.0 - left) * (seen @ weight.T - wanted).T @ seen
        errors.append(float((head.weight().cpu().double() - weight).norm() / weight.norm()))
    return max(errors)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("targets", [False, True])
@pytest.mark.parametrize("left", [0.5, 0.3, 0.1, 0.07, 0.03])
@pytest.mark.parametrize("d", [1, 2, 8])
@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("steps", [7, pytest.param(12, marks=pytest.mark.long)])
def test_all_directions_at_once(
    d: int, left: float, targets: bool, dtype: torch.dtype, compiled: bool, steps: int
) -> None:
    with using(choose(torch.empty(0, d), resident=True) if compiled else TORCH):
        assert worst(d, dtype, left, [orthonormal(d)] * steps, targets=targets) < LIMIT[dtype]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("d", "left"), [(1, 0.3), (1, 0.03), (2, 0.1), (3, 0.1), (3, 0.03), (6, 0.1)])
def test_one_direction_after_the_other(d: int, left: float, dtype: torch.dtype) -> None:
    """By rank-one corrections, each of one direction: together they may leave nothing."""
    batches = [orthonormal(d)[step % d][None] for step in range(6 * d)]
    assert worst(d, dtype, left, batches, targets=False) < LIMIT[dtype]
    assert worst(d, dtype, left, batches * 2, targets=True) < LIMIT[dtype]


def test_a_segment_that_shrinks_evenly_ends_without_a_correction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Newton's steps take the same part of all directions: none of them is to blame, and none is looked for."""
    tried: list[object] = []
    monkeypatch.setattr("widehead.factored.step._corrections", lambda *given: tried.append(given) or iter(()))
    generator = torch.Generator().manual_seed(2)
    head = wh.ExactHead(40, 100, wh.losses.SquaredError(), dtype=torch.float32)
    optimizer = wh.optim.Newton(head)
    for _ in range(90):
        head(torch.randn(80, 40, generator=generator), torch.arange(80)).backward()
        optimizer.step()
    assert head.weights.closes >= 2
    assert not tried
