"""What the checks share: the device, what may not wait for it, and what is written down of a check."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from support.played import now_played
from support.properties import DEVICE

__all__ = ["DEVICE", "figures", "no_waits", "note", "share_of"]

#: what the check that is being run has found; the runner empties and keeps it
figures: dict[str, Any] = {}


def share_of(steps: int) -> int:
    """So many steps on a card, a tenth on a device that the CPU plays."""
    return steps if now_played() is None else max(4, steps // 10)


def note(**found: Any) -> None:
    """Write figures down beside the check's result."""
    figures.update(found)


@contextlib.contextmanager
def no_waits() -> Iterator[None]:
    """An error if the host waits for the device inside."""
    device = now_played()
    if device is not None:
        with device.counting() as seen:
            yield
        assert not seen.waits, "\n".join(sorted(set(map(str, seen.waits))))
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
