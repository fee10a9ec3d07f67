"""The program as a process of its own: exit codes, signals, pipes, a full disk behind standard output."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.cli_runs import FILES, Called
from support.processes import ENVIRONMENT, start, wait_for_steps

pytestmark = pytest.mark.long

Trained = dict[str, tuple[Path, Called]]


def test_bad_input_in_a_process(tmp_path: Path) -> None:
    process = start("train", "recommender", tmp_path / "no.txt", "--out", tmp_path / "run", "--json")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err == f"widehead: error: {tmp_path / 'no.txt'}: there is no such file.\n"
    assert not any(tmp_path.iterdir())


def test_bugs_show_a_traceback() -> None:
    broken = (
        "import widehead.cli.files\n"
        "from widehead.runs import Run\n"
        "def bug(*a, **k): return [][1]\n"
        "Run.open = bug\n"
        "from widehead.cli import main; main(['evaluate', 'run'])"
    )
    ended = subprocess.run([sys.executable, "-c", broken], capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr
    assert "IndexError" in ended.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_resume(number: signal.Signals, tmp_path: Path) -> None:
    options = [*FILES["recommender"](tmp_path), "--epochs", "1000000", "--evaluate-every", "1000 epochs"]
    out = tmp_path / "run with space"
    process = start("train", "recommender", tmp_path / "train.txt", "--out", out, "--json", *options)
    wait_for_steps(out, process)
    process.send_signal(number)
    told, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(told)["status"] == "interrupted"
    last = err.splitlines()[-1]
    assert re.fullmatch(
        r"widehead: stopped at step [\d,]+ \(epoch [\d.]+\) with a checkpoint in .*run with space\. "
        r"Go on with: widehead train recommender --out '.*run with space' --resume",
        last,
    )
    assert (out / "checkpoints" / "last.safetensors").exists()
    assert (out / "report.html").exists()
    assert not list(tmp_path.rglob("*.tmp"))
    if number == signal.SIGTERM:
        return
    step = json.loads(told)["step"]
    again = start("train", "recommender", "--out", out, "--resume", "--minutes", "0.01", "--json")
    told, _ = again.communicate(timeout=60)
    assert again.returncode == 0
    assert json.loads(told)["step"] >= step


def test_ctrl_c_while_reading_leaves_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "slow.txt")
    process = start("train", "recommender", tmp_path / "slow.txt", "--out", tmp_path / "run")
    pipe = os.open(tmp_path / "slow.txt", os.O_WRONLY)  # returns once the program reads
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    os.close(pipe)
    assert (process.returncode, out, err) == (130, "", "widehead: interrupted.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["slow.txt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_full_disk_behind_standard_output(options: list[str], trained: Trained) -> None:
    run = trained["recommender"][0] / "run"
    with Path("/dev/full").open("w") as full:
        process = start("evaluate", run, *options, stdout=full)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err == "widehead: error: No space left on device\n"


def test_a_reader_that_stops_early(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "many.txt").write_text("".join(f"user{n} i0 i1\n" for n in range(20_000)))
    process = start("predict", trained["recommender"][0] / "run", tmp_path / "many.txt")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("user0: ")
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 1


def test_names_that_the_terminal_cannot_show(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "input.txt").write_text("zoë→ i0 i1\n", encoding="utf-8")
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": "ascii"}
    process = start("predict", trained["recommender"][0] / "run", tmp_path / "input.txt", env=environment)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.startswith("zo??: ")


def test_commands_import_what_they_need() -> None:
    """The help of the program needs neither readers nor plots."""
    code = (
        "import sys, contextlib, io\n"
        "from widehead.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit): main(['--help'])\n"
        "print([name for name in ('polars', 'scipy', 'matplotlib', 'jinja2', 'safetensors') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert ended.stdout == "[]\n"
