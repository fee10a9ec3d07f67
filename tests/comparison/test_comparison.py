"""Comparisons: every contender gets the same, what was done is not done again, and the verdict says who is ahead."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from support.contending import in_this_process
from support.job_files import FILES

from widehead.comparison import (
    Result,
    compare,
    comparison_table,
    contenders,
    objective,
    ranked,
    verdict,
    write_comparison,
)
from widehead.comparison.page import _curves, _settings
from widehead.errors import CheckpointError, UnstableStepWarning
from widehead.options import TrainingConfig

compare_module = importlib.import_module("widehead.comparison.compare")  # the room has a function of that name
HEADS = ["exact", "taylor=exact", "full"]
SETTINGS = [("taylor", "loss", "taylor-softmax"), ("full", "head_lr", 0.05)]


def configs(folder: Path, **options: Any) -> dict[str, TrainingConfig]:
    made = FILES["recommender"](folder) | {"train": str(folder / "train.txt"), "test": str(folder / "test.txt")}
    return contenders("recommender", HEADS, SETTINGS, folder / "out", **{**made, "epochs": 3, **options})


def result(name: str, **metrics: float) -> Result:
    return Result(name, "full", "finished", metrics, 2.0, 10, 1.0, None, [{"seconds": 1.0, "step": 5, **metrics}])


def test_a_step_takes_what_is_left_of_seconds_after_preparation() -> None:
    result = Result("a", "exact", "finished", {}, 2.0, 10, preparation=0.5)
    assert result.milliseconds_a_step == 150.0
    assert Result("a", "exact", "why it failed").milliseconds_a_step is None


def test_contenders_share_all_but_what_is_set_for_one(tmp_path: Path) -> None:
    made = configs(tmp_path)
    assert {name: (c.head, c.loss) for name, c in made.items()} == {
        "exact": ("exact", "weighted-squared-error"),
        "taylor": ("exact", "taylor-softmax"),
        "full": ("full", None),
    }
    assert made["full"].head_lr == 0.05
    own = {"out", "head", "head_lr", "head_optimizer", "loss", "loss_options"}
    for config in made.values():
        assert all(getattr(config, k) == v for k, v in vars(made["exact"]).items() if k not in own)


def test_recommenders_are_compared_with_one_encoder_that_is_trained() -> None:
    made = contenders("recommender", ["exact", "full"], [], Path("out"), train="x", test="y")
    for name in ("encoder_init", "encoder_lr", "width", "input_dropout", "target_power", "schedule", "batch_size"):
        assert getattr(made["exact"], name) == getattr(made["full"], name)
    assert (made["exact"].encoder_init, made["exact"].encoder_lr) == ("random", 3e-3)


@pytest.mark.parametrize("job", ["recommender", "multilabel", "next-item", "language-model"])
def test_output_layers_are_compared_without_what_ranks_beside_them(job: str) -> None:
    """Neighbours hide how heads differ, and a direct term goes with one of them alone."""
    made = contenders(job, ["exact", "sampled"], [], Path("out"), train="x", test="y")
    assert [(one.neighbours, one.direct) for one in made.values()] == [(0, 0.0), (0, 0.0)]
    if job != "language-model":
        assert contenders(job, ["full"], [], Path("out"), train="x", test="y", neighbours=9)["full"].neighbours == 9


def test_without_a_limit_there_are_two_minutes_and_eight_evaluations() -> None:
    made = contenders("recommender", ["full"], [], Path("out"), train="x", test="y")["full"]
    assert (made.minutes, made.epochs, float(made.evaluate_every.split()[0])) == (2.0, None, 15.0)
    limits = {"minutes": 4.0, "evaluate_every": "7 steps"}
    made = contenders("recommender", ["full"], [], Path("out"), train="x", test="y", **limits)["full"]
    assert (made.minutes, made.evaluate_every) == (4.0, "7 steps")
    made = contenders("recommender", ["full"], [], Path("out"), train="x", test="y", epochs=5)["full"]
    assert (made.minutes, made.epochs) == (None, 5)


@pytest.mark.parametrize(
    ("heads", "settings", "message"),
    [
        (["dense"], [], "one of exact, full"),
        (["full", "full"], [], "name of its own"),
        (["../up=full"], [], "letters, digits"),
        (["full"], [("exact", "loss", "z-loss")], "one of full. Found 'exact'"),
        (["sampled"], [("sampled", "negativ", 3)], "takes: negatives"),
    ],
)
def test_wrong_contenders_are_named(heads: list[str], settings: list[tuple[str, str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        contenders("recommender", heads, settings, Path("out"), train="x", test="y")


def test_a_comparison_needs_something_to_judge_by(tmp_path: Path) -> None:
    made = contenders("recommender", ["full"], [], tmp_path / "out", train="x")
    with pytest.raises(ValueError, match="`test` or `holdout`"):
        compare(made, tmp_path / "out", quiet=True)


def test_the_folder_holds_all_and_finished_contenders_are_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, out = configs(tmp_path), tmp_path / "out"
    first = compare({"exact": made["exact"]}, out, quiet=True)
    lines: list[str] = []
    monkeypatch.setattr(compare_module, "_contend", in_this_process)
    results = compare(made, out, quiet=True, say=lines.append)
    assert [r.name for r in results] == ["exact", "taylor", "full"]
    assert results[0] == first[0]
    assert [line.split(":")[0] for line in lines] == ["taylor", "taylor", "full", "full"]
    for found in results:
        assert found.status == "finished"
        assert (found.epochs, len(found.curve)) == (3.0, 1)
        assert found.curve[-1]["recall@6"] == found.metrics["recall@6"] > 0.05
        assert found.peak_bytes is None or found.peak_bytes > 50_000_000
    written = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [Result(**line) for line in written] == results
    page = write_comparison(out, made, results).read_text()
    assert verdict(results).split(" wins")[0] in page
    assert (out / "comparison.png").read_bytes()[:4] == b"\x89PNG"
    changed = {"exact": dataclasses.replace(made["exact"], width=9)}
    with pytest.raises(CheckpointError, match=r"made with width = 8\. Found 9"):
        compare(changed, out, quiet=True)


def test_a_contender_that_diverges_does_not_end_the_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_module, "_contend", in_this_process)
    made, out = configs(tmp_path), tmp_path / "out"
    bad = dataclasses.replace(made["exact"], head_optimizer="sgd", head_lr=1e12)
    with pytest.warns(UnstableStepWarning):
        results = compare({"exact": bad, "full": made["full"]}, out, quiet=True)
    assert results[0].status.startswith("failed: Training stopped at step")
    assert [r.name for r in ranked(results)] == ["full", "exact"]
    assert "What failed" in write_comparison(out, made, results).read_text()


def test_what_is_done_and_what_is_left_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A contender that failed would fail again; one that was interrupted goes on; those after it come later."""
    made = contenders("recommender", ["a=full", "b=full", "c=full", "d=full"], [], tmp_path, train="x", holdout=0.1)
    ends = {"a": "finished", "b": "failed: no memory", "c": "interrupted", "d": "finished"}
    trained: list[str] = []

    def contend(name: str, config: TrainingConfig, quiet: bool, processes: int) -> Result:
        trained.append(name)
        return dataclasses.replace(result(name), status=ends[name])

    monkeypatch.setattr(compare_module, "_contend", contend)
    assert [r.name for r in compare(made, tmp_path, quiet=True)] == ["a", "b", "c"] == trained
    ends["c"] = "finished"
    results = compare(made, tmp_path, quiet=True)
    assert [(r.name, r.status) for r in results] == list(ends.items())
    assert trained == ["a", "b", "c", "c", "d"]
    assert [json.loads(line)["name"] for line in (tmp_path / "results.jsonl").read_text().splitlines()] == list(ends)


