"""The exact head's pass of Newton's method is ridge regression: against numpy, over shapes, scales and ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import widehead as wh


@settings(max_examples=40)
@given(
    d=st.integers(1, 9),
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=4),
    rank=st.integers(1, 9),
    exponent=st.integers(-30, 30),
    unlike=st.integers(0, 6),
    ridge=st.sampled_from([1e-3, 0.5, 40.0]),
    seed=st.integers(0, 99),
)
def test_a_pass_is_ridge_regression(
    d: int, sizes: list[int], rank: int, exponent: int, unlike: int, ridge: float, seed: int
) -> None:
    """Batches of any sizes, some of them empty; columns of sizes that differ by up to ``unlike`` digits."""
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((sum(sizes), min(rank, d))) @ rng.standard_normal((min(rank, d), d))
    hidden = hidden * 10.0 ** (exponent - rng.integers(0, unlike + 1, d))
    classes = rng.integers(0, 7, sum(sizes))
    head = wh.ExactHead(d, 7, wh.losses.SquaredError(), dtype=torch.float64)
    head.load_weight(torch.zeros(7, d))
    optimizer = wh.optim.Newton(head, decay=1.0, damping=0.0, ridge=ridge, refresh_every=1)
    for rows in np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1]):
        # Each example weighs the same whatever the size of its batch.
        loss = head(torch.from_numpy(hidden[rows]), torch.from_numpy(classes[rows])) * len(rows)
        loss.backward()
        optimizer.step()
    first = next((np.sum(hidden[:n] ** 2) for n in np.cumsum(sizes) if n), 0.0)
    if first == 0.0:
        assert not head.weight().any()
        return
    normal = hidden.T @ hidden + ridge * first / d * np.eye(d)
    expected = np.linalg.solve(normal, hidden.T @ np.eye(7)[classes]).T
    assert np.abs(head.weight().numpy() - expected).max() <= 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize("scale", [1e-10, 1e-4, 1.0, 1e4])
def test_in_float32_too(scale: float) -> None:
    torch.manual_seed(0)
    hidden, classes = scale * torch.randn(64, 12), torch.randint(0, 20, (64,))
    head = wh.ExactHead(12, 20, wh.losses.SquaredError())
    head.load_weight(torch.zeros(20, 12))
    optimizer = wh.optim.Newton(head, decay=1.0, damping=0.0, ridge=0.3, refresh_every=1)
    for part in range(0, 64, 16):
        head(hidden[part : part + 16], classes[part : part + 16]).backward()
        optimizer.step()
    precise = hidden.double()
    normal = precise.T @ precise + 0.3 * precise[:16].square().sum() / 12 * torch.eye(12).double()
    expected = torch.linalg.solve(normal, precise.T @ torch.eye(20)[classes].double()).T
    assert float((head.weight() - expected).abs().max()) < 1e-4 * float(expected.abs().max())
