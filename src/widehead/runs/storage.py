"""The file that a run keeps the rows of its output layer in."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from widehead.errors import CheckpointError
from widehead.options import TrainingConfig


def check_storage_free(config: TrainingConfig) -> None:
    """Raise ValueError if there is something at ``head_storage``."""
    if config.head_storage is not None and Path(config.head_storage).exists():
        raise ValueError(
            f"Option `head_storage` should be a file that is not there yet. Found {config.head_storage}: delete it if "
            "nobody needs it, or choose another one."
        )


def drop_storage(config: TrainingConfig, classes: int) -> None:
    """Delete the file that the interrupted run kept its rows in: checkpoints have them, and it is made anew.

    Raises:
        CheckpointError: what is there is not of that size.
    """
    if config.head_storage is None:
        return
    path = Path(config.head_storage)
    path.with_name(f".{path.name}.new").unlink(missing_ok=True)  # from a kill while the rows were given a momentum
    if not path.exists():
        return
    number = 2 if config.head_storage_dtype == "bfloat16" else {"float32": 4, "float64": 8}[config.dtype]
    size = classes * (config.width + config.head_bias) * number
    found = path.stat().st_size
    if found not in (size, 2 * size) and not (found < size and _holds_zeros(path)):  # twice with momentum
        raise CheckpointError(
            f"{path} should hold the {size:,} bytes of this run's output layer. Found {found:,} bytes: "
            "put it elsewhere, or go on with another head_storage."
        )
    path.unlink()


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


def _holds_zeros(path: Path) -> bool:
    """Whether there is nothing in a file yet, as after a kill while its space was being reserved."""
    with path.open("rb") as file:
        return not any(block.strip(b"\0") for block in iter(lambda: file.read(1 << 20), b""))
