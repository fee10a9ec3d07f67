"""A run's whole state to a checkpoint and back."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from widehead import factored
from widehead.errors import CheckpointError
from widehead.heads import ExactHead
from widehead.models import EncoderOptimizer, WideNetwork
from widehead.optim import HeadOptimizer
from widehead.options import OPTIONS, TrainingConfig
from widehead.split import is_split
from widehead.training.checkpoint import load_checkpoint, save_checkpoint
from widehead.training.folder import expecting
from widehead.training.position import Position

_BLOCK = 1 << 20  # numbers that are looked at at a time


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
        if not all(isinstance(part, dict) and all(isinstance(name, str) for name in part) for part in found.values()):
            raise CheckpointError(f"{path} should say what run it is of. Found something else.")
        if found["sizes"] != self.sizes:
            raise CheckpointError(
                f"Checkpoint {path} should be of a network for {self.sizes}. Found {found['sizes']}: the data or the "
                "vocabularies changed."
            )
        if name := _different(self.options, found["options"]):
            raise CheckpointError(
                f"Checkpoint {path} should be of a run with `{name}` = {self.options.get(name)!r}, as in config.json. "
                f"Found one with {found['options'].get(name)!r}: it is another run's, or config.json was changed."
            )
        if name := _different(self.names, found["names"]):
            raise CheckpointError(
                f"Checkpoint {path} should belong to the run's {name}. Found that file missing, changed or another "
                "run's."
            )


def _different(should: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
    return next((name for name in sorted({*should, *found}) if should.get(name) != found.get(name)), None)


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
        if isinstance(self.network.head, ExactHead):
            factored.recount_if_drifted(self.network.head.weights)
        tree = {
            "origin": dataclasses.asdict(self.origin),
            "encoder": self.network.encoder.state_dict(),
            "head": self.network.head.state_dict(),
            "encoder_optimizer": self.encoder_optimizer.state_dict(),
            "head_optimizer": self.head_optimizer.state_dict(),
            "schedulers": [scheduler.state_dict() for scheduler in self.schedulers],
            "random": _random_state(self.device),
            "position": dataclasses.asdict(self.position),
        }
        save_checkpoint(path, tree)

    def restore(self, path: Path) -> None:
        """Go back to the moment of a checkpoint; CheckpointError if it is missing, damaged or another run's."""
        tree = load_checkpoint(path)
        restore_network(self.network, tree, self.origin, path)
        with expecting(path, "optimisers and counters of this run"):
            for name in ("encoder_optimizer", "head_optimizer", "schedulers"):
                check_finite(tree[name], name)
            self.encoder_optimizer.load_state_dict(_parts_alike(self.encoder_optimizer, tree["encoder_optimizer"]))
            self.head_optimizer.load_state_dict(_split_alike(self.head_optimizer, tree["head_optimizer"]))
            for optimizer in (self.head_optimizer, *self.encoder_optimizer.parts):
                _check_shapes(optimizer)
            for scheduler, state in zip(self.schedulers, tree["schedulers"], strict=True):
                scheduler.load_state_dict(_like(scheduler.state_dict(), state))
            self.position = Position.of(tree["position"])
            _set_random_state(tree["random"], self.device)


def _parts_alike(optimizer: EncoderOptimizer, state: Mapping[str, Any]) -> dict[str, Any]:
    """`_split_alike` of each part."""
    return {"parts": [_split_alike(part, of) for part, of in zip(optimizer.parts, state["parts"], strict=True)]}


def _split_alike(optimizer: Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of an optimiser, with the rows of what it keeps of a parameter split as those are."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not any(map(is_split, parameters)):
        return dict(state)
    from torch.distributed.tensor import distribute_tensor  # it takes long to import

    kept = {number: dict(parts) for number, parts in state["state"].items()}
    for number, parts in kept.items():
        if not is_split(parameter := parameters[number]):
            continue
        for name, part in parts.items():
            if isinstance(part, Tensor) and part.ndim > 0:
                parts[name] = distribute_tensor(part, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return {**state, "state": kept}


def restore_network(network: WideNetwork, tree: Mapping[str, Any], origin: Origin, path: Path) -> None:
    """Load the weights of a tree into a network; CheckpointError if it is not of ``origin``: nothing changed then."""
    origin.check(tree, path)
    should = _shapes(network.encoder.state_dict())
    with expecting(path, f"an encoder with {should}"):
        check_finite(tree["encoder"], "encoder")
        if (found := _shapes(tree["encoder"])) != should:
            raise ValueError(f"one with {found}")
    with expecting(path, "a head of this run"):
        if not isinstance(network.head, ExactHead):  # which looks through its state itself, once
            check_finite(tree["head"], "head")
        network.head.load_state_dict(tree["head"])
    network.encoder.load_state_dict(tree["encoder"])


def _random_state(device: torch.device) -> dict[str, Any]:
    """States of all that training draws from (weights, dropout): the order of examples has no state."""
    state = {"cpu": torch.get_rng_state()}
    return state if device.type != "cuda" else {**state, "cuda": torch.cuda.get_rng_state(device)}


def _set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Go back to such a state; one of another kind of device sets what they share."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def check_finite(tree: Any, path: str) -> None:
    """ValueError naming the first tensor of a tree, whose own path is ``path``, that has a NaN or an infinity."""
    if isinstance(tree, Tensor) and tree.is_floating_point():
        if not all(bool(torch.isfinite(block).all()) for block in tree.flatten().split(_BLOCK)):
            raise ValueError(f"NaN or infinity in {path}")
    elif isinstance(tree, float) and not math.isfinite(tree):
        raise ValueError(f"{tree} in {path}")
    elif isinstance(tree, Mapping | list | tuple):
        for name, part in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
            check_finite(part, f"{path}.{name}")


def _check_shapes(optimizer: Optimizer) -> None:
    """ValueError if what an optimiser keeps of a parameter is neither of its shape nor one number for each row."""
    if isinstance(optimizer, HeadOptimizer):  # its parameters stand for heads, and have no shape of their own
        return
    for parameter, state in optimizer.state.items():
        for name, part in state.items():
            if isinstance(part, Tensor) and part.ndim > 0 and part.shape not in (parameter.shape, parameter.shape[:1]):
                raise ValueError(f"`{name}` of shape {tuple(part.shape)} for a parameter of {tuple(parameter.shape)}")


def _like(should: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """What is ``found`` for the names that there should be; ValueError if one is of another type."""
    for name, value in should.items():
        if not isinstance(found[name], type(value)):
            raise TypeError(f"`{name}` of a schedule that is a {type(found[name]).__name__}")
    return {name: found[name] for name in should}


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
