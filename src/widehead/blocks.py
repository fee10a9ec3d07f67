"""How much is worked on at a time."""

import torch

_ON_DEVICE = 1 << 26


def at_once(device: torch.device, on_cpu: int) -> int:
    """Numbers of a block: ``on_cpu`` of them on the CPU, 2²⁶ elsewhere.

    On a CPU a block should fit a cache; on a GPU each block costs launches, and memory is all alike.
    """
    return on_cpu if device.type == "cpu" else _ON_DEVICE


def rows_at_once(device: torch.device, on_cpu: int, *widths: int) -> int:
    """Rows of a block: ``on_cpu`` on the CPU; elsewhere as many as have 2²⁶ numbers at the largest of ``widths``."""
    return on_cpu if device.type == "cpu" else max(1, _ON_DEVICE // max(1, *widths))
