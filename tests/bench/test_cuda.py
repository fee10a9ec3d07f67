"""The benchmarks on an NVIDIA GPU; skipped where there is none."""

from __future__ import annotations

import pytest
import torch

from widehead.bench import compare_step, measure_upkeep, paper_table
from widehead.bench.methods import FUSED, METHODS
from widehead.bench.output_layer import left_out
from widehead.bench.paper import PaperSizes
from widehead.bench.problem import OutputLayerProblem

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_runs_on_the_gpu(name: str) -> None:
    if name == FUSED and not hasattr(torch.nn, "LinearCrossEntropyOptions"):
        pytest.skip("this torch has no such function")
    (row,) = compare_step(3000, 16, 8, methods=[name], rounds=1, device="cuda")
    assert row["seconds"] > 0.0
    assert row["device"] == torch.cuda.get_device_name()
    assert row["peak_bytes"] > 4 * 3000 * 16 / 2  # adaptive keeps fewer weights than D·d


def test_what_fits_is_judged_by_the_memory_of_the_gpu() -> None:
    free = torch.cuda.mem_get_info()[0]
    problem = OutputLayerProblem(int(free / (4 * 64 * 1.5)), 64, 512)  # W takes two thirds of it
    refused = left_out(problem, ["exact", "dense"], "cuda")
    assert list(refused) == ["dense"]


def test_upkeep_and_paper_table_run_on_the_gpu() -> None:
    row = measure_upkeep(3000, 8, 16, steps=50, device="cuda")
    assert row["closes_per_step"] > 0.0
    small = PaperSizes(classes=400, width=12, batch=6, context=3, embedding=5)
    assert all(row["speedup"] > 0.0 for row in paper_table(small, rounds=1, device="cuda"))
