"""Files that are pipes: all that comes through one is read, in every job and command that takes a file."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.cli_runs import FILES, JOBS, Called, assert_refused, call
from support.processes import start

from widehead.data import read_interactions
from widehead.errors import DataError

Trained = dict[str, tuple[Path, Called]]


@contextmanager
def pipe(path: Path, data: bytes) -> Iterator[Path]:
    """A named pipe, into which a thread writes once."""
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(data,))
    writer.start()
    yield path
    writer.join()
    path.unlink()


@pytest.mark.parametrize("job", FILES)
def test_a_pipe_is_read_as_its_file_is(job: str, tmp_path: Path, trained: Trained) -> None:
    """Every job reads its files twice or more, the first time a few bytes."""
    folder, data = trained[job][0], tmp_path / "data"
    data.mkdir()
    options = FILES[job](data)
    options[options.index("--epochs") + 1] = "1"
    with (
        pipe(tmp_path / "train", (data / "train.txt").read_bytes()) as train,
        pipe(tmp_path / "test", (data / "test.txt").read_bytes()) as test,
    ):
        called = call("train", *JOBS[job], train, "--test", test, "--out", tmp_path / "run", *options)
    assert called.code == 0, called
    for name in (path.name for path in (folder / "run" / "vocabularies").iterdir()):
        kept = [place / "vocabularies" / name for place in (folder / "run", tmp_path / "run")]
        assert kept[0].read_bytes() == kept[1].read_bytes()
    assert json.loads((tmp_path / "run" / "config.json").read_text())["train"] == str(train)

    for command, ask, name in (("predict", [], "input.txt"), ("evaluate", ["--test"], "test.txt")):
        with pipe(tmp_path / "asked", (folder / name).read_bytes()) as path:
            found = call(command, folder / "run", *ask, path, "--json")
        assert found == call(command, folder / "run", *ask, folder / name, "--json")


def test_errors_name_the_pipe(tmp_path: Path) -> None:
    with pipe(tmp_path / "pairs", b"u1 a b\nu2\tc\n") as path:
        called = call("train", "recommender", path, "--out", tmp_path / "run")
    assert_refused(called, f"{path}, line 2: expected 'user item item …'")
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_standard_input_by_its_name(tmp_path: Path) -> None:
    lines = b"".join(b"user%d item%d item%d\n" % (n, n % 7, n % 5) for n in range(2_000))  # more than a pipe holds
    process = start(
        *("train", "recommender", "/dev/stdin", "--out", tmp_path / "run", "--width", "2", "--at", "1"),
        stdin=-1,
        text=False,
    )
    _, err = process.communicate(lines, timeout=120)
    assert process.returncode == 0, err
    assert "2,000 users × 7 items" in err.decode()


def test_readers_alone_refuse_pipes_before_they_open_them(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match=r"expected a file. Found a pipe; save what it gives to a file first"):
        read_interactions(tmp_path / "pipe")
    called = call("compare", "recommender", tmp_path / "pipe", "--holdout", "0.1", "--out", tmp_path / "out")
    assert_refused(called, "expected a file, as each run reads it. Found a pipe")
    assert_refused(call("train", "recommender", "/dev/null", "--out", tmp_path / "out"), "Found a device")
