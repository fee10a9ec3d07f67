"""The run folder: one directory that holds all that a run leaves behind.

config.json                 every option (TrainingConfig)
metrics.jsonl               one JSON object a line: kind "train", "evaluation" or "final"
checkpoints/last.safetensors, checkpoints/best.safetensors
vocabularies/NAME.txt       the ids' names, one a line
report.html
estimator.json              what an estimator knows besides, if one saved the run
probe.json, trial.json      whether neighbours should rank, how wide a recommender is and what its direct term weighs
.lock                       while a process trains here
"""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from widehead.errors import CheckpointError
from widehead.options import TrainingConfig

LOCK = ".lock"
"""Name of the file by which a process keeps others out."""

_CHUNK = 1 << 20
_FILES = (
    *("config.json", "metrics.jsonl", "report.html", "estimator.json"),
    *("probe.json", "trial.json", "neighbours.json", "classifiers.safetensors"),
)
_FOLDERS = ("checkpoints", "vocabularies")


@dataclass
class RunFolder:
    """Paths inside a run folder. ``create`` starts one, ``open`` finds one."""

    path: Path

    def __post_init__(self) -> None:
        self.config_path = self.path / "config.json"
        self.metrics_path = self.path / "metrics.jsonl"
        self.report_path = self.path / "report.html"
        self.neighbours_path = self.path / "neighbours.json"
        self.probe_path = self.path / "probe.json"
        self.trial_path = self.path / "trial.json"
        self.classifiers_path = self.path / "classifiers.safetensors"
        self.estimator_path = self.path / "estimator.json"
        self.last_checkpoint = self.path / "checkpoints" / "last.safetensors"
        self.best_checkpoint = self.path / "checkpoints" / "best.safetensors"

    def vocabulary_path(self, name: str) -> Path:
        """A file of what ids mean, such as "items.txt"."""
        return self.path / "vocabularies" / name

    def vocabulary_sums(self) -> dict[str, int]:
        """The CRC-32 of each vocabulary file; CheckpointError if one cannot be read."""
        try:
            return {path.name: _sum(path) for path in sorted(self.vocabulary_path("").glob("[!.]*"))}
        except OSError as error:
            raise CheckpointError(f"The vocabularies of {self.path} cannot be read: {error}.") from error

    def keep(self, name: str, write: Callable[[Path], object], is_first: bool = True) -> None:
        """Write the vocabulary file ``name``; if it is there, see that it would be the same.

        Args:
            write: takes the place to write to.
            is_first: whether this process writes; others only call ``write``, which needs them.

        Raises:
            CheckpointError: it is there with another content: the data are not those that the run started from; or
                it cannot be written.
        """
        path = self.vocabulary_path(name)
        temporary = path.with_name(f".{name}.tmp")
        if not is_first:
            write(temporary)
            return
        try:
            path.parent.mkdir(exist_ok=True)
            new_file(temporary).close()
            write(temporary)
            if not path.exists():
                temporary.replace(path)
            elif not filecmp.cmp(path, temporary, shallow=False):
                raise CheckpointError(
                    f"The training data changed since the run {self.path} began: {name} is different."
                )
        except OSError as error:
            raise _not_written(path, error) from error
        finally:
            with suppress(OSError):  # a folder in its place, which is told already
                temporary.unlink(missing_ok=True)

    @classmethod
    def create(cls, config: TrainingConfig) -> RunFolder:
        """Make the folder ``config.out`` and write config.json; CheckpointError if it is not free or cannot be made."""
        folder = cls(Path(config.out))
        folder.check_free()
        folder.make()
        folder.write_config(config)
        return folder

    def make(self) -> list[Path]:
        """Make the folder, without a run in it, if it is not there; the folders that were made, innermost first."""
        missing = self._missing()
        try:
            self.last_checkpoint.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"The run folder {self.path} cannot be made: {error.strerror or error}.") from error
        return missing

    def check_free(self) -> None:
        """Raise CheckpointError if a run cannot start because the folder holds something or cannot be made."""
        if self.path.exists() and not self.path.is_dir():
            raise CheckpointError(f"The run folder {self.path} should be a folder. Found a file.")
        if self.path.exists() and any(not _is_leftover(p) for p in self.path.iterdir()):
            raise CheckpointError(
                f"The run folder {self.path} should be empty or not there. Found files in it: resume that run, or "
                "choose another folder."
            )
        missing = self._missing()
        if missing and not missing[-1].parent.is_dir():
            raise CheckpointError(f"The run folder {self.path} cannot be made: {missing[-1].parent} is a file.")

    def _missing(self) -> list[Path]:
        """This folder and those above it that are not there, innermost first."""
        return [path for path in (self.path, *self.path.parents) if not path.exists()]

    def check_alone(self) -> None:
        """CheckpointError if the folder holds files of others besides a run."""
        if others := sorted({path.name for path in self.path.iterdir()} - {*_FILES, *_FOLDERS, *self._left(), LOCK}):
            raise CheckpointError(
                f"The run folder {self.path} should hold a run alone. Found {others[0]}: choose another folder."
            )

    def clear(self) -> None:
        """Remove a run, but for the lock; CheckpointError, and all stays, if the folder holds files of others too."""
        self.check_alone()
        for name in (*_FILES, *self._left()):
            (self.path / name).unlink(missing_ok=True)
        for name in _FOLDERS:
            shutil.rmtree(self.path / name, ignore_errors=True)

    def _left(self) -> set[str]:
        """Temporary files that a kill leaves."""
        return {path.name for path in self.path.glob(".*.tmp")}

    def check_own(self) -> None:
        """CheckpointError if a run that writes here would write elsewhere: what it opens or enters is a link."""
        for path in (self.path / name for name in (*_FOLDERS, LOCK, "metrics.jsonl")):
            if path.is_symlink():
                raise CheckpointError(
                    f"{path} should be the run's own. Found a symbolic link to {path.readlink()}: delete the link, or "
                    "put what it leads to in its place."
                )

    def _check_plain(self) -> None:
        """CheckpointError if something in the folder is neither file nor folder: a pipe, or a device without an end."""
        for path in (self.path / name for name in (*_FILES, LOCK, *(f"{folder}/*" for folder in _FOLDERS))):
            for found in path.parent.glob(path.name):
                if found.exists() and not (found.is_file() or found.is_dir()):
                    raise CheckpointError(f"{found} should be a file. Found a pipe, a device or a socket.")

    def write_config(self, config: TrainingConfig) -> None:
        """Write config.json, whole or not at all."""
        with atomic_write(self.config_path) as file:
            file.write(config.to_json().encode())

    def write_estimator(self, known: Mapping[str, Any]) -> None:
        """Write estimator.json, whole or not at all."""
        with atomic_write(self.estimator_path) as file:
            file.write(json.dumps(known).encode())

    def read_estimator(self) -> dict[str, Any] | None:
        """What is in estimator.json; None if it is not there, CheckpointError if it cannot be read."""
        with expecting(self.estimator_path, "what an estimator saved"):
            if not self.estimator_path.exists():
                return None
            found: dict[str, Any] = json.loads(self.estimator_path.read_text(encoding="utf-8"))
            return found

    @classmethod
    def open(cls, path: Path | str) -> tuple[RunFolder, TrainingConfig]:
        """The folder of an earlier run and its options; CheckpointError if its config.json cannot be read."""
        folder = cls(Path(path))
        folder._check_plain()
        try:
            return folder, TrainingConfig.load(folder.config_path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise CheckpointError(f"{folder.path} should be a run folder. Found no config.json in it.") from error
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{folder.config_path} should hold JSON. Found bytes that are no text.") from error
        except ValueError as error:
            place = "" if str(folder.config_path) in str(error) else f"{folder.config_path}: "
            raise CheckpointError(f"{place}{error}") from error


def _is_leftover(path: Path) -> bool:
    """Whether a killed ``create`` left this: an empty checkpoints folder, a temporary file or a lock.

    A process may hold that lock; taking it later tells.
    """
    return path.name == LOCK or path.name.endswith(".tmp") or (path.name == "checkpoints" and not any(path.iterdir()))


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A binary file that takes the place of ``path`` on leaving without an error, whole and on disk.

    Whatever happens meanwhile (an error, a full disk, a kill, a power cut), ``path`` is what it was before. An
    error removes the temporary file, which lies beside ``path``.

    Raises:
        CheckpointError: the system refused, as on a full disk.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with new_file(temporary) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def expecting(path: Path, what: str) -> Iterator[None]:
    """What is wrong with the content of a file, whoever wrote it, becomes a CheckpointError that names the file."""
    try:
        yield
    except CheckpointError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RecursionError, RuntimeError, TypeError, ValueError) as error:
        found = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split()).removesuffix(".")
        raise CheckpointError(f"{path} should hold {what}. Found: {found}.") from error


def new_file(path: Path) -> BinaryIO:
    """A file that is made here: what a kill left is removed, and a link is not followed. OSError if that fails."""
    path.unlink(missing_ok=True)
    return path.open("xb")


def _sum(path: Path) -> int:
    total = 0
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            total = zlib.crc32(piece, total)
    return total


def _not_written(path: Path, error: OSError) -> CheckpointError:
    reason = error.strerror or str(error)
    return CheckpointError(f"{path} could not be written: {reason}. What it held before, if anything, is still valid.")


def _sync_folder(path: Path) -> None:
    """Put the names in a folder on disk, if the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