def _dies(*_: object) -> None:
    os._exit(9)


@pytest.mark.long
def test_a_process_that_dies_is_a_contender_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_module, "_child", _dies)
    made = contenders("recommender", ["full"], [], tmp_path, train="x", test="y")
    (found,) = compare(made, tmp_path, quiet=True)
    assert found.status == "failed: its process ended with 9, as where memory is short"


@pytest.mark.long
def test_contenders_in_two_processes_are_those_of_one(tmp_path: Path) -> None:
    made = configs(tmp_path, dtype="float64", input_dropout=0.0)
    made.pop("exact")
    more = {name: dataclasses.replace(config, out=str(tmp_path / "two" / name)) for name, config in made.items()}
    one = compare(made, tmp_path / "out", quiet=True)
    two = compare(more, tmp_path / "two", quiet=True, processes=2)
    for mine, theirs in zip(two, one, strict=True):
        assert (mine.status, mine.steps) == (theirs.status, theirs.steps)
        assert mine.metrics == pytest.approx(theirs.metrics)
    bad = {"bad": dataclasses.replace(more["full"], device="cuda", out=str(tmp_path / "bad"))}
    with pytest.raises(ValueError, match="bad: Option `device` should be cpu in several processes"):
        compare(bad, tmp_path / "bad-out", quiet=True, processes=2)


