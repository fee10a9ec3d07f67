"""What the kinds of runs have in common: a job says what inputs and classes are, how to judge, and how to predict."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from widehead.data import Examples
from widehead.models import BagEncoder, WideNetwork
from widehead.training.config import TrainingConfig
from widehead.training.folder import RunFolder
from widehead.training.heads import HEADS, needs_frequencies
from widehead.training.seeding import seed_all

__all__ = ["Job", "JobData", "Prediction", "Test", "bag_encoder", "build_network"]


class Test(Protocol):
    """Examples to judge a network by."""

    def metrics(self, network: WideNetwork, names: Sequence[str], at_most: int | None, seed: int) -> dict[str, float]:
        """Metrics by name, such as "recall@20"; rankings over at most so many examples, drawn by ``seed``."""


@dataclass(frozen=True)
class Prediction:
    """The best classes of one line of input, best first, and their scores."""

    name: str
    classes: list[str]
    scores: list[float]


class Job(ABC):
    """One kind of run. Built from training data by ``read``, kept in the run folder, and back from it by ``load``.

    Laws: ``load`` after ``save`` gives a job with the same ``sizes``, predictions and tests; ``save`` twice with
    equal jobs writes equal bytes.
    """

    @property
    @abstractmethod
    def sizes(self) -> Mapping[str, int]:
        """Numbers of "inputs" and "classes"."""

    @classmethod
    @abstractmethod
    def read(cls, config: TrainingConfig) -> JobData:
        """Read the files that ``config`` names; DataError where one is not what it should be."""

    @classmethod
    @abstractmethod
    def load(cls, folder: RunFolder, config: TrainingConfig) -> Job:
        """The job of an earlier run, from its folder alone."""

    @abstractmethod
    def save(self, folder: RunFolder) -> None:
        """Keep in the run folder what ``load`` needs; CheckpointError where something else is there already."""

    def settled(self, config: TrainingConfig) -> TrainingConfig:
        """The options with numbers where they leave the choice to the training data; an equal one where they do not."""
        return config

    @abstractmethod
    def encoder(self, config: TrainingConfig) -> nn.Module:
        """A new encoder with ``config.width`` outputs."""

    def start(self, encoder: nn.Module, examples: Examples, config: TrainingConfig) -> None:
        """Give a new encoder weights made from the training data, where ``config.encoder_init`` says so."""
        assert config.encoder_init == "random", "a job that takes another start says here what it is"

    @abstractmethod
    def metric_names(self, at: tuple[int, ...]) -> list[str]:
        """Metrics of this kind of run at some cutoffs; the first one decides which checkpoint is best."""

    @abstractmethod
    def read_test(self, path: Path | str) -> Test:
        """A file of examples to judge by, in a format that training takes."""

    @abstractmethod
    def predict(self, network: WideNetwork, path: Path | str, k: int) -> Iterator[Prediction]:
        """The k best classes for each input of a file."""


@dataclass(frozen=True)
class JobData:
    """A job with the examples to train on and, where there are some, those to judge by."""

    job: Job
    examples: Examples
    test: Test | None


def bag_encoder(num_inputs: int, config: TrainingConfig) -> BagEncoder:
    """The encoder of jobs whose inputs are bags of ids."""
    return BagEncoder(
        num_inputs,
        config.width,
        hidden=config.hidden,
        activation=config.activation,
        dropout=config.dropout,
        input_dropout=config.input_dropout,
    )


def build_network(job: Job, config: TrainingConfig, frequencies: Tensor | None = None) -> WideNetwork:
    """A new network for a job, its weights drawn from ``config.seed``.

    Args:
        frequencies: (D,) how often each class is a target, for heads that `needs_frequencies` says so of.

    Raises:
        ValueError: options that the head cannot have with so many classes.
        OSError: a file for the head's rows cannot be made.
    """
    seed_all(config.seed)
    dtype = {"float32": torch.float32, "float64": torch.float64}[config.dtype]
    encoder = job.encoder(config).to(device=config.device, dtype=dtype)
    options: dict[str, Any] = dict(config.head_options)
    if config.head == "exact":
        options["loss"] = config.make_loss()
        options["storage"] = config.head_storage
        options["storage_dtype"] = torch.bfloat16 if config.head_storage_dtype == "bfloat16" else None
    if needs_frequencies(config.head, config.head_options):
        options["frequencies"] = frequencies
    head = HEADS[config.head](
        config.width, job.sizes["classes"], bias=config.head_bias, device=config.device, dtype=dtype, **options
    )
    return WideNetwork(encoder, head)
