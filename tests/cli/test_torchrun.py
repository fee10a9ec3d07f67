"""The program started by torchrun: one log, one report, one line of an error, and runs that survive kills."""

from __future__ import annotations

import json
import random
import re
import signal
import time
from pathlib import Path

import pytest
import torch
from support import several_runs, torchrun
from support.cli_runs import FILES, call
from support.processes import wait_for_steps

from widehead.cli import torchrun as torchrun_of_program

pytestmark = pytest.mark.long


def recommender(folder: Path, *more: str) -> list[str | Path]:
    options = FILES["recommender"](folder)
    return ["train", "recommender", folder / "train.txt", "--test", folder / "test.txt", *options, *more]


def own(lines: list[str]) -> list[str]:
    """Those that are the program's, and not torchrun's."""
    return [line for line in lines if line.startswith("widehead: ")]


def test_one_line_and_one_code(tmp_path: Path) -> None:
    arguments = recommender(tmp_path, "--out", str(tmp_path / "run"))
    arguments[2] = tmp_path / "none.txt"
    _, out, err = torchrun.ended(torchrun.start(*arguments))
    assert out == ""
    assert len(own(err)) == 1
    assert own(err)[0].endswith("none.txt: there is no such file.")
    codes = re.findall(r"exitcode  : (-?\d+) ", "\n".join(err))
    assert "2" in codes, err
    assert set(codes) <= {"2", "-15"}, err  # torchrun ends whoever has not ended by itself as it looks
    assert not (tmp_path / "run").exists()


def test_a_dry_run_says_once_what_a_process_takes(tmp_path: Path) -> None:
    arguments = recommender(tmp_path, "--out", str(tmp_path / "run"), "--dry-run", "--json")
    code, out, err = torchrun.ended(torchrun.start(*arguments))
    assert (code, own(err)) == (0, [])
    found = json.loads(out)
    assert (found["processes"], found["classes"]) == (2, 60)
    assert found["timed_steps"] >= 3
    assert not (tmp_path / "run").exists()


def test_sequences_with_no_options_but_the_length(tmp_path: Path) -> None:
    FILES["next-item"](tmp_path)
    run = tmp_path / "run"
    process = torchrun.start("train", "next-item", tmp_path / "train.txt", "--epochs", "1", "--out", run)
    code, _, err = torchrun.ended(process)
    assert (code, own(err)) == (0, [])
    config = json.loads((run / "config.json").read_text())
    assert (config["tied"], config["head"]) == (True, "sampled")
    judged = call("evaluate", run, "--test", tmp_path / "test.txt", "--json")
    assert judged.code == 0, judged.err


def test_other_commands_are_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchrun_of_program, "size", lambda: 2)
    monkeypatch.setattr(torchrun_of_program, "rank", lambda: 0)
    monkeypatch.setattr(torchrun_of_program, "ended", lambda code: (True, code))
    said = "rank 0: error: Invalid value: `widehead train` runs in several processes. Found `widehead evaluate`"
    assert said in call("evaluate", "run").err


def test_one_log_a_kill_and_a_signal_that_leaves_a_run_for_one_process(tmp_path: Path) -> None:
    run = tmp_path / "run"
    endless = recommender(
        tmp_path, "--epochs", "100000", "--evaluate-every", "3 epochs", "--checkpoint-every", "9 steps"
    )
    process = torchrun.start(*endless, "--out", run, restarts=1)
    wait_for_steps(run, process)
    torchrun.kill_one(torchrun.workers(process), run, 0, random.Random(0), in_save=False)
    killed = torchrun.stamp(run / "checkpoints" / "last.safetensors")
    while process.poll() is None and torchrun.stamp(run / "checkpoints" / "last.safetensors") == killed:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, _, err = torchrun.ended(process)
    assert err.count("2 processes, 1 thread each.") == 2  # one an attempt
    judged = [record["epoch"] for record in several_runs.log_of(run) if record["kind"] == "evaluation"]
    assert judged == [3.0 * (i + 1) for i in range(len(judged))] != []
    gone, stopped = own(err)
    assert re.match(r"widehead: rank [01]: error: All processes of a head should be there", gone)
    assert stopped.startswith("widehead: stopped at step")
    assert "Go on with: torchrun --nproc-per-node 2 -m widehead train recommender --out" in stopped
    assert (run / "report.html").exists()
    assert call("evaluate", run, "--test", tmp_path / "test.txt", "--json").code == 0
    more = int(several_runs.log_of(run)[-1]["epoch"]) + 2
    assert call("train", "recommender", "--out", run, "--resume", "--epochs", str(more), "--quiet").code == 0


def test_who_began_a_run_goes_on_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nobody else, whose first attempt was refused."""
    monkeypatch.setattr(torchrun_of_program, "size", lambda: 2)
    monkeypatch.setattr("torch.distributed.broadcast_object_list", lambda told, source: None)
    (tmp_path / "config.json").touch()
    for name, value in {"TORCHELASTIC_RUN_ID": "a", "RANK": "0", "TORCHELASTIC_RESTART_COUNT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert not torchrun_of_program.goes_on(tmp_path)
    torchrun_of_program.began(tmp_path)
    assert torchrun_of_program.goes_on(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "b")
    assert not torchrun_of_program.goes_on(tmp_path)


def test_only_those_who_began_a_run_go_on_with_it_when_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another torchrun finds a run that is there, and refuses it as one process does."""
    given = {"TORCHELASTIC_RUN_ID": "one", "WORLD_SIZE": "2", "RANK": "0", "TORCHELASTIC_RESTART_COUNT": "1"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.distributed, "broadcast_object_list", lambda told, src: None)  # rank 0 is all there is
    assert not torchrun_of_program.goes_on(tmp_path)
    torchrun_of_program.began(tmp_path)
    assert not torchrun_of_program.goes_on(tmp_path), "nothing was begun but the folder"
    (tmp_path / "config.json").touch()
    assert torchrun_of_program.goes_on(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert not torchrun_of_program.goes_on(tmp_path), "nobody was started again"
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "another")
    assert not torchrun_of_program.goes_on(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    torchrun_of_program.finished(tmp_path)
    assert not torchrun_of_program.goes_on(tmp_path)
