"""New networks of jobs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from widehead.data import Examples
from widehead.jobs.base import Job
from widehead.models import BagEncoder, SequenceEncoder, WideNetwork
from widehead.names import HEADS
from widehead.options import TrainingConfig
from widehead.options.heads import needs_frequencies, split_heads


def bag_encoder(num_inputs: int, config: TrainingConfig, mesh: Any = None, kept: Tensor | None = None) -> BagEncoder:
    """The encoder of jobs whose inputs are bags of ids; ``mesh`` and ``kept`` as `BagEncoder` takes them."""
    return BagEncoder(
        num_inputs,
        config.width,
        hidden=config.hidden,
        activation=config.activation,
        dropout=config.dropout,
        input_dropout=config.input_dropout,
        kept=kept,
        mesh=mesh,
    )


def sequence_encoder(num_inputs: int, config: TrainingConfig, embedding: int | None = None) -> SequenceEncoder:
    """The encoder of jobs whose inputs are sequences of ids; embeddings are as large as hidden layers by default."""
    return SequenceEncoder(
        num_inputs,
        config.width,
        kind=config.encoder,
        context=config.context,
        embedding=None if config.tied else embedding,
        layers=config.layers,
        hidden=config.hidden,
        activation=config.activation,
        dropout=config.dropout,
        input_dropout=config.input_dropout,
        norm=config.hidden_norm,
    )


def build_network(
    job: Job,
    config: TrainingConfig,
    frequencies: Tensor | None = None,
    mesh: Any = None,
    start: Callable[[nn.Module], object] = lambda encoder: None,
) -> WideNetwork:
    """A new network for a job, its weights drawn from ``config.seed``; those of one process, whatever ``mesh`` is.

    Args:
        frequencies: (D,) how often each class is a target, for the heads of which `needs_frequencies` says so.
        mesh: the processes that the head's rows are split over, and those of an encoder of bags; each has the whole of
            another encoder, and of a head that is not split.
        start: gives the encoder its first weights, before there is a head, as both may need much memory.

    Raises:
        ValueError: options that the head cannot have with so many classes.
        OSError: a file for the head's rows cannot be made.
    """
    torch.manual_seed(config.seed)
    dtype = {"float32": torch.float32, "float64": torch.float64}[config.dtype]
    encoder = job.encoder(config, mesh).to(device=config.device, dtype=dtype)
    start(encoder)
    options: dict[str, Any] = dict(config.head_options)
    if config.head == "exact":
        options["loss"] = config.make_loss()
        options["storage"] = config.storage_of(None if mesh is None else mesh.get_local_rank())
        options["storage_owner"] = config.storage_owner
        options["storage_dtype"] = torch.bfloat16 if config.head_storage_dtype == "bfloat16" else None
    if needs_frequencies(config.head, config.head_options):
        options["frequencies"] = frequencies
    splits = mesh is not None and config.head in split_heads()
    if splits:
        options["mesh"] = mesh
    state = torch.get_rng_state()
    head = HEADS[config.head](
        config.width, job.sizes["classes"], bias=config.head_bias, device=config.device, dtype=dtype, **options
    )
    if splits:
        head.draw_as_one(state)
    if config.tied:
        assert isinstance(encoder, SequenceEncoder)
        encoder.tie(head)
    return WideNetwork(encoder, head)


def class_frequencies(examples: Examples, num_classes: int, chunk: int = 1 << 16) -> Tensor:
    """(D,) float64: how often each class is a target of the examples, of which ``chunk`` are made at a time."""
    counts = np.zeros(num_classes, dtype=np.float64)
    for start in range(0, len(examples), chunk):
        _, targets = examples.batch(np.arange(start, min(start + chunk, len(examples))))
        counts += np.bincount(targets.class_ids.numpy(), minlength=num_classes)
    return torch.from_numpy(counts)
