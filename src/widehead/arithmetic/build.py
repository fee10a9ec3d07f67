"""C of this room to a library: which compiler, what its code depends on, and one run of it."""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from widehead.arithmetic.interface import SOURCES

_FLAGS = "WIDEHEAD_KERNEL_FLAGS"  # more flags of the compiler, such as those of its sanitizers
# What /proc/cpuinfo calls the features of a processor and its model, on x86, Arm, RISC-V and POWER.
_FEATURES = (b"model name", b"flags", b"Features", b"CPU ", b"isa", b"hart isa", b"uarch", b"cpu\t")


class Unavailable(Exception):
    """Why there is no library: a sentence that begins with a small letter."""


def command() -> list[str]:
    """How a file is compiled for this processor: $CC, or what is there; `gcc` first, as its OpenMP is torch's."""
    given = _words("CC") or [path for path in map(shutil.which, ("gcc", "cc")) if path][:1]
    if not given:
        raise Unavailable("no C compiler (gcc) was found, which compiles the kernels at first use.")
    native = "-march=native" if platform.machine() in ("x86_64", "AMD64", "i686") else "-mcpu=native"
    return [*given, "-O3", native, "-fopenmp", "-fno-math-errno", "-std=gnu11", "-fPIC", *_words(_FLAGS)]


def key(command: list[str]) -> str:
    """A name for what `compiled` makes: another one if the sources, the compiler, the system or the processor differ.

    Home folders are shared by machines that differ.
    """
    try:
        processor = _features(Path("/proc/cpuinfo").read_bytes())
    except OSError:
        processor = []
    known = hashlib.sha256(repr([command, platform.libc_ver(), processor or platform.node()]).encode())
    known.update(_run([*command, "--version"]))
    for path in sorted(SOURCES.glob("*.[ch]")):
        known.update(path.read_bytes())
    return known.hexdigest()[:32]


def compiled(command: list[str]) -> bytes:
    """The library."""
    try:
        with tempfile.TemporaryDirectory(prefix="widehead-") as folder:
            sources = sorted(SOURCES.glob("*.c"))
            objects = [str(Path(folder, f"{path.stem}.o")) for path in sources]
            for path, made in zip(sources, objects, strict=True):
                _run([*command, "-c", str(path), "-o", made])
            # Without -fopenmp: OpenMP is to be the one that torch has loaded, whose threads wait for ours.
            whole = Path(folder, "whole.so")
            _run([*(part for part in command if part != "-fopenmp"), "-shared", *objects, "-o", str(whole)])
            return whole.read_bytes()
    except OSError as error:
        raise Unavailable(f"the compiler {command[0]} made no library ({error}).") from error


def _words(variable: str) -> list[str]:
    """The words of an environment variable, as a shell has them; [] if it is not set."""
    given = os.environ.get(variable, "")
    try:
        words = shlex.split(given)
    except ValueError as error:
        raise Unavailable(f"{variable} should be words as a shell has them. Found {given!r} ({error}).") from error
    if given and not (words and words[0]):
        raise Unavailable(f"{variable} should be words, or not be set. Found {given!r}.")
    return words


def _features(cpuinfo: bytes) -> list[bytes]:
    return sorted({line for line in cpuinfo.splitlines() if line.startswith(_FEATURES)})


def _run(command: list[str]) -> bytes:
    """What a command prints. It may be of any encoding."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=300)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"the compiler {command[0]!r} does not run ({error}).") from error
    if done.returncode != 0:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise Unavailable(f"`{shlex.join(command)}` failed: {last}")
    return done.stdout