def test_a_damaged_file_of_results_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.jsonl").write_text("{}")
    with pytest.raises(CheckpointError, match="should hold the results"):
        compare(configs(tmp_path), tmp_path / "out", quiet=True)


def test_the_first_metric_that_all_have_decides() -> None:
    both = [result("a", perplexity=90.0, recall=0.1), result("b", perplexity=100.0, recall=0.2)]
    assert objective(both) == "perplexity"
    assert verdict(both) == "a wins with perplexity 90, 10 % lower than b (100)."
    three = [*both, result("c", mean_rank=3.0, recall=0.5)]
    assert objective(three) == "recall"
    assert [r.name for r in ranked(three)] == ["c", "b", "a"]
    assert verdict(three) == "c wins with recall 0.5, 2 times that of b (0.2)."
    diverged = [result("a", perplexity=math.inf), result("b", perplexity=90.0), result("c", perplexity=math.nan)]
    assert [r.name for r in ranked(diverged)] == ["b", "a", "c"]
    assert verdict(diverged) == "b wins with perplexity 90, against a (inf)."
    assert verdict([result("a", recall=0.0), result("b", recall=0.5)]) == "b wins with recall 0.5, against a (0)."
    assert verdict([result("a", recall=0.5), result("b", recall=0.5)]) == "a and b are level with recall 0.5."
    assert verdict([]) == "No contender has a result yet."
    assert verdict([result("a", recall=0.5)]) == "a wins with recall 0.5, alone."
    assert verdict([result("a", x=1.0), result("b", y=1.0)]) == "The contenders have no metric in common."
    assert [row[0] for row in comparison_table(three).rows] == ["c", "b", "a"]


def test_figures_of_a_contender() -> None:
    one = dataclasses.replace(result("a", recall=0.25), peak_bytes=1_234_000_000)
    table = comparison_table([one, result("b", mean_rank=3.0)])
    assert list(table.header[:4]) == ["name", "head", "recall", "mean_rank"]
    assert list(table.rows[0]) == ["a", "full", "0.25", "–", "2.0", "1.00", "10", "200", "1,234 MB"]
    assert list(table.rows[1]) == ["b", "full", "–", "3", "2.0", "1.00", "10", "200", "–"]
    assert dataclasses.replace(one, steps=0).milliseconds_a_step is None


def test_curves_are_over_the_times_of_all_and_what_decides_comes_first() -> None:
    a = [{"seconds": 3.0, "step": 9, "recall": 0.3, "perplexity": 80.0}]
    b = [{"seconds": s, "step": 1, "recall": 0.1, "perplexity": 90.0 - s} for s in (1.0, 4.0)]
    results = [
        dataclasses.replace(result(name, perplexity=curve[-1]["perplexity"]), curve=curve)
        for name, curve in (("b", b), ("a", a))
    ]
    first, second = _curves(results)
    assert (first.title, second.title) == ("perplexity", "recall")
    assert list(first.x) == [1.0, 3.0, 4.0]
    assert first.lines == {"a": [None, 80.0, None], "b": [89.0, None, 86.0]}
    assert list(first.lines) == ["a", "b"]


def test_the_page_tells_the_limit_what_differs_and_what_failed(tmp_path: Path) -> None:
    def page(**limit: Any) -> str:
        settings = [("b", "head_lr", 0.125)]
        made = contenders("recommender", ["a=full", "b=full"], settings, tmp_path, train="x", test="y", **limit)
        shown = {row[0]: row[1] for row in _settings(made).rows}
        assert "width" in shown
        assert (shown["a: head_lr"], shown["b: head_lr"]) == ("–", "0.125")
        assert not {"a: width", "out", "a: out"} & set(shown)
        failed = dataclasses.replace(result("b"), status="failed: no memory", metrics={}, curve=())
        return write_comparison(tmp_path, made, [result("a", recall=0.5), failed]).read_text()

    assert "and 3 epochs of training" in page(epochs=3)
    assert "and 1 epoch of training" in page(epochs=1)
    assert "and 0.5 minutes of training" in page(minutes=0.5)
    assert "and 1 minute of training" in page(minutes=1.0)
    told = page(epochs=1)
    assert told.count("failed: no memory") == 1
    assert "<td>finished</td>" not in told
