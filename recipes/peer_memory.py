"""The peak memory of a program, for those that other systems run in as well: it needs Python alone."""

from __future__ import annotations

from pathlib import Path


def peak_bytes() -> int:
    """Of this program: ru_maxrss would have that of the one which started it, if that is larger."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
