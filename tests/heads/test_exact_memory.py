"""Memory of the exact head: V, one byte a row, and buffers whose size does not depend on the number of classes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import widehead as wh

WIDTH, BATCH = 32, 64


def peak_of_a_step(num_classes: int, **options: Any) -> int:
    """Most bytes that a step allocates beyond what there is, in 100 steps with closes and sweeps."""
    torch.manual_seed(0)
    head = wh.ExactHead(WIDTH, num_classes, wh.losses.WeightedSquaredError(0.05), **options)
    optimizer = wh.optim.SGD(head, lr=0.1)
    head.weights.versions.fanouts = (3, 3)  # so that rows are moved within some hundred steps

    def step() -> None:
        loss = head(torch.randn(BATCH, WIDTH) + 2.0, torch.randint(0, num_classes, (BATCH, 5)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    for _ in range(60):
        step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        for _ in range(100):
            step()
    audit = head.audit()
    assert audit.closes > 4
    assert audit.moved_rows > 0
    assert profile.profiler is not None
    events = profile.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    present = peak = 0
    for _, size in changes:
        present += size
        peak = max(peak, present)
    return peak


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"storage_dtype": torch.bfloat16}, marks=pytest.mark.long),
        pytest.param({"storage": "rows"}, marks=pytest.mark.long),
    ],
)
def test_a_step_allocates_no_more_where_there_are_more_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    few = peak_of_a_step(20_000, **options)
    (tmp_path / "rows").unlink(missing_ok=True)
    many = peak_of_a_step(600_000, **options)
    assert few > 0
    # A sweep looks at more rows a step where there are more, up to one block of them.
    assert many < few + (6 << 20)
    assert many < 600_000 * WIDTH * 4 / 10


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux, which tells the peak of memory")
def test_the_peak_of_everything_is_the_rows_and_a_tenth(tmp_path: Path) -> None:
    classes, width = 510_000, 64
    script = [
        sys.executable,
        str(Path(__file__).parents[1] / "support" / "peak.py"),
        str(classes),
        str(width),
        str(tmp_path),
    ]
    # What is freed goes back to the system at once, so that the peak is what was needed.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    peaks = json.loads(subprocess.run(script, check=True, capture_output=True, text=True, env=environment).stdout)
    size = classes * width * 4
    for action, peak in peaks.items():
        assert peak <= 1.1 * size, action
    assert peaks["train"] > 0.99 * size
