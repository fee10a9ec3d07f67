"""A disk that is really full, command by command: one line, exit code 2, what was there before is whole, and training
goes on to the same bits once there is room."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from support.cli_runs import FILES, Called, assert_refused, call, train, tree

from widehead.runs import Run
from widehead.training.checkpoint import load_checkpoint

pytestmark = pytest.mark.long

Trained = dict[str, tuple[Path, Called]]
KILOBYTE = 1024
FULL = "No space left on device"
TOO_LARGE = "File too large"
OPTIONS = [
    "--schedule",
    "constant",
    "--width",
    "64",
    "--log-every",
    "1",
    "--checkpoint-every",
    "5 steps",
    "--keep-best",
]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB, where the system lets tests mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk is not allowed here")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@contextmanager
def room(disk: Path, kilobytes: int) -> Iterator[None]:
    """Leave only so much room on the disk."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4 * KILOBYTE)):
                pass
        except OSError:
            file.truncate(max(0, file.tell() - kilobytes * KILOBYTE))
    yield
    ballast.unlink()


@contextmanager
def largest_file(bytes_: int) -> Iterator[None]:
    """Let no file grow beyond a size; what a full disk is where mounting one is not allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("job", FILES)
def test_a_run_that_cannot_begin_leaves_nothing(job: str, small_disk: Path, tmp_path: Path) -> None:
    with room(small_disk, 8):
        called = train(job, tmp_path, "--out", small_disk / "deep" / "run", "--width", "64")
        assert_refused(called, f"could not be written: {FULL}", str(small_disk))
        assert list(tree(small_disk)) == ["ballast"]


def goes_on(folder: Path, run: Path, full: Callable[[int], object], rooms: list[int], reason: str) -> set[str]:
    """Resume a run of three epochs with less and less room, then with enough; which files could not be written."""
    assert train("recommender", folder, *OPTIONS, "--out", run, "--epochs", "3").code == 0
    again = ["train", "recommender", "--out", run, "--resume", "--quiet", "--epochs", "5"]
    last, refused = run / "checkpoints" / "last.safetensors", set()
    for size in rooms:
        before, step = last.read_bytes(), Run.open(run).step
        with full(size):  # type: ignore[attr-defined]
            called = call(*again)
            assert_refused(called, reason)
            refused.add(called.err.split(" could not be written")[0].rsplit("/", 1)[-1])
            assert not list(run.rglob("*.tmp"))
            assert last.read_bytes() == before or Run.open(run).step > step
            assert call("evaluate", run, "--test", folder / "test.txt").code == 0
    assert call(*again).code == 0
    return refused


def assert_ends_as_the_unbroken_run(folder: Path, run: Path) -> None:
    """(Of three epochs and then five, as the end of a run is evaluated, after which rows are rounded anew.)"""
    whole = folder / "run"
    assert train("recommender", folder, *OPTIONS, "--epochs", "3").code == 0
    assert call("train", "recommender", "--out", whole, "--resume", "--quiet", "--epochs", "5").code == 0
    one, two = (load_checkpoint(p / "checkpoints" / "last.safetensors") for p in (whole, run))
    for part in ("head", "encoder"):
        assert all(torch.equal(one[part][name], two[part][name]) for name in one[part])
    logs = [(p / "metrics.jsonl").read_bytes().count(b"\n") for p in (whole, run)]
    assert logs[0] == logs[1]


def test_training_goes_on_when_there_is_room_again(small_disk: Path, tmp_path: Path) -> None:
    run = small_disk / "run"
    refused = goes_on(tmp_path, run, lambda size: room(small_disk, size), [0, 8, 16, 48], FULL)
    assert refused >= {"config.json", "last.safetensors"}
    assert_ends_as_the_unbroken_run(tmp_path, run)


def test_training_goes_on_when_files_may_grow_again(tmp_path: Path) -> None:
    run = tmp_path / "other"
    refused = goes_on(tmp_path, run, largest_file, [100, 4_500, 6_000, 40_000], TOO_LARGE)
    assert refused >= {"config.json", "metrics.jsonl", "last.safetensors"}
    assert_ends_as_the_unbroken_run(tmp_path, run)


@pytest.mark.parametrize("momentum", ["0", "0.9"])
def test_weights_in_a_file_that_does_not_fit(momentum: str, small_disk: Path, tmp_path: Path) -> None:
    """60 × 1,024 numbers of 4 bytes; with momentum twice as many, copied: an error, no SIGBUS."""
    options = ["--width", "1024", "--head-optimizer", "sgd", "--head-momentum", momentum]
    with room(small_disk, 300 if momentum == "0.9" else 100):
        called = train("recommender", tmp_path, "--head-storage", small_disk / "rows", *options)
        assert_refused(called, "bytes for ", "could not be reserved: No space left on device", "rows")
        assert list(tree(small_disk)) == ["ballast"]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("to", ["torch", "safetensors", "word2vec"])
def test_exporting(to: str, small_disk: Path, trained: Trained) -> None:
    run = trained["multilabel"][0] / "run"
    output = small_disk / "weights"
    output.write_text("what was there before")
    with room(small_disk, 0):
        assert_refused(call("export", run, "--format", to, "--output", output), "could not be written", str(output))
        assert sorted(tree(small_disk)) == ["ballast", "weights"]
    assert output.read_text() == "what was there before"
