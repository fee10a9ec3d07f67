"""What a job is: it says what inputs and classes are, which options it takes, how to judge, and how to predict.

A job is one file of this room. Its class registers itself by its name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import nn

from widehead.data import Examples
from widehead.jobs.judging import Given, Test, ranked
from widehead.models import WideNetwork
from widehead.options import Preset, TrainingConfig
from widehead.options.checks import one_of, refusal
from widehead.training.folder import RunFolder

JOBS: dict[str, type[Job]] = {}
"""Every job by its name."""

STARTS = ("encoder_init", "encoder_lr", "head", "loss", "head_optimizer", "hidden", "activation")
"""What presets of a fixed encoder and a least-squares output layer stand on: other values ask for training."""


@dataclass(frozen=True)
class Prediction:
    """The best classes of one input, best first, and their scores; none if nothing is known of the input."""

    name: str
    classes: list[str]
    scores: list[float]


class Job(ABC):
    """A kind of run; subclasses that have a ``name`` are in `JOBS`.

    An instance knows what the ids of a run's inputs and classes mean; files live in the run folder. It obeys three
    laws: ``load`` after ``save`` gives a job with the same ``sizes``, predictions and tests; ``save`` twice with equal
    jobs writes equal bytes; ``read`` twice with equal options and files gives equal examples.

    Attributes:
        name: of the job.
        title: what a run of it is, as a report begins.
        help: of its command: what it learns, what FILE holds and what a line of `predict` is, with an example.
        command: name in `widehead train`, or "" for none. task: what ``--task`` calls it, if jobs share a command.
        compared: an example of `widehead compare`.
        takes: options that not all jobs take.
        presets: its defaults; the first one that goes with the other options holds.
        sgd_lr: SGD's learning rate by loss, if the data do not tell.
        brings_data: whether it needs no training file.
        decides_width: whether the data decide for a ``width`` of 0.
        exclude_inputs: whether predictions leave out classes that the input names.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    help: ClassVar[str] = ""
    command: ClassVar[str] = ""
    task: ClassVar[str] = ""
    compared: ClassVar[str] = ""
    takes: ClassVar[Sequence[str]] = ()
    presets: ClassVar[Sequence[Preset]]
    sgd_lr: ClassVar[Mapping[str, float]] = {}
    brings_data: ClassVar[bool] = False
    decides_width: ClassVar[bool] = False
    exclude_inputs: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "name" in vars(cls):
            JOBS[cls.name] = cls

    @property
    @abstractmethod
    def sizes(self) -> Mapping[str, int]:
        """Numbers of "inputs" and "classes"."""

    @property
    @abstractmethod
    def class_names(self) -> Sequence[str]:
        """What the classes are called, in the order of their ids."""

    @classmethod
    @abstractmethod
    def read(cls, config: TrainingConfig) -> JobData:
        """Read the files that ``config`` names; DataError if one is not what it should be."""

    @classmethod
    @abstractmethod
    def load(cls, folder: RunFolder, config: TrainingConfig) -> Self:
        """The job of an earlier run, from its folder alone."""

    @abstractmethod
    def save(self, folder: RunFolder) -> None:
        """Keep in the run folder what ``load`` needs; CheckpointError if something else is there already."""

    def settled(self, config: TrainingConfig) -> TrainingConfig:
        """The options after the training data decided those that are left to them."""
        return config

    @abstractmethod
    def encoder(self, config: TrainingConfig) -> nn.Module:
        """A new encoder with ``config.width`` outputs."""

    def start(self, encoder: nn.Module, examples: Examples, config: TrainingConfig) -> None:
        """Give a new encoder weights made from the training data, as ``config.encoder_init`` says."""
        raise AssertionError("a job that takes another start than random says here what it is")

    @abstractmethod
    def metric_names(self, at: tuple[int, ...]) -> list[str]:
        """Metrics of this kind of run at some cutoffs; the first one decides which checkpoint is best."""

    @abstractmethod
    def read_test(self, path: Path | str) -> Test:
        """A file of examples to judge by, in a format that training takes."""

    @abstractmethod
    def given(self, data: Any) -> Given:
        """The inputs of a file, or of data in memory, to be answered.

        Args:
            data: the path of a file, or else what `Run.predict` says of this job.

        Raises:
            DataError: it is not what it should be.
        """

    def predict(self, network: WideNetwork, data: Any, k: int) -> Iterator[Prediction]:
        """The k best classes for each input of ``data``; none for those of which nothing is known, as ``ranked`` does.

        Raises as ``given``, at once.
        """
        given, names = self.given(data), self.class_names
        found = zip(given.names, ranked(network, given, k, exclude_inputs=self.exclude_inputs), strict=True)
        return (Prediction(name, [names[c] for c in classes], scores) for name, (classes, scores) in found)

    @classmethod
    def check(cls, config: TrainingConfig) -> None:
        """Raise ValueError if the options do not fit the job."""
        if cls.brings_data != (config.train is None):
            should = "be left out for a job that brings its own data" if cls.brings_data else "be a file"
            raise ValueError(f"Option `train` should {should}. Found job = {cls.name!r}, train = {config.train!r}.")
        if config.width == 0 and not (cls.decides_width and config.encoder_init == "svd"):
            jobs = " or ".join(name for name, job in JOBS.items() if job.decides_width)
            raise ValueError(
                f"Option `width` should be at least 1 but for encoder_init svd and the job {jobs}, for which 0 lets "
                f"the data decide. Found 0 with job = {cls.name!r}, encoder_init = {config.encoder_init!r}."
            )
        if config.encoder_init != "svd":
            return
        if "encoder_init" not in cls.takes:
            raise refusal("encoder_init", f"be random for the job {cls.name}", "svd")
        if config.hidden or config.activation != "none":
            raise ValueError(
                "Option `encoder_init` should be svd for a linear encoder only. "
                f"Found hidden = {list(config.hidden)}, activation = {config.activation!r}."
            )


@dataclass(frozen=True)
class JobData:
    """A job with the examples to train on and, if there are some, those to judge by.

    ``reading`` says what was read of the training file, so that people see what was misread.
    """

    job: Job
    examples: Examples
    test: Test | None
    reading: str = ""


def job_named(name: str) -> type[Job]:
    """The job of that name; ValueError if there is none."""
    if name not in JOBS:
        raise refusal("job", f"be {one_of(JOBS)}", name)
    return JOBS[name]
