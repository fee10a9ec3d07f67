"""A run that makes room for a new one in its folder, and comes back if that comes to nothing."""

from pathlib import Path

from widehead.errors import CheckpointError
from widehead.runs.lock import locked
from widehead.training.folder import LOCK, RunFolder


def check_replaceable(folder: RunFolder) -> None:
    """Raise CheckpointError unless there is a run alone, which no process trains, or nothing; nothing changes."""
    aside, path = _aside(folder), folder.path
    bring_back(folder)  # a kill came between two renames
    if aside.exists():
        raise CheckpointError(
            f"The run that {path} began to replace should not wait in {aside}. Found it there: finish the new run with "
            "--resume, or delete one of the two."
        )
    if path.is_symlink() or not (path / "config.json").is_file():
        folder.check_free()
        return
    RunFolder.open(path)
    folder.check_alone()
    with locked(path):
        pass


def set_aside(folder: RunFolder) -> None:
    """Rename the run in a folder, if there is one, to .NAME.before beside it."""
    if not (folder.path / "config.json").is_file():
        return
    with locked(folder.path):
        try:
            folder.path.rename(_aside(folder))
            (_aside(folder) / LOCK).unlink(missing_ok=True)  # which went with it
        except OSError as error:
            raise CheckpointError(f"The run {folder.path} cannot be set aside: {error.strerror or error}.") from error


def bring_back(folder: RunFolder) -> None:
    """Put the run that was set aside in its place again, if there is one and nothing has taken the place."""
    if (aside := _aside(folder)).exists() and not folder.path.exists():
        aside.rename(folder.path)


def drop_aside(folder: RunFolder) -> None:
    """Remove the run that was set aside, if there is one."""
    if (aside := _aside(folder)).exists():
        remove_run(aside)


def remove_run(path: Path) -> None:
    """Remove a run's folder; CheckpointError, and all stays, if it holds other files or a process trains there."""
    if path.is_dir():
        with locked(path):
            RunFolder(path).clear()
        path.rmdir()


def _aside(folder: RunFolder) -> Path:
    return folder.path.with_name(f".{folder.path.name}.before")
