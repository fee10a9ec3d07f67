"""W after five hundred steps of rows split over 1 to 4 processes: what one head in float64 has, which has all rows."""

from __future__ import annotations

import pytest
import torch
from split import cases
from support.properties import TABLE
from support.several import Several

pytestmark = pytest.mark.long

BOUNDS = {torch.float64: 1e-12, torch.float32: 2e-6}
#: each loss with each optimiser, the numbers of processes in turn
PAIRS = [
    (row.name, optimizer, 1 + (i + j) % 4)
    for i, row in enumerate(TABLE)
    for j, optimizer in enumerate(sorted(cases.OPTIMIZERS))
]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize(("loss", "optimizer", "size"), PAIRS)
def test_five_hundred_steps(several: Several, loss: str, optimizer: str, size: int, dtype: torch.dtype) -> None:
    found = several.run(size, cases.long_trained, loss, optimizer, dtype, 500)
    print(f"{loss}, {optimizer}, {size}, {dtype}: {max(found):.1e}")
    assert max(found) < BOUNDS[dtype]
