"""Memory that serves again: never while somebody has it."""

from __future__ import annotations

import gc
import sys

import pytest
import torch

from widehead.arithmetic import buffers

ROWS, COLUMNS = 1100, 256  # large enough to be kept


def test_memory_serves_again_once_no_tensor_has_it() -> None:
    first = buffers.empty(ROWS, COLUMNS)
    place = first.data_ptr()
    first.fill_(1.0)
    part = first[3:5].T  # a view, which lives on
    del first
    gc.collect()
    second = buffers.empty(ROWS, COLUMNS).fill_(2.0)
    assert second.data_ptr() != place
    assert part.eq(1.0).all()
    del part
    gc.collect()
    third = buffers.empty(ROWS, COLUMNS)
    assert third.data_ptr() == place
    assert second.eq(2.0).all()


def test_what_is_given_is_as_asked() -> None:
    for rows, columns in ((0, 5), (3, 7), (ROWS, COLUMNS), (ROWS + 1, COLUMNS)):
        made = buffers.empty(rows, columns)
        assert made.shape == (rows, columns)
        assert made.dtype == torch.float32
        assert made.is_contiguous()
        assert made.numel() == 0 or made.data_ptr() % 64 == 0


def test_no_more_is_kept_than_a_step_needs() -> None:
    held = [buffers.empty(rows, 1 << 13) for rows in (3000, 2000, 2500, 1000, 4000)]
    assert sum(map(len, buffers._blocks)) <= buffers._MOST
    del held
    gc.collect()
    for rows in range(1000, 1400, 50):
        buffers.empty(rows, 1 << 13)
    assert len(buffers._blocks) <= 12
    assert sum(map(len, buffers._blocks)) <= buffers._MOST


def test_what_nobody_has_can_be_dropped() -> None:
    held, other = (buffers.empty(ROWS, COLUMNS).fill_(value) for value in (1.0, 2.0))
    place = held.data_ptr()
    del other
    gc.collect()
    buffers.drop_unused()
    assert [block.is_free for block in buffers._blocks].count(True) == 0
    assert place in [block.part().ctypes.data for block in buffers._blocks if block.part is not None]  # type: ignore[union-attr]
    assert held.eq(1.0).all()


def test_whether_memory_is_in_use_does_not_depend_on_how_a_python_counts_references(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Calls lend references to what they are given from Python 3.14 on, so counts are one less there."""
    count = sys.getrefcount
    monkeypatch.setattr(sys, "getrefcount", lambda found: count(found) - 2)  # one is that of this function
    held = [buffers.empty(ROWS, COLUMNS).fill_(float(i)) for i in range(3)]
    assert len({one.data_ptr() for one in held}) == 3
    assert [float(one[0, 0]) for one in held] == [0.0, 1.0, 2.0]


def test_memory_that_only_a_graph_still_has_is_not_given_away() -> None:
    weight = torch.ones(COLUMNS, requires_grad=True)
    out = (buffers.empty(ROWS, COLUMNS).fill_(1.0) * weight).sum()
    others = [buffers.empty(ROWS, COLUMNS).fill_(5.0) for _ in range(3)]
    out.backward()
    assert weight.grad is not None
    assert weight.grad.eq(float(ROWS)).all(), len(others)


@pytest.mark.parametrize("size", [3, 1 << 20])
def test_they_are_float32_on_the_cpu_whatever_the_defaults_of_torch_are(size: int) -> None:
    """Or C would write past their end."""
    torch.set_default_dtype(torch.float16)
    try:
        with torch.device("meta"):
            found = buffers.empty(2, size)
    finally:
        torch.set_default_dtype(torch.float32)
    assert (found.dtype, found.device.type, found.shape) == (torch.float32, "cpu", (2, size))
