"""Run folders from elsewhere: they are read if they are files, and lead nowhere else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.foreign import HISTORY, JOBS, LAST
from support.job_files import config_of

from widehead.errors import CheckpointError
from widehead.runs import Run
from widehead.training.folder import LOCK

# -- links, pipes and devices -----------------------------------------------------------------------------------------


def put_aside(path: Path, aside: Path) -> None:
    """What the run has there, or else a file of somebody's."""
    if path.exists():
        path.rename(aside)
    else:
        aside.write_text("somebody's")


@pytest.mark.parametrize("name", [LOCK, "metrics.jsonl", "checkpoints", "vocabularies"])
@pytest.mark.parametrize("kind", ["there", "dangling"])
def test_a_run_does_not_write_through_links(
    copied: Callable[[str], Path], tmp_path: Path, name: str, kind: str
) -> None:
    run, aside = copied("recommender"), tmp_path / "aside"
    put_aside(run / name, aside)
    if kind == "dangling":
        aside.rename(tmp_path / "moved")
    (run / name).symlink_to(aside)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match=f"{name} should be the run's own"):
        Run.open(run).train(quiet=True, epochs=2)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "name",
    [".config.json.tmp", "config.json", LAST, "checkpoints/.last.safetensors.tmp", "vocabularies/.items.txt.tmp"],
)
def test_links_in_place_of_files_that_are_written_anew_are_not_followed(
    copied: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    run, aside = copied("recommender"), tmp_path / "aside"
    put_aside(run / name, aside)
    before = aside.read_bytes()
    (run / name).symlink_to(aside)
    Run.open(run).train(quiet=True, epochs=2)
    assert aside.read_bytes() == before
    assert not (run / name).is_symlink()


def test_a_lock_that_is_another_file_too_is_left_as_it_is(copied: Callable[[str], Path], tmp_path: Path) -> None:
    run = copied("recommender")
    (tmp_path / "file").write_text("somebody's")
    (run / LOCK).hardlink_to(tmp_path / "file")
    with pytest.raises(CheckpointError, match=r"\.lock should be a file of its own"):
        Run.open(run).train(quiet=True, epochs=2)
    assert (tmp_path / "file").read_text() == "somebody's"


def test_an_export_does_not_follow_links(runs: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("somebody's")
    for format_ in ("torch", "safetensors", "word2vec"):
        (tmp_path / f".{format_}.tmp").symlink_to(tmp_path / "file")
        Run.open(runs("recommender") / "run").export(format_, tmp_path / format_)
    assert (tmp_path / "file").read_text() == "somebody's"


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", LAST, LOCK, HISTORY, "vocabularies/items.txt"])
@pytest.mark.parametrize("what", ["a pipe", "a link to a pipe", "a link to a device"])
def test_only_files_are_read(copied: Callable[[str], Path], tmp_path: Path, name: str, what: str) -> None:
    run = copied("recommender")
    (run / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / "pipe")
    if what == "a pipe":
        os.mkfifo(run / name)
    else:
        (run / name).symlink_to(tmp_path / "pipe" if what == "a link to a pipe" else "/dev/zero")
    for use in (lambda: Run.open(run).network, lambda: Run.open(run).train(quiet=True), lambda: Run.open(run).report()):
        with pytest.raises(CheckpointError, match=f"{name} should be a file. Found a pipe, a device"):
            use()


def test_a_link_to_a_file_is_read(copied: Callable[[str], Path], tmp_path: Path) -> None:
    """As folders are laid out that keep large files elsewhere."""
    run = copied("recommender")
    (run / LAST).rename(tmp_path / "large")
    (run / LAST).symlink_to(tmp_path / "large")
    assert Run.open(run).step > 0


# -- the file of head_storage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["of the same size", "empty", "zeros", "another run's", "a link", "a folder"])
def test_a_file_that_is_not_the_runs_is_left_alone(copied: Callable[[str], Path], tmp_path: Path, what: str) -> None:
    (tmp_path / "other").mkdir()
    other = config_of("recommender", tmp_path / "other", epochs=1, head_storage=str(tmp_path / "other" / "rows"))
    Run.new(other).train(quiet=True)
    rows = tmp_path / "other" / "rows"
    size, theirs = rows.stat().st_size, tmp_path / "theirs"
    if what == "another run's":
        theirs = rows
    elif what == "a link":
        theirs.symlink_to(rows)
    elif what == "a folder":
        theirs.mkdir()
    else:
        theirs.write_bytes({"of the same size": b"x" * size, "empty": b"", "zeros": bytes(size)}[what])
    run = copied("recommender")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "out": str(run), "head_storage": str(theirs)}))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match=r"should be a file of .*/copy/run\. Found .* another head_storage"):
        Run.open(run).train(quiet=True, epochs=2)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_somebodys_file_beside_the_rows_stays(tmp_path: Path) -> None:
    """The place where rows are put that get a momentum."""
    config = config_of("recommender", tmp_path, epochs=1, head_storage=str(tmp_path / "rows"), **JOBS["momentum"][1])
    (tmp_path / ".rows.new").write_text("somebody's")
    with pytest.raises(ValueError, match=r"head_storage.*not there yet\. Found .*\.rows\.new: delete it"):
        Run.new(config).train(quiet=True)
    assert (tmp_path / ".rows.new").read_text() == "somebody's"


@pytest.mark.parametrize(("option", "value"), [("width", 0), ("batch_size", 0), ("neighbours", -1), ("direct", -1)])
def test_options_that_no_data_decided_are_refused(copied: Callable[[str], Path], option: str, value: int) -> None:
    """As one that goes on would divide by them, or make a network without units."""
    run = copied("recommender")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, option: value}))
    with pytest.raises(
        CheckpointError, match=rf"config\.json: `{option}` should be what the data decided. Found {value}"
    ):
        Run.open(run)
