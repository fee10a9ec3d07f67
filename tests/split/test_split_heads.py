"""Heads with parameters, split over 1 to 4 processes: the same losses, gradients and W as one that has everything."""

from __future__ import annotations

import pytest
import torch
from split import heads
from split.test_split_head import check
from support.several import Several


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("head", sorted(heads.HEADS))
def test_every_head(several: Several, head: str, size: int) -> None:
    optimizer = ("adagrad", "adam", "sgd")[size - 1]
    check(several.run(size, heads.trained, head, optimizer, 37, torch.float64, 30, size != 2), 1e-12)
