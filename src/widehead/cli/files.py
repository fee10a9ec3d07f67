"""Files that commands take and leave: standard input, outputs that are whole or not there, run folders."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from widehead.errors import CheckpointError, DataError

__all__ = ["appending", "input_file", "new_run_folder", "output_file", "remove_run"]

_RUN_FILES = ("config.json", "metrics.jsonl", "report.html")
_RUN_FOLDERS = ("checkpoints", "vocabularies")


@contextmanager
def input_file(path: Path) -> Iterator[Path]:
    """The file itself, or for "-" a temporary one with what standard input holds; errors name standard input then."""
    if str(path) != "-":
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="widehead-") as folder:
        copy = Path(folder) / "standard-input"
        with copy.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        try:
            yield copy
        except DataError as error:
            raise DataError(str(error).replace(str(copy), "standard input")) from error


@contextmanager
def appending(path: Path | None) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A function that appends one JSON object a line, each on disk when it returns; without a path it does nothing.

    The file is opened before the work for it is done; one that is new is removed again where no row was made.
    """
    if path is None:
        yield lambda row: None
        return
    new = not path.exists()
    with path.open("a", encoding="utf-8") as lines:

        def append(row: Mapping[str, Any]) -> None:
            lines.write(json.dumps(row) + "\n")
            lines.flush()

        try:
            yield append
        except BaseException:
            if new and path.stat().st_size == 0:
                path.unlink()
            raise


@contextmanager
def output_file(path: Path) -> Iterator[Path]:
    """A path to write to, beside ``path``, that takes its place on leaving without an error.

    Raises:
        CheckpointError: ``path`` is a folder or a device, or it cannot be written; what it held is as it was.
    """
    if path.exists() and not path.is_file():
        raise CheckpointError(
            f"The output {path} should be a file. Found {'a folder' if path.is_dir() else 'a device'}."
        )
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.touch()  # before the work for it is done
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise CheckpointError(f"The output {path} could not be written: {error.strerror or error}.") from error
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)


@contextmanager
def new_run_folder(path: Path) -> Iterator[None]:
    """Remove what a failed command left of a run that has no checkpoint yet, with the folders made for it.

    A folder that was there before, empty, is removed too. A run that made a checkpoint stays, as it can be resumed.

    Raises:
        CheckpointError: on entering, where no run can start because the folder holds something or cannot be made.
    """
    from widehead.training import RunFolder

    folder = RunFolder(path)
    folder.check_free()
    missing = [p for p in (path, *path.parents) if not p.exists()]
    if missing and not missing[-1].parent.is_dir():
        raise CheckpointError(f"The run folder {path} cannot be made: {missing[-1].parent} is a file.")
    try:
        yield
    except BaseException:
        if not folder.last_checkpoint.exists():
            with suppress(CheckpointError):  # it is another process's, or holds files of others
                remove_run(path)
            _remove_empty(missing)
        raise


def remove_run(path: Path) -> None:
    """Remove the files of a run, and its folder.

    Raises:
        CheckpointError: it holds others too, or a process trains there; nothing was removed.
    """
    from widehead.training.lock import LOCK, locked

    if not path.is_dir():
        return
    temporary = {p.name for p in path.glob(".*.tmp")}  # what a kill leaves
    with locked(path):
        if others := sorted({p.name for p in path.iterdir()} - {*_RUN_FILES, *_RUN_FOLDERS, *temporary, LOCK}):
            raise CheckpointError(
                f"The run folder {path} should hold a run alone. Found {others[0]}: choose another folder."
            )
        for name in (*_RUN_FILES, *temporary):
            (path / name).unlink(missing_ok=True)
        for name in _RUN_FOLDERS:
            shutil.rmtree(path / name, ignore_errors=True)
    path.rmdir()


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders, innermost first, as far as they are empty."""
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
