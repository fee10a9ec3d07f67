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


def test_the_drift_of_an_inverse_has_no_unit() -> None:
    """A loss times 2⁻⁴⁰ at an lr of 2⁴⁰ is the same training: what leads from w to m and back has other numbers."""

    def trained(unit: float) -> wh.ExactHead:
        torch.manual_seed(0)
        head = wh.ExactHead(3, 50, wh.losses.SquaredError(), dtype=torch.float64)
        optimizer = wh.optim.SGD(head, lr=0.02 / unit, momentum=0.9)
        for step in range(5):
            hidden = torch.randn(8, 3, dtype=torch.float64)
            (unit * head(hidden, [[(7 * step + b) % 50] for b in range(8)])).backward()
            optimizer.step()
        return head

    plain, scaled = trained(1.0), trained(2.0**-40)
    assert torch.equal(plain.weight(), scaled.weight())
    assert scaled.audit().inverse == pytest.approx(plain.audit().inverse, rel=0.1)
    for head in (plain, scaled):  # what is wrong is seen as well, whatever the units
        master = head.weights.small.master
        master[-6:-3, 3:] *= 1.5  # of U⁻ᵀ, the block that leads from w to m
        assert head.audit().inverse > 1e-3
