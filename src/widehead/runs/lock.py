"""One process a run folder: a lock that the system frees when its process ends, however it ends."""

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from widehead.errors import CheckpointError, WideheadWarning, warn_user
from widehead.training.folder import LOCK

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
    lock = FileLock(path, blocking=False, fallback_to_soft=False)
    _acquire(lock, path)
    try:
        with suppress(OSError):  # a full disk: the lock holds without a name in it
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
        yield
    finally:
        # While it is locked, so that no other process has just locked the file that goes. (Windows: only free ones.)
        with suppress(PermissionError):
            path.unlink(missing_ok=True)
        lock.release()


def _acquire(lock: FileLock, path: Path) -> None:
    try:
        path.parent.stat()  # the library would make it
        _check_own(path)
        lock.acquire()
    except Timeout as error:
        raise CheckpointError(
            f"The run folder {path.parent} is in use by {_owner(path)}: wait until that one ends, or choose another "
            "folder."
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise CheckpointError(f"The lock {path} cannot be made: {error.strerror or error}.") from error
        warn_user(
            f"The file system of {path.parent} has no locks: see that no second process trains there.", WideheadWarning
        )


def _check_own(path: Path) -> None:
    """CheckpointError if what stands at ``path`` is not a file of this name alone, which may be written."""
    with suppress(FileNotFoundError):
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            raise CheckpointError(
                f"The lock {path} should be a file of its own. Found a link, or no file: see what it is, and delete it."
            )


def _owner(path: Path) -> str:
    """The process that says in the file that it holds the lock."""
    with suppress(OSError):  # it has just removed the file
        if owner := path.read_text(encoding="utf-8", errors="replace").strip():
            return owner
    return "another process"
