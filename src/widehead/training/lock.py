"""One process a run folder: a lock that the system frees when its process ends, however it ends."""

from __future__ import annotations

import errno
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from widehead.errors import CheckpointError, WideheadWarning

__all__ = ["LOCK", "locked"]

LOCK = ".lock"
"""Name of the file in the run folder; its content, process and host, is for people alone."""

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # what some network file systems answer


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of ``folder``, which exists, until leaving; the file is removed then.

    A process that was killed leaves the file but not the lock, so nothing has to be cleaned up by hand.

    Raises:
        CheckpointError: another process (or another thread) trains there; or the file cannot be made.

    Warns:
        WideheadWarning: the file system has no locks; nothing keeps a second process out.
    """
    path = folder / LOCK
    descriptor = _opened(path)
    try:
        yield
    finally:
        # While it is locked, so that no other process has just locked the file that goes. (Windows: only closed ones.)
        if os.name != "nt":
            path.unlink(missing_ok=True)
        os.close(descriptor)
        if os.name == "nt":
            with suppress(OSError):
                path.unlink()


def _opened(path: Path) -> int:
    """A descriptor of the file at ``path``, locked, with this process's name in it."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise CheckpointError(f"The lock {path} cannot be made: {error.strerror or error}.") from error
        try:
            _lock(descriptor, path)
            if _is_at(descriptor, path):
                _sign(descriptor)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its owner removed it between the two calls


def _lock(descriptor: int, path: Path) -> None:
    try:
        _system_lock(descriptor)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            warnings.warn(
                f"The file system of {path.parent} has no locks: see that no second process trains there.",
                WideheadWarning,
                stacklevel=2,
            )
            return
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise CheckpointError(f"{path} cannot be locked: {error.strerror or error}.") from error
        owner = os.pread(descriptor, 200, 0).decode(errors="replace").strip() if hasattr(os, "pread") else ""
        raise CheckpointError(
            f"The run folder {path.parent} is in use by {owner or 'another process'}: wait until that one ends, or "
            "choose another folder."
        ) from error


def _system_lock(descriptor: int) -> None:
    """OSError where another open file holds it."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, 1 << 30, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _sign(descriptor: int) -> None:
    with suppress(OSError):  # a full disk: the lock holds without a name in it
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
