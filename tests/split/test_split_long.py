"""W after five hundred steps of rows split over 1 to 4 processes: what a dense matrix in float64 has."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
import torch
from split import long
from support.properties import TABLE
from support.several import Several

from widehead.errors import UnstableStepWarning

pytestmark = pytest.mark.long

BOUNDS = {torch.float64: 1e-12, torch.float32: 2e-6}
LOSSES, OPTIMIZERS = [row.name for row in TABLE], list(long.OPTIMIZERS)
#: in an order in which the first tests have every loss and every optimiser
PAIRS = [
    (loss, OPTIMIZERS[(i + shift) % len(OPTIMIZERS)])
    for shift in range(len(OPTIMIZERS))
    for i, loss in enumerate(LOSSES)
]


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "optimizer"), PAIRS)
def test_five_hundred_steps(several: Several, loss: str, optimizer: str) -> None:
    """Batches of one dominant direction, smaller and larger than d, of which some processes have nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnstableStepWarning)
        expected = long.dense_weight(loss, optimizer, 500)
    rows: list[dict[str, Any]] = []
    for dtype in BOUNDS:
        found = [several.run(size, long.split_weight, loss, optimizer, dtype, 500) for size in (1, 2, 3, 4)]
        off = {f"off_{size}": long.far(weights, expected) for size, weights in enumerate(found, 1)}
        rows.append({"loss": loss, "optimizer": optimizer, "type": str(dtype).removeprefix("torch."), **off})
        print(json.dumps(rows[-1]), flush=True)  # as benchmarks/results keeps it
    for dtype, row in zip(BOUNDS, rows, strict=True):
        assert max(row[f"off_{size}"] for size in (1, 2, 3, 4)) < BOUNDS[dtype], row
