"""Memory of the process: keep what a step freed for the next step, until the last; what Linux tells of it."""

import ctypes
import platform
import re
from pathlib import Path

from widehead.arithmetic.buffers import drop_unused

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # parameters of mallopt(3)
_KEPT = 2**31 - 1  # bytes that may lie free before any go back to the system


def keep_freed_memory() -> bool:
    """Ask the C library to keep freed blocks, whatever their size; whether it will (glibc alone can be asked).

    By default it hands large blocks back at once. A training step frees some of 20 to 40 MB, which the next one gets
    anew, page by page: on gowalla, d = 512, a fifth of the time. Up to 2 GiB stay with the process until it ends.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_MMAP_MAX, 0)) and bool(libc.mallopt(_TRIM_THRESHOLD, _KEPT))


def give_back_freed_memory() -> bool:
    """Hand what steps freed back to the system, as what follows them has other sizes; whether any was (glibc alone)."""
    drop_unused()
    return platform.libc_ver()[0] == "glibc" and bool(ctypes.CDLL(None).malloc_trim(0))


def told(name: str, path: str = "/proc/self/status") -> int | None:
    """Bytes that Linux tells by a name in a file of /proc, None if it does not."""
    try:
        found = re.search(rf"{name}:\s+(\d+) kB", Path(path).read_text(encoding="utf-8"))
    except OSError:
        return None
    return None if found is None else 1024 * int(found[1])
