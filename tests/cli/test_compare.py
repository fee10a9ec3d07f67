"""``widehead compare``: what it prints, what it leaves, how it goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.cli_runs import assert_refused, call, recommender_files
from support.contending import compare_module, in_this_process

pytestmark = pytest.mark.long

COMMON = ["--width", "8", "--batch-size", "16", "--encoder-lr", "0.02", "--at", "6", "--quiet"]


def arguments(folder: Path, *more: str) -> list[str]:
    recommender_files(folder)
    files = [str(folder / "train.txt"), "--test", str(folder / "test.txt"), "--out", str(folder / "out")]
    return ["compare", "recommender", *files, *COMMON, *more]


def test_the_table_and_the_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_module, "_contend", in_this_process)
    heads = ["--heads", "exact,small=sampled", "--epochs", "2", "--set", "small:negatives=5"]
    called = call(*arguments(tmp_path, *heads))
    assert called.code == 0, called
    assert "recall@6" in called.out
    assert " wins with recall@6 " in called.out
    assert called.err.startswith("Folder ")
    lines = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [(line["name"], line["head"], line["status"]) for line in lines] == [
        ("exact", "exact", "finished"),
        ("small", "sampled", "finished"),
    ]
    config = json.loads((tmp_path / "out" / "small" / "config.json").read_text())
    assert config["head_options"] == {"negatives": 5}
    again = call(*arguments(tmp_path, *heads, "--resume", "--json"))
    told = json.loads(again.out)
    assert again.err == f"Folder {tmp_path / 'out'}, report {told['report']}.\n"
    assert told["objective"] == "recall@6"
    assert sorted(told["results"], key=lambda r: r["name"]) == lines
    assert told["verdict"] in called.out


def test_an_earlier_comparison_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert_refused(call(*arguments(tmp_path)), "add --resume")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--heads", "dense"], "one of exact, full"),
        (["--set", "exact.loss=z-loss"], "NAME:OPTION=VALUE"),
        (["--set", "sampled:negatives=3"], "one of exact, full"),
        (["--set", "exact:loss=zloss"], "--loss should be one of"),
        (["--width", "0"], "--width should be"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_done(more: list[str], message: str, tmp_path: Path) -> None:
    assert_refused(call(*arguments(tmp_path, *more)), message)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_goes_on_with_resume(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The contender at work leaves a checkpoint, and what was not begun is not begun."""
    given = arguments(tmp_path, "--heads", "exact,full", "--minutes", "0.05", "--checkpoint-every", "1 epoch")
    program = [sys.executable, "-c", "from widehead.cli import main; main()", *given]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    checkpoint = tmp_path / "out" / "exact" / "checkpoints" / "last.safetensors"
    until = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Go on with the same command and --resume" in err
    assert "Traceback" not in err
    assert "interrupted" in (tmp_path / "out" / "results.jsonl").read_text()
    assert not (tmp_path / "out" / "full").exists()
    if number == signal.SIGTERM:  # what is left is the same
        return
    monkeypatch.setattr(compare_module, "_contend", in_this_process)
    assert call(*given, "--resume").code == 0
    lines = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["finished", "finished"]
