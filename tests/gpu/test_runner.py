"""The two commands for a card: what they say without one, what they keep, and how they judge."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
import unittest
from pathlib import Path
from types import ModuleType

import pytest
from support.played import Device

from gpu.__main__ import checks, outcome, time_limit
from gpu.device import note

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_recipe", ROOT / "recipes" / "gpu.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("command", [["-m", "gpu"], ["recipes/gpu.py"]])
def test_without_a_card_there_is_one_clear_error(command: list[str], tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, *command, str(tmp_path / "out")], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "that torch can use. Found none:" in done.stderr
    assert "Traceback" not in done.stderr


def test_every_function_is_a_check() -> None:
    names = [name for name, _ in checks()]
    assert "test_steps: a warm step waits for nothing" in names
    assert len(names) == len(set(names)) >= 12


def fails() -> None:
    note(off_by=0.5)
    raise AssertionError("too far off")


def test_outcomes() -> None:
    found = outcome(fails)
    assert (found["status"], found["reason"]) == ("failed", "AssertionError: too far off")
    assert found["figures"] == {"off_by": 0.5}
    assert "fails" in found["trace"]
    assert outcome(lambda: None) == {"status": "passed", "seconds": pytest.approx(0.0, abs=1.0), "figures": {}}

    def skips() -> None:
        raise unittest.SkipTest("needs polars")

    assert outcome(skips)["status"] == "skipped"
    with time_limit(0.05):
        assert outcome(lambda: time.sleep(30.0))["reason"] == "the time ran out"


def test_rows_are_kept_and_promises_are_judged(recipe: ModuleType, played: Device, tmp_path: Path) -> None:
    lines, log = tmp_path / "bench.jsonl", tmp_path / "bench.log"
    with lines.open("w") as rows, log.open("w") as told:
        report = recipe.Report(rows, told)
        recipe.time_steps(report, (300, 8, 4), ("exact", "exact-captured", "dense"), "cuda")
        recipe.time_top_k(report, (300, 8, 4), "cuda")
        kept = [json.loads(line) for line in lines.read_text().splitlines()]
        assert [row["method"] for row in kept] == ["exact", "exact-captured", "dense", "top_k"]
        assert all(row["seconds"] > 0.0 for row in kept)
        recipe.time_steps(report, (10**12, 300, 128), ("exact",), "cuda")
        assert "GB free" in json.loads(lines.read_text().splitlines()[-1])["skipped"]
        shared = dict(zip(("classes", "width", "batch"), recipe.PAPER, strict=True))
        for method, seconds in (("exact-captured", 1.0), ("dense", 7.9)):
            report.add(
                {**shared, "method": method, "seconds": seconds, "skipped": None, "group": "exact-captured+dense"}
            )
        judged = {name: (found, holds) for name, found, holds in recipe.promises(report)}
    assert judged[f"{recipe.PAPER}: captured at least 8 times faster than dense"] == (pytest.approx(7.9), False)
    assert judged[f"{recipe.PAPER}: captured at least 3 times faster than dense-tf32"][0] is None
    assert "top_k of 300 classes, 4 examples: within 5 readings of V" in judged
    assert "top_k" in log.read_text()
