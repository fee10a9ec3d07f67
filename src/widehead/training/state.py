"""A run's whole state to a checkpoint and back."""

from __future__ import annotations

import dataclasses
import json
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
from widehead.options import OPTIONS, TrainingConfig
from widehead.training.checkpoint import load_checkpoint, save_checkpoint
from widehead.training.position import Position
from widehead.training.seeding import random_state, set_random_state

__all__ = ["Origin", "RunState", "restore_network"]


@dataclass(frozen=True)
class Origin:
    """What a checkpoint belongs to; it is written into it and compared when it comes back.

    Attributes:
        options: those that cannot change, as in config.json.
        sizes: what the network was built for ("inputs", "classes").
        names: check sum of each vocabulary file.
    """

    options: Mapping[str, Any]
    sizes: Mapping[str, int]
    names: Mapping[str, int]

    @classmethod
    def of(cls, config: TrainingConfig, sizes: Mapping[str, int], names: Mapping[str, int]) -> Origin:
        """From the run's options, the data's sizes and the folder's files."""
        options = json.loads(config.to_json())
        kept = sorted(name for name, row in OPTIONS.items() if row.resumed == "kept")
        return cls({name: options[name] for name in kept}, dict(sizes), dict(names))

    def check(self, tree: Mapping[str, Any], path: Path) -> None:
        """CheckpointError if a checkpoint's tree belongs to something else; says to what."""
        found = tree.get("origin")
        if not isinstance(found, dict) or found.keys() != {"options", "sizes", "names"}:
            raise CheckpointError(f"{path} should be a checkpoint of a run. Found another tree, or another version's.")
        if found["sizes"] != self.sizes:
            raise CheckpointError(
                f"Checkpoint {path} should be of a network for {self.sizes}. Found {found['sizes']}: the data or the "
                "vocabularies changed."
            )
        for kind, should in (("option", self.options), ("vocabulary file", self.names)):
            there = found[f"{'option' if kind == 'option' else 'name'}s"]
            for name in sorted({*should, *there}):
                if should.get(name) != there.get(name):
                    raise CheckpointError(_of_another_run(path, kind, name, should.get(name), there.get(name)))


def _of_another_run(path: Path, kind: str, name: str, should: Any, found: Any) -> str:
    if kind == "option":
        return (
            f"Checkpoint {path} should be of a run with `{name}` = {should!r}, as in config.json. Found one with "
            f"{found!r}: it is another run's, or config.json was changed."
        )
    return f"Checkpoint {path} should belong to the run's {name}. Found that file missing, changed or another run's."


@dataclass
class RunState:
    """All that decides the next step of a run, and what it belongs to, which is compared when it comes back."""

    network: WideNetwork
    head_optimizer: Optimizer
    encoder_optimizer: EncoderOptimizer
    schedulers: list[LRScheduler]
    position: Position
    origin: Origin
    device: torch.device

    def save(self, path: Path) -> None:
        """Write a checkpoint of this moment; CheckpointError if that fails."""
        tree = {
            "origin": dataclasses.asdict(self.origin),
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
        """Go back to the moment of a checkpoint; CheckpointError if it is missing, damaged or another run's."""
        tree = load_checkpoint(path)
        restore_network(self.network, tree, self.origin, path)
        try:
            self.encoder_optimizer.load_state_dict(tree["encoder_optimizer"])
            self.head_optimizer.load_state_dict(tree["head_optimizer"])
            for scheduler, state in zip(self.schedulers, tree["schedulers"], strict=True):
                scheduler.load_state_dict(state)
            self.position = Position(**tree["position"])
            set_random_state(tree["random"], self.device)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(f"Checkpoint {path} does not fit this run: {error}.") from error


def restore_network(network: WideNetwork, tree: Mapping[str, Any], origin: Origin, path: Path) -> None:
    """Load the weights of a tree into a network; CheckpointError if it is not of ``origin``: nothing changed then."""
    origin.check(tree, path)
    should = _shapes(network.encoder.state_dict())
    try:
        found = _shapes(tree["encoder"])
    except (AttributeError, KeyError) as error:
        raise CheckpointError(f"Checkpoint {path} should hold an encoder. Found none.") from error
    if found != should:
        raise CheckpointError(f"Checkpoint {path} should hold an encoder with {should}. Found {found}.")
    try:
        network.head.load_state_dict(tree["head"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"Checkpoint {path} does not fit the head: {error}") from error
    network.encoder.load_state_dict(tree["encoder"])


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
