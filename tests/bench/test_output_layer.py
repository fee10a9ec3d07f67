"""The benchmark times what it says, on methods that do the same thing."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from support.played import Device

from widehead.bench import compare_step
from widehead.bench.measure import in_turn, percentile
from widehead.bench.methods import METHODS
from widehead.bench.output_layer import FIGURES, combinations, left_out
from widehead.bench.problem import OutputLayerProblem
from widehead.bench.processes import in_processes
from widehead.errors import ProcessesError
from widehead.targets import SparseTargets


def test_rows_hold_medians_and_ratios() -> None:
    rows = compare_step(500, 8, 4, 2, rounds=1)
    assert [row["method"] for row in rows] == ["exact", "dense"]
    exact, dense = rows
    assert exact["ratio_to_dense"] == pytest.approx(dense["seconds"] / exact["seconds"])
    assert dense["ratio_to_dense"] == 1.0
    assert exact["ratio_to_floor"] == pytest.approx(exact["seconds"] / exact["floor_seconds"])
    assert exact["steps"] > 1
    assert exact["seconds"] <= exact["seconds_p99"] <= exact["seconds_max"]
    assert {"device", "torch", "date", "commit", "version", "peak_bytes"} <= exact.keys()
    assert (exact["ratio_to_exact"], dense["ratio_to_exact"]) == (1.0, pytest.approx(exact["ratio_to_dense"]))
    alone = compare_step(500, 8, 4, methods=["exact"], rounds=1)
    assert alone[0]["ratio_to_dense"] is None


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ((0, 8, 4), {}, "`classes`"),
        ((5, 8, 4, 6), {}, "at most classes"),
        ((50, 8, 4), {"methods": ["exact", "magic"]}, "exact, exact-without-kernels, exact-captured"),
        ((10**12, 300, 128), {}, "GB free"),
        ((50, 8, 4), {"methods": ["exact", "exact"]}, "exact, exact-without-kernels, exact-captured"),
        ((50, 8, 4), {"methods": []}, "exact, exact-without-kernels, exact-captured"),
        ((50, 8, 4), {"rounds": 0}, "`rounds`"),
    ],
)
def test_wrong_options_are_named(sizes: tuple[int, ...], options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare_step(*sizes, **options)


@pytest.mark.parametrize(("classes", "targets"), [(40, 40), (40, 11), (40, 10), (5_000, 30), (7, 1)])
def test_targets_of_a_problem_are_distinct_and_uniform(classes: int, targets: int) -> None:
    problem, generator = OutputLayerProblem(classes, 3, 200, targets), torch.Generator().manual_seed(0)
    drawn = [problem.draw(generator)[1] for _ in range(10)]
    assert all(batch.coalesced() is batch and bool((batch.counts == targets).all()) for batch in drawn)
    found = torch.bincount(torch.cat([batch.class_ids for batch in drawn]), minlength=classes)
    expected = 2_000 * targets / classes
    assert len(found) == classes
    assert bool(((found - expected).abs() < 6.0 * expected**0.5).all())


def test_a_batch_in_turn_is_as_if_it_had_just_been_loaded() -> None:
    batch = torch.ones(2, 3), SparseTargets.from_ids(torch.tensor([[4, 1], [0, 4]]))
    given: list[SparseTargets] = []

    def step(hidden: torch.Tensor, targets: SparseTargets) -> torch.Tensor:
        given.append(targets)
        targets.sorted_by_class()
        return hidden

    turn = in_turn(step, [batch])
    turn(), turn()
    assert batch[1]._sorted is None
    assert [targets.to_lists() for targets in given] == [[[4, 1], [0, 4]]] * 2


_HEADS = sorted(set(METHODS) - {"exact-captured", "dense", "dense-tf32", "dense-cross-entropy", "linear-cross-entropy"})


@pytest.mark.parametrize("name", _HEADS)
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


@pytest.mark.parametrize("name", ["dense-cross-entropy", "linear-cross-entropy"])
def test_cross_entropies_make_the_step_of_plain_torch(name: str) -> None:
    if name == "linear-cross-entropy":
        pytest.importorskip("torch", "2.13")
    torch.manual_seed(0)
    problem = OutputLayerProblem(40, 6, 5)
    method = METHODS[name](problem, torch.device("cpu"))
    weight = method.layer.weight.detach().clone().requires_grad_()  # type: ignore[attr-defined]
    hidden, targets = problem.draw(torch.Generator().manual_seed(0))
    twin = hidden.clone().requires_grad_()
    expected = torch.nn.functional.cross_entropy(twin @ weight.T, targets.class_ids)
    expected.backward()
    assert method.step(hidden, targets) == pytest.approx(expected.item(), rel=1e-6)
    assert weight.grad is not None
    lr = method.optimizer.param_groups[0]["lr"]  # type: ignore[attr-defined]
    moved = method.layer.weight.detach() - weight.detach()  # type: ignore[attr-defined]
    torch.testing.assert_close(moved, -lr * weight.grad, rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(hidden.grad, twin.grad)


def test_a_method_that_cannot_be_timed_is_left_out() -> None:
    rows = compare_step(300, 8, 4, 2, methods=["exact", "dense-cross-entropy"], rounds=1)
    exact, other = rows
    assert exact["skipped"] is None
    assert exact["seconds"] > 0.0
    assert other["skipped"] == "dense-cross-entropy takes one target an example. Found targets = 2."
    assert other.keys() == exact.keys()
    assert all(other[name] is None for name in FIGURES)


def test_a_method_that_does_not_fit_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("widehead.bench.output_layer.available_memory", lambda device: 60_000)
    problem = OutputLayerProblem(1000, 8, 4)  # W has 32,000 bytes
    assert left_out(problem, ["exact", "dense"]) == {
        "dense": "dense needs 0.0 GB, 0.0 GB together with the others. Found 0.0 GB free."
    }
    rows = compare_step(1000, 8, 4, rounds=1)
    assert [row["seconds"] is None for row in rows] == [False, True]
    with pytest.raises(ValueError, match=r"nothing can be timed. dense needs"):
        compare_step(1000, 8, 32, methods=["dense"])


def test_combinations_are_all_there_once() -> None:
    made = combinations([10, 20, 10], [4], [2, 3], [1])
    assert [(p.classes, p.width, p.batch) for p in made] == [(10, 4, 2), (20, 4, 2), (10, 4, 3), (20, 4, 3)]
    with pytest.raises(ValueError, match="at most classes = 5"):
        combinations([5, 10], [4], [2], [1, 6])


def test_percentiles() -> None:
    assert [percentile(list(range(1, 101)), share) for share in (0.5, 0.99, 0.999, 1.0)] == [50, 99, 100, 100]
    assert percentile([3.0], 0.0) == 3.0


def test_every_method_makes_the_same_step() -> None:
    """From the same weights on the same batches, all methods see the same losses: what is timed is the same work."""
    problem = OutputLayerProblem(300, 6, 5, 2)
    device = torch.device("cpu")
    exact, dense = METHODS["exact"](problem, device), METHODS["dense"](problem, device)
    exact.head.load_weight(dense.layer.weight.detach())  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        hidden, targets = problem.draw(generator)
        losses = [float(method.step(hidden.clone(), targets)) for method in (exact, dense)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert torch.allclose(exact.head.weight(), dense.layer.weight, rtol=1e-4, atol=1e-6)  # type: ignore[attr-defined]


def test_a_torch_without_the_fused_loss_leaves_that_method_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.nn, "LinearCrossEntropyOptions", raising=False)
    problem = OutputLayerProblem(40, 6, 5)
    why = left_out(problem, ["exact", "linear-cross-entropy"])
    assert list(why) == ["linear-cross-entropy"]
    assert "needs torch 2.13" in why["linear-cross-entropy"]
    rows = compare_step(40, 6, 5, methods=("exact", "linear-cross-entropy"), rounds=1)
    assert [row["skipped"] is None for row in rows] == [True, False]


def test_products_may_be_rounded_in_that_method_alone() -> None:
    problem, seen = OutputLayerProblem(40, 6, 5), []
    method = METHODS["dense-tf32"](problem, torch.device("cpu"))
    method.layer.register_forward_hook(lambda *_: seen.append(torch.get_float32_matmul_precision()))  # type: ignore
    method.step(*problem.draw(torch.Generator().manual_seed(0)))
    assert (seen, torch.get_float32_matmul_precision()) == (["high"], "highest")


def test_a_captured_step_needs_a_card() -> None:
    why = left_out(OutputLayerProblem(40, 6, 5), ["exact", "exact-captured"])
    assert why == {"exact-captured": "exact-captured needs a CUDA device. Found cpu."}


@pytest.mark.parametrize("name", ["exact", "exact-captured", "dense", "dense-tf32", "dense-cross-entropy"])
def test_methods_on_a_card(played: Device, name: str) -> None:
    problem = OutputLayerProblem(60, 6, 5)
    method = METHODS[name](problem, torch.device("cuda"))
    generator = torch.Generator(device="cuda").manual_seed(0)
    losses = [method.step(*problem.draw(generator)) for _ in range(5)]
    assert {loss.device.type for loss in losses} == {"cuda"}
    assert all(torch.isfinite(loss) for loss in losses)


@pytest.mark.long
def test_in_two_processes_those_are_timed_that_can_be_split() -> None:
    methods = ["exact", "exact-momentum", "dense", "full", "sampled", "hierarchical"]
    rows = {row["method"]: row for row in compare_step(300, 8, 5, methods=methods, rounds=1, processes=2)}
    timed = {name for name, row in rows.items() if row["skipped"] is None}
    assert timed == {"exact", "exact-momentum", "full", "sampled"}
    assert all(rows[name]["seconds"] > 0.0 and rows[name]["processes"] == 2 for name in timed)
    assert rows["dense"]["skipped"] == "dense runs in one process. Found 2."


@pytest.mark.long
def test_an_error_in_several_processes_is_that_of_the_first() -> None:
    with pytest.raises(ValueError, match="refused here"):
        in_processes(2, _refusing, "refused here")
    with pytest.raises(ProcessesError, match="the first has died"):
        in_processes(2, _dying)


def _refusing(mesh: Any, text: str) -> None:
    raise ValueError(text)


def _dying(mesh: Any) -> None:
    os._exit(9)


@pytest.mark.parametrize(("processes", "device"), [(5, "cpu"), (2, "cuda")])
def test_processes_that_cannot_share_a_batch_are_refused(processes: int, device: str) -> None:
    with pytest.raises(ValueError, match=f"Found {processes} on {device}, and 4 examples"):
        compare_step(300, 8, 4, rounds=1, processes=processes, device=device)
