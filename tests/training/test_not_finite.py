"""NaN and infinity in the middle of an epoch: the run stops at that step with everything as it was before it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_run import build, small_config
from torch import nn

from widehead.errors import NonFiniteError
from widehead.targets import SparseTargets
from widehead.training.checkpoint import load_checkpoint
from widehead.training.folder import RunFolder
from widehead.training.loop import Trainer

BAD_STEP = 14


class Poison(torch.autograd.Function):
    """Multiplies what passes forward and backward by one number each."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor, forwards: float, backwards: float) -> torch.Tensor:
        context.backwards = backwards
        return x * forwards

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return gradient * context.backwards, None, None


def poison_encoder(forwards: float, backwards: float) -> Callable[[Trainer], None]:
    def poison(trainer: Trainer) -> None:
        steps = iter(range(1, 1_000))

        def hook(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
            return Poison.apply(output, forwards, backwards) if next(steps) == BAD_STEP else output

        trainer.network.encoder.register_forward_hook(hook)

    return poison


def poison_values(value: float) -> Callable[[Trainer], None]:
    """A target value that is finite, but whose square is not."""

    def poison(trainer: Trainer) -> None:
        original = trainer.batches.epoch

        def epoch(n: int, start: int = 0) -> Iterator[tuple[SparseTargets, SparseTargets]]:
            for i, (inputs, targets) in enumerate(original(n, start)):
                values = torch.ones(targets.class_ids.numel())
                values[0] = value if i == BAD_STEP - 1 else 1.0
                yield inputs, SparseTargets(targets.class_ids, targets.offsets, values)

        trainer.batches.epoch = epoch  # type: ignore[method-assign]

    return poison


CASES: dict[str, tuple[Callable[[Trainer], None], str]] = {
    "the hidden layer is NaN": (poison_encoder(float("nan"), 1.0), "the loss is nan"),
    "the hidden layer is infinite": (poison_encoder(float("inf"), 1.0), "the loss is (nan|inf)"),
    "the hidden layer overflows": (poison_encoder(1e30, 1.0), "the loss is (nan|inf)"),
    "the encoder's gradient is NaN": (poison_encoder(1.0, float("nan")), "encoder's gradient is nan"),
    "the encoder's gradient is infinite": (poison_encoder(1.0, float("inf")), "encoder's gradient is (nan|inf)"),
    "the square of the encoder's gradient overflows": (poison_encoder(1.0, 1e30), "encoder's gradient is inf"),
    "a target's value overflows": (poison_values(1e30), "the loss is inf"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_run_stops_before_anything_changes(tmp_path: Path, case: str) -> None:
    poison, message = CASES[case]
    loss = "squared-error" if "target" in case else "spherical-softmax"
    options = {"loss": loss, "head_lr": 0.01, "checkpoint_every": "1 steps", "encoder_max_grad_norm": 5.0}
    config = small_config(tmp_path / "run", **options)
    folder = RunFolder.create(config)
    trainer = build(config, folder)
    poison(trainer)
    with pytest.raises(NonFiniteError, match=rf"stopped at step {BAD_STEP}: .*{message}.*last good checkpoint"):
        trainer.run()
    # A checkpoint was made after every step: what the network is now is what it was then.
    last = load_checkpoint(folder.last_checkpoint)
    assert last["position"]["step"] == BAD_STEP - 1
    for name, tensor in trainer.network.head.state_dict().items():
        assert torch.equal(tensor, last["head"][name]), name
    for name, tensor in trainer.network.encoder.state_dict().items():
        assert torch.equal(tensor, last["encoder"][name]), name


def test_once_the_cause_is_gone_the_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    ends = []
    for name in ("whole", "broken"):
        config = small_config(tmp_path / name, checkpoint_every="10 steps")
        folder = RunFolder.create(config)
        trainer = build(config, folder)
        if name == "broken":
            CASES["the encoder's gradient is NaN"][0](trainer)
            with pytest.raises(NonFiniteError):
                trainer.run()
            trainer = build(config, folder)
            trainer.restore()
        trainer.run()
        ends.append(copy.deepcopy(load_checkpoint(folder.last_checkpoint)))
    for part in ("head", "encoder"):
        assert all(torch.equal(ends[0][part][name], ends[1][part][name]) for name in ends[0][part])
