"""The network of a checkpoint, whole in this process."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from torch import Tensor

from widehead.heads import ExactHead
from widehead.jobs import Job, build_network
from widehead.models import WideNetwork
from widehead.options import TrainingConfig
from widehead.options.heads import needs_frequencies
from widehead.runs.storage import storage_beside
from widehead.sampling.base import checked_frequencies
from widehead.training import RunFolder
from widehead.training.checkpoint import load_checkpoint
from widehead.training.folder import expecting
from widehead.training.position import Position
from widehead.training.state import Origin, restore_network

FREQUENCIES = "frequencies.safetensors"


def loaded_network(
    folder: RunFolder, config: TrainingConfig, job: Job, path: Path, device: str
) -> tuple[WideNetwork, int]:
    """The network of the checkpoint ``path`` in eval mode, and the steps it has seen; nothing ranks beside it yet.

    Raises:
        CheckpointError: it is missing, damaged or another run's.
    """
    keeps_rows = config.head_storage is not None and device == "cpu"
    config, tree = dataclasses.replace(config, device=device, head_storage=None), load_checkpoint(path)
    origin = Origin.of(config, job.sizes, folder.vocabulary_sums())
    origin.check(tree, path)  # before anything is made of the options and the other files
    frequencies = kept_frequencies(folder, config, job)
    with storage_beside(folder.path) as rows:
        if keeps_rows:
            config = dataclasses.replace(config, head_storage=rows)
        network = build_network(job, config, frequencies)
        restore_network(network, tree, origin, path)
        if isinstance(network.head, ExactHead):
            network.head.consolidate()  # what is loaded is read
    with expecting(path, "where the run is"):
        return network.eval(), Position.of(tree["position"]).step


def kept_frequencies(folder: RunFolder, config: TrainingConfig, job: Job) -> Tensor | None:
    """How often each class is a target, if the head needs that, as the folder has it."""
    if not needs_frequencies(config.head, config.head_options):
        return None
    path = folder.vocabulary_path(FREQUENCIES)
    tree = load_checkpoint(path)
    with expecting(path, "how often each class is a target"):
        return checked_frequencies(tree["frequencies"], job.sizes["classes"])
