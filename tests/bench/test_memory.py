"""Memory is foreseen about right, measured, and shared out in the order of the methods."""

from __future__ import annotations

import pytest
import torch

from widehead.bench import memory
from widehead.bench.memory import Need, PeakMemory, available_memory, fitting
from widehead.bench.methods import CAPTURED, METHODS, memory_need
from widehead.bench.problem import OutputLayerProblem

_CPU = torch.device("cpu")


@pytest.fixture
def measurable() -> None:
    with PeakMemory(_CPU) as peak:
        pass
    if peak.bytes is None:
        pytest.skip("this system does not tell the peak of a process's memory")


@pytest.mark.usefixtures("measurable")
def test_peak_is_that_of_the_block() -> None:
    size = 8 * 10**7
    with PeakMemory(_CPU) as peak:
        kept = torch.ones(size // 8, dtype=torch.uint8)
        del kept
        torch.ones(size, dtype=torch.uint8)
    assert 0.95 * size < peak.bytes < 1.4 * size  # type: ignore[operator]
    with PeakMemory(_CPU) as less:
        torch.ones(size // 4, dtype=torch.uint8)
    assert less.bytes < 0.5 * size  # type: ignore[operator]


@pytest.mark.usefixtures("measurable")
@pytest.mark.parametrize("name", sorted(METHODS.keys() - {CAPTURED}))
def test_needs_are_those_measured(name: str) -> None:
    """Rounded up, but not so far that a method is left out without reason."""
    generator = torch.Generator().manual_seed(0)
    tiny, problem = OutputLayerProblem(300, 8, 4), OutputLayerProblem(150_000, 32, 32)
    METHODS[name](tiny, _CPU).step(*tiny.draw(generator))
    batch = problem.draw(generator)
    with PeakMemory(_CPU) as peak:
        METHODS[name](problem, _CPU).step(*batch)
    need = memory_need(name, problem)
    assert peak.bytes is not None
    assert peak.bytes < 1.2 * (need.resident + need.working) + 4e7  # blocks of rows and the like, whatever D
    assert need.resident + need.working < 4.0 * peak.bytes


def test_methods_are_taken_in_their_order() -> None:
    needs = {"a": Need(4, 1), "b": Need(5, 9), "c": Need(2, 3), "d": Need(1, 0)}
    assert fitting(needs, None) == {}
    assert set(fitting(needs, 10)) == {"b"}
    assert set(fitting(needs, 9)) == {"b", "d"}  # a and c: 6 resident, 3 working; one more would be 10
    assert set(fitting(needs, 8)) == {"b", "c"}
    assert set(fitting(needs, 0)) == set(needs)


def test_what_is_free_is_a_number_of_bytes_or_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    free = available_memory(_CPU)
    assert free is None or free > 10**6
    monkeypatch.setattr(memory, "_CLEAR", memory.Path("/nowhere/clear_refs"))
    with PeakMemory(_CPU) as peak:
        pass
    assert peak.bytes is None
