"""The file that a run keeps the rows of its output layer in."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from widehead import mapped
from widehead.errors import CheckpointError
from widehead.options import TrainingConfig


def check_storage_free(config: TrainingConfig) -> None:
    """Raise ValueError if there is something at ``head_storage``."""
    if config.head_storage is not None and Path(config.head_storage).exists():
        raise ValueError(
            f"Option `head_storage` should be a file that is not there yet. Found {config.head_storage}: delete it if "
            "nobody needs it, or choose another one."
        )


def drop_storage(config: TrainingConfig) -> None:
    """Delete the file that the interrupted run kept its rows in: checkpoints have them, and it is made anew.

    Raises:
        CheckpointError: what is there does not say that it is this run's.
    """
    if config.head_storage is None:
        return
    path = Path(config.head_storage)
    try:
        mapped.remove(path, config.storage_owner)
        mapped.remove(path.with_name(f".{path.name}.new"), config.storage_owner)  # while rows were given a momentum
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
