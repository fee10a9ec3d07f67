"""A batch with NaN or infinity between good ones, head alone: refused, and as if it had never been."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import widehead as wh
from widehead.errors import NonFiniteError

D, WIDTH, M = 50, 6, 5
OPTIMIZERS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "sgd": (wh.optim.SGD, {"lr": 0.01}),
    "momentum": (wh.optim.SGD, {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.01}),
    "clipped": (wh.optim.SGD, {"lr": 0.1, "max_grad_norm": 0.5}),
    "newton": (wh.optim.Newton, {"lr": 0.5}),
    "shampoo": (wh.optim.Shampoo, {"lr": 0.01}),
    "muon": (wh.optim.Muon, {"lr": 0.01}),
}
BAD = [float("nan"), float("inf"), -float("inf"), 1e30]


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(M, WIDTH, generator=generator), torch.randint(D, (M, 2), generator=generator)


def spoil_input(head: wh.ExactHead, bad: float) -> torch.Tensor:
    hidden, ids = batch(99)
    hidden[2, 3] = bad
    return head(hidden.requires_grad_(), ids)


def spoil_loss(head: wh.ExactHead, bad: float) -> torch.Tensor:
    hidden, ids = batch(99)
    return head(hidden.requires_grad_(), ids) * bad


def spoil_values(head: wh.ExactHead, bad: float) -> torch.Tensor:
    """Values that are not finite are refused where targets are made; the largest that float32 has are not.

    (Clipping brings even such a gradient down to an ordinary step.)
    """
    hidden, ids = batch(99)
    values = torch.ones(ids.numel())
    values[1] = bad
    return head(hidden.requires_grad_(), wh.SparseTargets(ids.flatten(), torch.arange(0, 2 * M + 1, 2), values))


SPOILS = [(spoil, bad) for spoil in (spoil_input, spoil_loss) for bad in BAD] + [(spoil_values, 1e38)]
CASES = [(name, *s) for name in OPTIMIZERS for s in SPOILS if (name, s[0]) != ("clipped", spoil_values)]


def trained(name: str, spoil: Callable[..., torch.Tensor] | None, bad: float) -> wh.ExactHead:
    torch.manual_seed(0)
    head = wh.ExactHead(WIDTH, D, wh.losses.SquaredError())
    kind, options = OPTIMIZERS[name]
    optimizer = kind(head, **options)
    for step in range(12):
        if step == 6 and spoil is not None:
            spoil(head, bad).backward()
            before = {k: v.clone() for k, v in head.state_dict().items()}
            with pytest.raises(NonFiniteError, match="finite"):
                optimizer.step()
            assert all(torch.equal(v, before[k]) for k, v in head.state_dict().items())
            optimizer.zero_grad()
        hidden, ids = batch(step)
        head(hidden, ids).backward()
        optimizer.step()
    return head


@pytest.mark.parametrize(("name", "spoil", "bad"), CASES)
def test_a_refused_batch_leaves_no_trace(name: str, spoil: Callable[..., torch.Tensor], bad: float) -> None:
    good, met = trained(name, None, 0.0).state_dict(), trained(name, spoil, bad).state_dict()
    assert all(torch.equal(good[k], met[k]) for k in good)


@pytest.mark.parametrize("bad", BAD[:3])
def test_values_that_are_not_finite_are_no_targets(bad: float) -> None:
    with pytest.raises(ValueError, match=r"`values` should be finite. Found values\[1\]"):
        wh.SparseTargets([1, 2], [0, 2], [1.0, bad])
