"""Files kept from one process to the next that nobody but this user can have written: what is in them is going to run.

A folder or a file counts only if it belongs to this user, nobody else may write it, and it is no symbolic link. All is
done by descriptors, so that what was looked at is what is used, whoever may rename the folders above. A file ends with
the check sum of the rest, so that one that was cut short or changed is told from a whole one.
"""

import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_SUM = hashlib.sha256().digest_size


class Damaged(Exception):
    """A file is not what `put` made; says why."""


def cache_folder() -> Path:
    """The user's folder for what can be made anew, by the XDG specification: a path that is not absolute is ignored.

    Raises:
        OSError: the user has no home.
    """
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if given.is_absolute():
        return given / "widehead"
    with suppress(RuntimeError):
        if (home := Path.home()).is_absolute():
            return home / ".cache" / "widehead"
    raise FileNotFoundError("there is no home folder")


@contextmanager
def opened(folder: Path) -> Iterator[int]:
    """A descriptor of the folder, which is made if it is not there.

    Raises:
        OSError: it cannot be made, or others may have written what is in it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.is_symlink():
        raise NotADirectoryError(f"{folder} is a symbolic link")
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if why := _distrust(os.fstat(descriptor)):
            raise PermissionError(f"{folder} {why}")
        yield descriptor
    finally:
        os.close(descriptor)


def get(folder: int, name: str) -> int | None:
    """A descriptor of a file that `put` made in an opened folder; None if there is none.

    Raises:
        Damaged: it is something else, or no longer what it was.
    """
    try:
        # A pipe is not waited for.
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:  # a symbolic link, too
        raise Damaged(f"cannot be read ({error.strerror})") from error
    try:
        if why := _distrust(found := os.fstat(descriptor)):
            raise Damaged(why)
        if not stat.S_ISREG(found.st_mode):
            raise Damaged("is no file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            whole = file.read()
        if hashlib.sha256(whole[:-_SUM]).digest() != whole[-_SUM:]:
            raise Damaged("is damaged, as its check sum is wrong")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def put(folder: int, name: str, content: bytes) -> None:
    """Write a file, with its check sum behind ``content``; others see all of it or nothing. OSError if that fails."""
    temporary = f".{name}.{secrets.token_hex(8)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content + hashlib.sha256(content).digest())
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(temporary, dir_fd=folder)
        raise


def _distrust(found: os.stat_result) -> str:
    """Why somebody else may have written what is there; "" if nobody can have."""
    if found.st_uid != os.geteuid():
        return "belongs to another user"
    return "may be written by other users" if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) else ""
