"""The program started by torchrun, and killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from support.processes import ENVIRONMENT


def start(*arguments: str | Path, count: int = 2, restarts: int = 0) -> subprocess.Popen[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count), "--monitor-interval"]
    torchrun += ["0.05", "--max-restarts", str(restarts), "--master-port", str(port), "-m", "widehead"]
    return subprocess.Popen(
        [*torchrun, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str], seconds: float = 120.0) -> tuple[int, str, list[str]]:
    """Its code, what it wrote to standard output, and the lines of standard error; it is killed if it takes longer."""
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        if process.poll() is None:
            for pid in [*workers(process), process.pid]:
                os.kill(pid, signal.SIGKILL)
    return process.returncode, out, err.splitlines()


def workers(process: subprocess.Popen[str]) -> list[int]:
    """The processes that torchrun has started, by rank."""
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
    return sorted(int(pid) for pid in found.stdout.split())


def kill_one(pids: Sequence[int], run: Path, begin: int, chance: random.Random, *, in_save: bool) -> str:
    """Kill one of the workers of a run that has got further than checkpoint ``begin``: "save" if that was at work."""
    last, temporary = (run / "checkpoints" / name for name in ("last.safetensors", ".last.safetensors.tmp"))
    while stamp(last) == begin and all(map(_lives, pids)):
        time.sleep(0.001)
    if not in_save:
        time.sleep(chance.uniform(0.0, 0.2))
    while in_save and not temporary.exists() and all(map(_lives, pids)):
        time.sleep(0.0002)
    with contextlib.suppress(ProcessLookupError):
        os.kill(chance.choice(pids), signal.SIGKILL)
    return "save" if temporary.exists() else "step"


def _lives(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"


def stamp(path: Path) -> int:
    """When a file was last written; 0 if it is not there."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime_ns
    return 0
