"""Exactness over long runs on hostile hidden layers. Greater lengths: make test-long and test-slow."""

from __future__ import annotations

import warnings

import pytest
import torch
from support.properties import DEVICE, DTYPES, TABLE, Row, batch, dense_loss, dense_mean, head_loss, make_head, relative

import widehead as wh
from widehead.errors import UnstableStepWarning

LIMIT = {torch.float64: 1e-11, torch.float32: 1e-5}
LENGTHS = [60, pytest.param(250, marks=pytest.mark.long), pytest.param(5_000, marks=pytest.mark.slow)]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("steps", LENGTHS)
def test_exact_on_badly_conditioned_hidden_layers(row: Row, dtype: torch.dtype, steps: int) -> None:
    """One direction of H is ten times stronger; step curvature is anything up to 0.9 of the limit of stability.

    Every tenth batch is one example with η·λ‖h‖² = 1 exactly (for squared error 2η‖h‖² = 1), where U becomes
    singular and the published method divides by zero. Losses whose curvature changes with W take smaller steps, as
    two trajectories of a chaotic system part whatever the arithmetic.
    """
    head, weight = make_head(row, 32, 500, dtype)
    optimizer = wh.optim.SGD(head, lr=0.0)
    generator = torch.Generator().manual_seed(5)
    most = 0.02 if row.name == "user's" else 1.0
    losses_found, losses_true, wrong, size = [], [], 0.0, 0.0
    for step in range(steps):
        online = step % 10 == 3
        b = batch(row, generator, 1 if online else 16, 32, 500, dominant=10.0)
        loss, hidden = head_loss(head, b)
        loss.backward()
        share = 0.5 if online else 0.9 * float(torch.rand((), generator=generator))
        gradient = head.pending_gradient()
        assert gradient is not None
        lr = 2.0 * share / max(head.monitor.largest(gradient, precise=True), 1e-9)
        optimizer.param_groups[0]["lr"] = lr = lr if row.quadratic else min(lr, most * share)
        losses, dense_hidden, leaf = dense_loss(row, weight, b)
        expected = dense_mean(losses, row, b)
        expected.backward()
        losses_found.append(float(loss))
        losses_true.append(float(expected))
        wrong += float((hidden.grad.cpu().double() - dense_hidden.grad).square().sum())
        size += float(dense_hidden.grad.square().sum())
        optimizer.step()
        weight = weight - lr * leaf.grad
    by_weight = relative(head.weight(), weight)
    by_loss = relative(torch.tensor(losses_found, dtype=torch.float64), torch.tensor(losses_true, dtype=torch.float64))
    by_gradient = (wrong / size) ** 0.5
    print(f"{row.name}, {dtype}: W {by_weight:.1e}, loss {by_loss:.1e}, gradient {by_gradient:.1e}, {head.audit()}")
    assert max(by_weight, by_loss, by_gradient) < LIMIT[dtype]


@pytest.mark.parametrize(
    ("steps", "classes", "width"), [(1_500, 3_000, 16), pytest.param(100_000, 100_000, 64, marks=pytest.mark.slow)]
)
def test_no_drift_in_float32_however_long(steps: int, classes: int, width: int) -> None:
    """float32, no refresh: Q stays what WᵀW is, through thousands of segments and sweeps, with a drifting encoder."""
    torch.manual_seed(0)
    head = wh.ExactHead(width, classes, wh.losses.SquaredError(), dtype=torch.float32, device=DEVICE)
    head.load_weight(torch.randn(classes, width) / width**0.5)
    optimizer = wh.optim.SGD(head, lr=0.0, weight_decay=1e-4)
    generator = torch.Generator(device=DEVICE).manual_seed(1)
    popularity = 1.0 / torch.arange(1, classes + 1, dtype=torch.float64, device=DEVICE)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnstableStepWarning)
        for step in range(steps):
            direction = torch.cos(torch.arange(width, device=DEVICE) * (1.0 + 1e-4 * step))
            hidden = 0.2 * torch.randn(32, width, generator=generator, device=DEVICE)
            hidden += 0.5 * torch.randn(32, 1, generator=generator, device=DEVICE) * direction
            ids = torch.multinomial(popularity, 64, replacement=True, generator=generator).view(32, 2)
            loss = head(hidden, ids)
            loss.backward()
            gradient = head.pending_gradient()
            assert gradient is not None
            lr = float(torch.rand((), generator=generator, device=DEVICE)) / head.monitor.bound(gradient)
            optimizer.param_groups[0]["lr"] = lr
            optimizer.step()
            if step % 10_000 == 9_999:
                print(step + 1, head.audit(), flush=True)
    found = head.audit()
    print(found)
    assert found.finite
    assert found.gram < 1e-4
    assert found.column_sum < 1e-4
    assert found.moved_rows > 0
    assert found.closes > steps // 100
