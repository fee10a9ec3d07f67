"""The library of compiled operations: C of this room, compiled for this processor at first use and kept in a cache."""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch

from widehead.arithmetic.interface import FUNCTIONS, SOURCES, handshake
from widehead.errors import KernelWarning

_SWITCH = "WIDEHEAD_KERNELS"
_FLAGS = "WIDEHEAD_KERNEL_FLAGS"  # more flags of the compiler, such as those of its sanitizers


class _Unavailable(Exception):
    """Why there is no library."""


_found: list[ctypes.CDLL | None] = []  # the library, or None, once it was looked for


def library() -> ctypes.CDLL | None:
    """The library; None if steps are to be made of torch's operations.

    That is so if WIDEHEAD_KERNELS is 0, on other systems than Linux, and if it cannot be compiled or loaded.

    Warns:
        KernelWarning: once, why it could not be made or loaded.
    """
    if not _found:
        _found.append(None)  # a warning that is made an error is met once, too
        if os.environ.get(_SWITCH) != "0" and sys.platform == "linux":
            _found[0] = _made()
    return _found[0]


def _made() -> ctypes.CDLL | None:
    try:
        return _loaded(_compiled())
    except _Unavailable as why:
        warnings.warn(
            f"Small steps of exact heads on the CPU take up to twice as long as they could: {why} "
            f"Results are the same. Set {_SWITCH}=0 to say that this is meant.",
            KernelWarning,
            stacklevel=2,
        )
        return None


def _compiled() -> Path:
    """The library's file, compiled unless the same sources were by the same compiler for the same processor."""
    more = shlex.split(os.environ.get(_FLAGS, ""))
    command = [*_compiler(), "-O3", _native(), "-fopenmp", "-fno-math-errno", "-std=gnu11", "-fPIC", *more]
    known = hashlib.sha256(repr([command, _version(command[0]), _processor()]).encode())
    sources = sorted(SOURCES.glob("*.c"))
    for path in (*sorted(SOURCES.glob("*.h")), *sources):
        known.update(path.read_bytes())
    target = _cache_folder() / f"kernels-{known.hexdigest()[:32]}.so"
    if target.exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            objects = [str(Path(scratch, f"{path.stem}.o")) for path in sources]
            for path, made in zip(sources, objects, strict=True):
                _run([*command, "-c", str(path), "-o", made])
            # Without -fopenmp: OpenMP is to be the one that torch has loaded, whose threads wait for ours.
            whole = Path(scratch, "whole.so")
            _run([*_compiler(), *more, "-shared", *objects, "-o", str(whole)])
            whole.replace(target)  # at once: other processes see all of it or nothing
    except OSError as error:
        raise _Unavailable(f"the kernels could not be kept in {target.parent} ({error}).") from error
    return target


def _compiler() -> list[str]:
    """$CC, or what is there; `gcc` first, as its OpenMP is the one that torch brings."""
    if os.environ.get("CC"):
        return shlex.split(os.environ["CC"])
    found = next((path for path in map(shutil.which, ("gcc", "cc")) if path), None)
    if found is None:
        raise _Unavailable("no C compiler (gcc) was found, which compiles the kernels at first use.")
    return [found]


def _native() -> str:
    return "-march=native" if platform.machine() in ("x86_64", "AMD64", "i686") else "-mcpu=native"


def _version(compiler: str) -> str:
    try:
        return subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _Unavailable(f"the compiler {compiler} does not run ({error}).") from error


def _processor() -> str:
    """What code made for this processor depends on: home folders are shared by machines that differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))}))


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "widehead"


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _Unavailable(f"the compiler does not run ({error}).") from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise _Unavailable(f"`{shlex.join(command)}` failed: {last}")


def _loaded(path: Path) -> ctypes.CDLL:
    try:
        made = ctypes.CDLL(str(path))
        of_torch = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        gemm = ctypes.cast(of_torch.sgemm_, ctypes.c_void_p)
        for name, (result, arguments) in FUNCTIONS.items():
            function = getattr(made, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise _Unavailable(f"the kernels do not fit this torch ({error}).") from error
    _shake_hands(made, path)
    if not _shares_threads(made):
        raise _Unavailable("torch and the C compiler use different OpenMP libraries here.")
    made.widehead_use(gemm)
    return made


def _shake_hands(made: ctypes.CDLL, path: Path) -> None:
    """Refuse a library whose limits or structures are not those that this build of Python's side has."""
    expected = handshake()
    found = (ctypes.c_int64 * len(expected))()
    made.widehead_handshake(found)
    if list(found) != expected:
        raise _Unavailable(f"{path} is of another build (limits and sizes {list(found)}, expected {expected}).")


def _shares_threads(made: ctypes.CDLL) -> bool:
    """Whether torch's number of threads is that of the kernels: both have one OpenMP."""
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        return bool(made.widehead_threads() == threads + 1)
    finally:
        torch.set_num_threads(threads)
