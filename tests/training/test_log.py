"""The log and the displays."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import random
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from widehead.errors import CheckpointError
from widehead.training.log import BarDisplay, Display, MetricsLog, PlainDisplay, Status, display_for, read_metrics
from widehead.training.timing import rate_factor

WHERE = {"epoch": 0.5, "seconds": 1.5}
STATUS = Status(done=0.25, step=1234, loss=1.5, examples_per_second=9876.4, head_share=0.335, seconds_left=3723.0)


def test_lines_come_back_and_are_cut_at_a_step(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in (5, 10, 15):
        log.write({"kind": "train", "step": step, **WHERE, "loss": step / 2})
        log.write({"kind": "evaluation", "step": step, **WHERE, "recall@20": float("nan")})
    assert len(read_metrics(log.path)) == 6
    line = json.loads(log.path.read_text().splitlines()[1])
    assert line == {"kind": "evaluation", "step": 5, **WHERE, "recall@20": None}
    log.cut(10)
    assert [r["step"] for r in read_metrics(log.path)] == [5, 5, 10, 10]
    log.cut(0)
    assert read_metrics(log.path) == []


def test_a_last_line_that_a_kill_cut_short_is_left_out(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write({"kind": "train", "step": 5, **WHERE})
    with log.path.open("a") as file:
        file.write('{"kind": "tr')
    assert len(read_metrics(log.path)) == 1
    log.cut(5)
    log.write({"kind": "train", "step": 6, **WHERE})
    assert [r["step"] for r in read_metrics(log.path)] == [5, 6]


@pytest.mark.parametrize(
    "wrong",
    [
        "nonsense",
        "",
        "3",
        "[]",
        "{}",
        '{"kind": "train", "step": 1}',
        '{"kind": "other", "step": 1, "epoch": 1, "seconds": 1}',
        '{"kind": "train", "step": 1.5, "epoch": 1, "seconds": 1}',
        '{"kind": "train", "step": 1, "epoch": 1, "seconds": 1, "loss": "low"}',
        "[" * 100_000,
    ],
    ids=range(10),
)
def test_a_line_in_the_middle_that_is_wrong_is_named(tmp_path: Path, wrong: str) -> None:
    right = json.dumps({"kind": "train", "step": 1, **WHERE})
    (tmp_path / "metrics.jsonl").write_text(f"{right}\n{wrong}\n{right}\n")
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl, line 2, should be"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_a_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl") == []
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.cut(3)
    assert read_metrics(log.path) == []


def test_a_log_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="could not be written"):
        MetricsLog(tmp_path / "missing" / "metrics.jsonl").write({"step": 1})


def test_status_reads_well() -> None:
    assert str(STATUS) == "step 1,234 | loss 1.5 | 9,876 examples/s | head 34% | 1:02:03 left"
    assert "? left" in str(Status(0.0, 1, 1.0, 1.0, 0.5, float("inf")))


def test_plain_lines_are_occasional() -> None:
    stream = io.StringIO()
    display = PlainDisplay(stream, seconds=1000.0)
    display.update(STATUS)
    assert stream.getvalue() == ""
    display.say("epoch 1: recall@20 0.5")
    often = PlainDisplay(stream, seconds=0.0)
    often.update(STATUS)
    assert stream.getvalue() == f"epoch 1: recall@20 0.5\n 25% | {STATUS}\n"


def test_the_bar_shows_status_and_lines() -> None:
    stream = io.StringIO()
    display = BarDisplay(stream)
    display.update(STATUS)
    display.say("epoch 1: [recall@20] 0.5")
    display.close()
    assert "epoch 1: [recall@20] 0.5" in stream.getvalue()
    assert "head 34%" in stream.getvalue()


def test_the_display_fits_where_it_goes() -> None:
    assert type(display_for(quiet=True)) is Display
    assert isinstance(display_for(quiet=False), PlainDisplay)


class ZMQInteractiveShell:
    """The shell of a notebook; that of Colab is derived from it."""


class Shell(ZMQInteractiveShell):
    pass


class Handle:
    """Keeps what the line of a cell shows."""

    shown: ClassVar[list[tuple[str, str]]] = []

    def display(self, data: dict[str, str], raw: bool) -> None:
        self.shown.append(("new", data["text/plain"]))

    def update(self, data: dict[str, str], raw: bool) -> None:
        self.shown.append(("anew", data["text/plain"]))


@pytest.mark.parametrize("shell", [ZMQInteractiveShell, Shell])
def test_a_notebook_has_one_line_that_is_written_anew(shell: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handle, "shown", [])
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(DisplayHandle=Handle))
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    assert type(display_for(quiet=True)) is Display
    display = display_for(quiet=False)
    for _ in range(3):
        display.update(STATUS)
    assert Handle.shown == [("new", f"██████░░░░░░░░░░░░░░░░░░  25% | {STATUS}")]
    display.say("epoch 1")
    display.update(dataclasses.replace(STATUS, done=1.0))
    display.close()
    assert [kind for kind, _ in Handle.shown] == ["new", "anew"]
    assert stream.getvalue() == "epoch 1\n"


def test_a_shell_in_a_terminal_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: io.StringIO()))
    assert type(display_for(quiet=False)) is PlainDisplay


def test_a_real_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    rng = random.Random(0)
    (tmp_path / "train.txt").write_text("".join(f"u{n} i{rng.randrange(9)} i{rng.randrange(9)}\n" for n in range(40)))
    code = (
        "import widehead as wh\nfrom widehead.jobs import configure\n"
        f"config = configure('recommender', train={str(tmp_path / 'train.txt')!r}, out={str(tmp_path / 'run')!r}, "
        "encoder_lr=0.01, epochs=None, minutes=0.02, at=(2,))\n"
        "run = wh.Run.new(config)\nrun.train()\nrun"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(notebook, timeout=120).execute()
    outputs = notebook.cells[0].outputs
    lines = [out.data["text/plain"] for out in outputs if out.output_type == "display_data"]
    assert len(lines) == 1
    assert "examples/s" in lines[0]
    assert outputs[-1].data["text/plain"].startswith("Run(")


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
def test_schedules_start_at_one_and_end_where_they_say(schedule: str) -> None:
    rates = [rate_factor(schedule, 0, step, step / 100) for step in range(101)]
    assert rates[0] == 1.0
    assert rates[-1] == pytest.approx(1.0 if schedule == "constant" else 0.0, abs=1e-12)
    assert rates == sorted(rates, reverse=True)
    assert rate_factor(schedule, 0, 50, 0.5) == pytest.approx(1.0 if schedule == "constant" else 0.5)
    assert rate_factor(schedule, 10, 4, 0.0) == 0.5
