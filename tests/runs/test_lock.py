"""The lock of a run folder: one process at a time, and nothing to clean up after a kill."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path

import pytest
from support.job_files import config_of
from support.small_run import PROCESSES

from widehead.errors import CheckpointError, WideheadWarning
from widehead.runs import Run
from widehead.runs.lock import LOCK, locked
from widehead.runs.replace import remove_run


def test_it_is_held_until_the_end_and_leaves_no_file(tmp_path: Path) -> None:
    with locked(tmp_path):
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on ")
        with pytest.raises(CheckpointError, match=rf"in use by process {os.getpid()} on .*wait"), locked(tmp_path):
            pytest.fail("two hold it")
        assert (tmp_path / LOCK).exists()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    with locked(tmp_path):
        pass


def hold(folder: Path) -> None:
    with locked(folder):
        (folder / "held").touch()
        time.sleep(60)


def test_a_kill_frees_it(tmp_path: Path) -> None:
    process = PROCESSES.Process(target=hold, args=(tmp_path,))
    process.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    with pytest.raises(CheckpointError, match=f"in use by process {process.pid} on"), locked(tmp_path):
        pytest.fail("two hold it")
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert (tmp_path / LOCK).exists()
    with locked(tmp_path):
        pass
    assert not (tmp_path / LOCK).exists()


def count(folder: Path, times: int) -> None:
    """Add to a number in a file, so often, in a way that loses some where two processes are at it."""
    done = 0
    while done < times:
        try:
            with locked(folder):
                number = int((folder / "number").read_text())
                time.sleep(0.0005)
                (folder / "number").write_text(str(number + 1))
        except CheckpointError:
            time.sleep(0.0001)
            continue
        done += 1


def test_many_processes_take_turns(tmp_path: Path) -> None:
    """The file is made and removed all the time, which is where two could each hold one of their own."""
    (tmp_path / "number").write_text("0")
    processes = [PROCESSES.Process(target=count, args=(tmp_path, 30)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 3
    assert (tmp_path / "number").read_text() == "90"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    config = config_of("recommender", tmp_path, epochs=2)
    run = tmp_path / "run"
    Run.new(config).train(quiet=True)
    with locked(run):
        before = contents(tmp_path)
        with pytest.raises(CheckpointError, match="in use"):
            Run.open(run).train(quiet=True, epochs=3)
        with pytest.raises(CheckpointError, match="in use"):
            remove_run(run)
        assert contents(tmp_path) == before
    Run.open(run).train(quiet=True, epochs=3)
    assert not (run / LOCK).exists()


def test_a_run_that_has_just_begun_is_left_alone(tmp_path: Path) -> None:
    """Two calls find the folder free and read their data; the one that comes second to the lock leaves all as it is."""
    config = config_of("recommender", tmp_path, epochs=2)
    run = tmp_path / "run"
    run.mkdir()
    with locked(run):
        with pytest.raises(CheckpointError, match="in use"):
            Run.new(config).train(quiet=True)
        assert (run / LOCK).exists()


def test_a_file_system_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.warns(WideheadWarning, match="has no locks"), locked(tmp_path):
        pass


def test_a_lock_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"\.lock cannot be made: No such file"), locked(tmp_path / "nowhere"):
        pytest.fail("there is no such folder")
