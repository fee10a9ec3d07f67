"""The file that a run keeps the rows of its output layer in."""

import glob
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from widehead import mapped
from widehead.errors import CheckpointError
from widehead.options import TrainingConfig


def check_storage_free(config: TrainingConfig) -> None:
    """Raise ValueError if there is something at ``head_storage``, where several processes have a file each."""
    if found := _files(config):
        raise ValueError(
            f"Option `head_storage` should be a file that is not there yet. Found {found[0]}: delete it if "
            "nobody needs it, or choose another one."
        )


def drop_storage(config: TrainingConfig) -> None:
    """Delete the files that the interrupted run kept its rows in: checkpoints have them, and they are made anew.

    Raises:
        CheckpointError: what is there does not say that it is this run's.
    """
    try:
        for path in _files(config):
            mapped.remove(path, config.storage_owner)
    except FileExistsError as error:
        raise CheckpointError(f"{error} Put it elsewhere, or go on with another head_storage.") from error


@contextmanager
def storage_beside(folder: Path) -> Iterator[str]:
    """A file to look at weights in that memory may not hold, as the one that a run trains in is its own.

    On leaving its name goes; the file goes with the network.
    """
    path = folder.absolute() / f".rows-{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        yield str(path)
    finally:
        path.unlink(missing_ok=True)


def _files(config: TrainingConfig) -> list[Path]:
    """Those that are there, of however many processes, and what they were to be replaced by as rows got a momentum."""
    if config.head_storage is None:
        return []
    path = Path(config.head_storage)
    of_ranks = (place for place in path.parent.glob(f"{glob.escape(path.name)}.*") if place.suffix[1:].isdigit())
    found = [path, *sorted(of_ranks)]
    unfinished = [place.with_name(f".{place.name}.new") for place in found]
    return [place for place in [*found, *unfinished] if place.exists() or place.is_symlink()]
