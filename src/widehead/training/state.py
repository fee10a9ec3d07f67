"""A run's whole state to a checkpoint and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from widehead.errors import CheckpointError
from widehead.models import EncoderOptimizer, WideNetwork
from widehead.training.checkpoint import load_checkpoint, save_checkpoint
from widehead.training.position import Position
from widehead.training.seeding import random_state, set_random_state

__all__ = ["RunState", "restore_network"]


@dataclass
class RunState:
    """All that decides the next step of a run.

    ``sizes`` says what the network was built for ("inputs", "classes"); it is checked when a state comes back.
    """

    network: WideNetwork
    head_optimizer: Optimizer
    encoder_optimizer: EncoderOptimizer
    schedulers: list[LRScheduler]
    position: Position
    sizes: Mapping[str, int]
    device: torch.device

    def save(self, path: Path) -> None:
        """Write a checkpoint of this moment; CheckpointError where that fails."""
        tree = {
            "sizes": dict(self.sizes),
            "encoder": self.network.encoder.state_dict(),
            "head": self.network.head.state_dict(),
            "encoder_optimizer": self.encoder_optimizer.state_dict(),
            "head_optimizer": self.head_optimizer.state_dict(),
            "schedulers": [scheduler.state_dict() for scheduler in self.schedulers],
            "random": random_state(self.device),
            "position": dataclasses.asdict(self.position),
        }
        save_checkpoint(path, tree)

    def restore(self, path: Path) -> None:
        """Go back to the moment of a checkpoint.

        Raises:
            CheckpointError: the file is missing, damaged, or from a run on other data or another network.
        """
        tree = load_checkpoint(path)
        restore_network(self.network, tree, self.sizes, path)
        try:
            self.encoder_optimizer.load_state_dict(tree["encoder_optimizer"])
            self.head_optimizer.load_state_dict(tree["head_optimizer"])
            for scheduler, state in zip(self.schedulers, tree["schedulers"], strict=True):
                scheduler.load_state_dict(state)
            self.position = Position(**tree["position"])
            set_random_state(tree["random"], self.device)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"Checkpoint {path} does not fit this run: {error}.") from error


def restore_network(network: WideNetwork, tree: Mapping[str, Any], sizes: Mapping[str, int], path: Path) -> None:
    """Load the weights of a checkpoint's tree into a network built for ``sizes``.

    Raises:
        CheckpointError: the tree is from a network of other sizes; the network is as it was.
    """
    if tree.get("sizes") != dict(sizes):
        raise CheckpointError(
            f"Checkpoint {path} should be of a network for {dict(sizes)}. Found {tree.get('sizes')}: the data or the "
            "vocabularies changed."
        )
    should = _shapes(network.encoder.state_dict())
    if (found := _shapes(tree["encoder"])) != should:
        raise CheckpointError(f"Checkpoint {path} should hold an encoder with {should}. Found {found}.")
    try:
        network.head.load_state_dict(tree["head"])
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"Checkpoint {path} does not fit the head: {error}") from error
    network.encoder.load_state_dict(tree["encoder"])


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
