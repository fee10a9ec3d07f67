"""``widehead bench``: sweeps, what is left out, rows in a file, plots, the paper's table and upkeep."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cli_runs import call

SMALL = ["--width", "8", "--batch", "4", "--rounds", "1"]


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("widehead.bench.measure._SLICE", 1e-9)
        yield


def test_a_sweep_times_every_combination(tmp_path: Path) -> None:
    out, plot = tmp_path / "rows.jsonl", tmp_path / "steps.png"
    out.write_text('{"earlier": true}\n')
    sizes = ["--classes", "200,300", "--width", "4", "--batch", "4", "--targets", "1,2", "--rounds", "1"]
    called = call("bench", "output-layer", *sizes, "--out", out, "--plot", plot, "--json")
    assert called.code == 0
    assert called.err.startswith("4 combinations: 2 of --classes × 2 of --targets.\n")
    rows = json.loads(called.out)["rows"]
    sizes_timed = {(row["classes"], row["width"], row["batch"], row["targets_per_example"]) for row in rows}
    assert sizes_timed == {(d, 4, 4, k) for d in (200, 300) for k in (1, 2)}
    assert [row["method"] for row in rows] == ["exact", "dense"] * 4
    assert [json.loads(line) for line in out.read_text().splitlines()] == [{"earlier": True}, *rows]
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_what_is_left_out_is_said_and_stays_in_the_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("widehead.bench.output_layer.available_memory", lambda device: 60_000)
    out, plot = tmp_path / "rows.jsonl", tmp_path / "steps.html"
    called = call("bench", "output-layer", "--classes", "100,1000", *SMALL, "--out", out, "--plot", plot)
    assert called.code == 0
    assert "left out: dense needs 0.0 GB, 0.0 GB together with the others. Found 0.0 GB free.\n" in called.err
    skipped = [row["skipped"] for row in map(json.loads, out.read_text().splitlines())]
    assert [reason is None for reason in skipped] == [True, True, True, False]
    assert "1,000   │ dense  │            – │" in called.out
    assert "left out" in plot.read_text()


def test_one_combination_is_a_table_with_what_was_measured_only() -> None:
    called = call("bench", "output-layer", "--classes", "300", *SMALL, "--methods", "exact, sampled")
    assert called.code == 0
    assert called.err == ""
    assert "times exact SGD" in called.out
    assert "times faster than dense" not in called.out
    assert "width 8, batch 4, targets 1" in called.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--classes", ""], "expected at least one number"),
        (["--classes", "100,x"], "expected whole numbers with commas between them. Found '100,x'"),
        (["--classes", "100,0"], "`classes` should be at least 1. Found 0."),
        (["--classes", "5,50", "--targets", "2,6"], "at most classes = 5"),
        (["--methods", "exact,magic"], "dense-cross-entropy"),
        (["--classes", "100,1000000000000"], "nothing can be timed"),
        (["--plot", "steps.svg", "--classes", "100,200"], "ends in .png or .html"),
        (["--plot", "steps.png"], "several --classes"),
        (["--device", "cuda:99"], "this machine has no usable device 'cuda:99'"),
    ],
)
def test_wrong_options_of_bench_leave_nothing(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    called = call("bench", "output-layer", *SMALL, *arguments, "--out", "rows.jsonl")
    assert called.code == 2
    assert called.err.count("\n") == 1
    assert said in called.err
    assert called.out == ""
    assert list(tmp_path.iterdir()) == []


def test_rows_that_cannot_be_written_are_one_line(tmp_path: Path) -> None:
    called = call("bench", "output-layer", *SMALL, "--classes", "50", "--out", tmp_path)
    assert called.code == 2
    assert called.err == f"widehead: error: {tmp_path}: Is a directory\n"


def test_paper_table(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    sizes = ["--classes", "300", "--width", "8", "--batch", "4", "--embedding", "4", "--rounds", "1"]
    shown = call("bench", "paper-table", *sizes, "--out", out)
    assert shown.code == 0
    assert "│ whole model " in shown.out
    assert "Published" not in shown.out  # these are not the paper's sizes
    assert [json.loads(line)["part"] for line in out.read_text().splitlines()] == ["output layer only", "whole model"]
    rows = json.loads(call("bench", "paper-table", *sizes, "--json").out)["rows"]
    assert all(row["speedup"] > 0.0 for row in rows)


def test_the_published_figure_stands_beside_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    from widehead.bench.paper import PUBLISHED

    row = {"classes": 793_471, "width": 300, "batch": 128, "device": "x", "threads": 2, "part": "output layer only"}
    times = {"dense_seconds": 2.0, "exact_seconds": 0.004, "speedup": 500.0, "published": [PUBLISHED[0]]}
    monkeypatch.setattr("widehead.bench.paper_table", lambda *sizes, **options: [{**row, **times}])
    called = call("bench", "paper-table")
    assert "│ output layer only │           2,000.0 │      4.00 │          500 │            763 │" in called.out
    assert "Published: Vincent et al. 2015, arXiv 1412.7091" in called.out


def test_upkeep(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    sizes = ["--classes", "300", "--width", "8", "--batch", "4", "--steps", "30"]
    shown = call("bench", "upkeep", *sizes, "--curvature", "0.25", "--target-distribution", "uniform", "--out", out)
    assert shown.code == 0
    assert "│ time in closing segments │" in shown.out
    assert json.loads(out.read_text())["curvature"] == 0.25
    row = json.loads(call("bench", "upkeep", *sizes, "--optimizer", "newton", "--json").out)
    assert (row["optimizer"], row["steps"]) == ("newton", 30)
    refused = call("bench", "upkeep", *sizes, "--optimizer", "newton", "--curvature", "0.5", "--out", tmp_path / "no")
    assert refused.code == 2
    assert "leave it out" in refused.err
    assert not (tmp_path / "no").exists()
