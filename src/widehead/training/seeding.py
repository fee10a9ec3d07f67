"""All randomness of a run from one seed, and its state for checkpoints.

Training draws only from torch's generators (weights, dropout); the order of examples is a function of (seed, epoch)
and has no state.
"""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["random_state", "seed_all", "set_random_state"]


def seed_all(seed: int) -> None:
    """Start torch's generators, of the CPU and of every GPU, from ``seed``."""
    torch.manual_seed(seed)


def random_state(device: torch.device) -> dict[str, Any]:
    """States of the generators that a run on ``device`` draws from."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Go back to a state taken by ``random_state``; one taken on another kind of device sets what they share."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
