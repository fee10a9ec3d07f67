"""Steps of which most cancels before it reaches W: Q and w̄ stay those of W."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch

import widehead as wh
from widehead.cached import cached_everywhere


@pytest.mark.parametrize("record", [contextlib.nullcontext, cached_everywhere])
@pytest.mark.parametrize("loss", [wh.losses.TaylorSoftmax(), wh.losses.ZLoss(1.0, 2.0)], ids=["taylor", "z-loss"])
@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-6])
def test_sums_are_those_of_the_rows_if_nearly_all_classes_are_targets(record: Any, loss: Any, size: float) -> None:
    """What all outputs get and what targets get then cancel, and a long step makes much of what is left."""
    torch.manual_seed(0)
    with record():
        head = wh.ExactHead(8, 600, loss)
    optimizer = wh.optim.Newton(head)
    for step in range(4):
        hidden = size * torch.randn(3, 8)
        head(hidden, [list(range(600 - 7 * b)) for b in range(3)]).backward()
        optimizer.step()
        audit = head.audit()
        assert max(audit.gram, audit.column_sum) < 1e-5, step
