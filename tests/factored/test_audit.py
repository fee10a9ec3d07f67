"""The audit beside what it recomputes, down to one class and one column."""

from __future__ import annotations

import warnings

import pytest
import torch
from support.properties import DTYPES

import widehead as wh


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("classes", "width", "bias"), [(1, 1, False), (1, 1, True), (5, 1, False), (1, 4, False)])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_small_heads_are_audited_and_loaded_without_a_warning(
    dtype: torch.dtype, classes: int, width: int, bias: bool, momentum: float
) -> None:
    torch.manual_seed(0)
    head = wh.ExactHead(width, classes, wh.losses.SquaredError(), bias=bias, dtype=dtype)
    optimizer = wh.optim.SGD(head, lr=0.05, momentum=momentum)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(5):
            head(torch.randn(3, width, dtype=dtype), [[0], [], [classes - 1]]).backward()
            optimizer.step()
        found = head.audit()
    assert max(found.gram, found.column_sum, found.inverse) < 1e-5
    other = wh.ExactHead(width, classes, wh.losses.SquaredError(), bias=bias, dtype=dtype)
    other.load_state_dict(head.state_dict())
    assert torch.equal(other.weight(), head.weight())


def test_an_inverse_that_is_wrong_is_seen_in_one_column() -> None:
    head = wh.ExactHead(1, 3, wh.losses.SquaredError(), dtype=torch.float64)
    head.weights.small.master[-1] *= 1.5
    assert head.audit().inverse == pytest.approx(0.5)
