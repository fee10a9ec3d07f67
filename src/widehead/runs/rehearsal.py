"""What a run would take: its data read, its network built, a few steps timed, and nothing kept."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from widehead.options import TrainingConfig
from widehead.runs.start import begun, first_network, frequencies_of, trainer_of
from widehead.runs.storage import drop_storage
from widehead.split import Peers
from widehead.training.memory import keep_freed_memory, told

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

_SECONDS = 5.0  # of steps


@dataclass(frozen=True)
class Rehearsal:
    """What a run would take.

    Attributes:
        config: its options, with those that the data decide.
        reading: what was read of the training file.
        examples, inputs, classes: sizes of the data. steps: of the run; None if time alone ends it.
        encoder_parameters, head_parameters: numbers that are trained or fixed.
        memory: most bytes that the process had, or that it had on the GPU; of several the largest; None if the system
            does not say.
        start_seconds: of weights made from the data. step_seconds: the median of the timed steps, less the first.
        timed_steps: how many there were. processes: that the run has.
    """

    config: TrainingConfig
    reading: str
    examples: int
    inputs: int
    classes: int
    steps: int | None
    encoder_parameters: int
    head_parameters: int
    memory: int | None
    start_seconds: float
    step_seconds: float
    timed_steps: int
    processes: int = 1

    @property
    def seconds(self) -> float:
        """Of training, evaluations and checkpoints left out."""
        limits = [] if self.config.minutes is None else [60.0 * self.config.minutes]
        if self.steps is not None:
            limits.append(self.start_seconds + self.steps * self.step_seconds)
        return min(limits)


def rehearse(config: TrainingConfig, *, overwrite: bool = False, mesh: DeviceMesh | None = None) -> Rehearsal:
    """Read the data of a run, make its first weights and time some five seconds of steps; raises as `Run.new`.

    Nothing is written but the file ``head_storage``, which is removed again. All processes of a mesh call it.
    """
    peers = Peers(mesh)
    config, folder, data = begun(config, overwrite=overwrite, peers=peers)
    try:
        network, started = first_network(config, data, frequencies_of(config, data), peers)
        keep_freed_memory()
        trainer = trainer_of(config, network, data, folder, peers=peers)
        took = trainer.rehearse(_SECONDS)
    finally:
        drop_storage(config)
    sizes, head = data.job.sizes, network.head
    memory = torch.cuda.max_memory_allocated() if config.device != "cpu" else told("VmHWM")
    return Rehearsal(
        config,
        data.reading,
        len(data.examples),
        sizes["inputs"],
        sizes["classes"],
        trainer.num_steps,
        sum(parameter.numel() for parameter in network.encoder.parameters()),
        head.in_features * head.num_classes,
        None if memory is None else max(peers.told(memory)),
        started,
        statistics.median(took[1:] or took),
        len(took),
        peers.size,
    )
