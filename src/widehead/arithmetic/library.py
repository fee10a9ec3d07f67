"""The library of compiled operations: C of this room, compiled for this processor at first use and kept in a cache."""

import ctypes
import os
import sys
import tempfile
from pathlib import Path

import torch

from widehead.arithmetic import build, kept
from widehead.arithmetic.interface import FUNCTIONS, handshake
from widehead.errors import KernelWarning, warn_user

_SWITCH = "WIDEHEAD_KERNELS"
_ON, _OFF = ("1", "yes", "true", "on"), ("0", "no", "false", "off")

_found: list[ctypes.CDLL | None] = []  # the library, or None, once it was looked for


def library() -> ctypes.CDLL | None:
    """The library; None if steps are to be made of torch's operations.

    That is so if WIDEHEAD_KERNELS is 0, no, false or off, on other systems than Linux, and if it cannot be compiled or
    loaded.

    Raises:
        ValueError: WIDEHEAD_KERNELS is something else than these, or 1, yes, true or on.

    Warns:
        KernelWarning: once, why it could not be made or loaded, kept, or used as it was kept.
    """
    if not _found:
        wanted = _wanted()
        _found.append(None)  # a warning that is made an error is met once, too
        if wanted and sys.platform == "linux":
            _found[0] = _made()
    return _found[0]


def _wanted() -> bool:
    said = os.environ.get(_SWITCH, "")
    word = said.strip().lower()
    if word not in ("", *_ON, *_OFF):
        raise ValueError(f"{_SWITCH} should be {', '.join(_ON)}, {', '.join(_OFF)} or not be set. Found {said!r}.")
    return word not in _OFF


def _made() -> ctypes.CDLL | None:
    try:
        command = build.command()
        name = f"kernels-{build.key(command)}.so"
        try:
            return _made_in(kept.cache_folder(), name, command)
        except OSError as why:
            warn_user(
                f"The kernels are compiled anew by every process, as they cannot be kept: {why}. Give XDG_CACHE_HOME a "
                "folder of your own that nobody else may write.",
                KernelWarning,
            )
        with tempfile.TemporaryDirectory(prefix="widehead-") as folder:  # what was loaded stays
            return _made_in(Path(folder), name, command)
    except (build.Unavailable, OSError) as why:
        warn_user(
            f"Small steps of exact heads on the CPU take up to twice as long as they could: {why} "
            f"Results are the same. Set {_SWITCH}=0 to say that this is meant.",
            KernelWarning,
        )
        return None


def _made_in(place: Path, name: str, command: list[str]) -> ctypes.CDLL:
    """The library that is kept in a folder, compiled first if it is not there, or not as it was put there."""
    with kept.opened(place) as folder:
        try:
            if (found := kept.get(folder, name)) is not None:
                return _loaded(found)
        except kept.Damaged as why:
            warn_user(f"The kernels are compiled anew, as {place / name} {why}.", KernelWarning)
        kept.put(folder, name, build.compiled(command))
        try:
            made = kept.get(folder, name)
            assert made is not None
            return _loaded(made)
        except kept.Damaged as why:
            raise build.Unavailable(f"what {command[0]} made {why}.") from why


def _loaded(descriptor: int) -> ctypes.CDLL:
    """The library in an open file, which stays open: the loader knows files by their names, and takes this for one.

    Raises:
        OSError: it cannot be loaded.
        Damaged: it is none of these sources.
        Unavailable: torch is not as it should be.
    """
    made = ctypes.CDLL(f"/proc/self/fd/{descriptor}")
    try:
        for name, (result, arguments) in FUNCTIONS.items():
            function = getattr(made, name)
            function.restype, function.argtypes = result, arguments
    except AttributeError as error:
        raise kept.Damaged(f"lacks a function ({error})") from error
    _shake_hands(made)
    if not _shares_threads(made):
        raise build.Unavailable("torch and the C compiler use different OpenMP libraries here.")
    made.widehead_use(*_blas())
    return made


def _blas() -> tuple[ctypes.c_void_p, ctypes.c_void_p | None]:
    """Torch's own product of matrices, and what tells its threads if it does not ask OpenMP."""
    try:
        of_torch = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        gemm = ctypes.cast(of_torch.sgemm_, ctypes.c_void_p)
    except (OSError, AttributeError) as error:
        raise build.Unavailable(f"the kernels do not fit this torch ({error}).") from error
    limit = getattr(of_torch, "MKL_Set_Num_Threads_Local", None)
    return gemm, None if limit is None else ctypes.cast(limit, ctypes.c_void_p)


def _shake_hands(made: ctypes.CDLL) -> None:
    """Refuse a library whose limits or structures are not those that this build of Python's side has."""
    expected = handshake()
    found = (ctypes.c_int64 * len(expected))()
    made.widehead_handshake(found)
    if list(found) != expected:
        raise kept.Damaged(f"is of another build (limits and sizes {list(found)}, expected {expected})")


def _shares_threads(made: ctypes.CDLL) -> bool:
    """Whether torch's number of threads is that of the kernels: both have one OpenMP."""
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        return bool(made.widehead_threads() == threads + 1)
    finally:
        torch.set_num_threads(threads)
