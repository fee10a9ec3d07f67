"""The benchmark times what it says, on methods that do the same thing."""

from __future__ import annotations

import pytest
import torch

from widehead.bench import compare_step
from widehead.bench.methods import METHODS
from widehead.bench.problem import OutputLayerProblem


def test_rows_hold_medians_and_ratios() -> None:
    rows = compare_step(500, 8, 4, 2, rounds=1)
    assert [row["method"] for row in rows] == ["exact", "dense"]
    exact, dense = rows
    assert exact["ratio_to_dense"] == pytest.approx(dense["seconds"] / exact["seconds"])
    assert dense["ratio_to_dense"] == 1.0
    assert exact["ratio_to_floor"] == pytest.approx(exact["seconds"] / exact["floor_seconds"])
    assert exact["steps"] > 1
    assert (exact["ratio_to_exact"], dense["ratio_to_exact"]) == (1.0, pytest.approx(exact["ratio_to_dense"]))
    alone = compare_step(500, 8, 4, methods=["exact"], rounds=1)
    assert alone[0]["ratio_to_dense"] is None


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ((0, 8, 4), {}, "`classes`"),
        ((5, 8, 4, 6), {}, "at most classes"),
        ((50, 8, 4), {"methods": ["exact", "magic"]}, "exact, exact-momentum"),
        ((10**12, 300, 128), {}, "GB free"),
    ],
)
def test_wrong_options_are_named(sizes: tuple[int, ...], options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare_step(*sizes, **options)


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"dense"}))
def test_every_method_can_be_timed(name: str) -> None:
    torch.manual_seed(0)
    problem = OutputLayerProblem(300, 6, 5, 2)
    method = METHODS[name](problem, torch.device("cpu"))
    hidden = torch.randn(4, 6)
    before = method.head.scores(hidden)  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(0)
    losses = [method.step(*problem.draw(generator)) for _ in range(5)]
    assert all(0.0 < loss < 50.0 for loss in losses)
    assert not torch.equal(method.head.scores(hidden), before)  # type: ignore[attr-defined]


def test_every_method_makes_the_same_step() -> None:
    """From the same weights on the same batches, all methods see the same losses: what is timed is the same work."""
    problem = OutputLayerProblem(300, 6, 5, 2)
    device = torch.device("cpu")
    exact, dense = METHODS["exact"](problem, device), METHODS["dense"](problem, device)
    exact.head.load_weight(dense.layer.weight.detach())  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        hidden, targets = problem.draw(generator)
        assert exact.step(hidden.clone(), targets) == pytest.approx(dense.step(hidden.clone(), targets), rel=1e-5)
    assert torch.allclose(exact.head.weight(), dense.layer.weight, rtol=1e-4, atol=1e-6)  # type: ignore[attr-defined]
