"""What a job is: it knows what inputs and classes are, and how to judge and to predict; its `Kind` says what it takes.

A job is one file of this room. Its class takes the place of its kind in `JOBS`.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self, cast, get_args, get_origin, get_type_hints

from torch import nn

from widehead.data import Examples
from widehead.errors import CheckpointError, RankingWarning, warn_user
from widehead.jobs.judging import Given, Test, ranked
from widehead.kinds import JOBS, Kind
from widehead.kinds.base import UNDECIDED, kind_named
from widehead.models import WideNetwork
from widehead.options import TrainingConfig
from widehead.split import Share, alike
from widehead.training.folder import RunFolder, atomic_write, expecting


@dataclass(frozen=True)
class Prediction:
    """The best classes of one input, best first, and their scores; none if nothing is known of the input."""

    name: str
    classes: list[str]
    scores: list[float]


@dataclass(frozen=True)
class Chosen(ABC):
    """What was chosen by data that a network had not seen, as a dataclass of JSON's types.

    Attributes:
        what: it is, in errors.
    """

    what: ClassVar[str]

    @abstractmethod
    def check(self) -> None:
        """Raise ValueError if these, all of the types of their fields, cannot have been chosen."""

    def decided(self) -> Mapping[str, Any]:
        """The options of the run whose values these are."""
        return {}

    @abstractmethod
    def table(self) -> tuple[list[str], list[list[str]]]:
        """The header and the rows of a report."""

    def write(self, path: Path) -> None:
        with atomic_write(path) as file:
            file.write(json.dumps(asdict(self), indent=1).encode())

    @classmethod
    def by_first(cls, share: Share | None, choose: Callable[[], Self]) -> Self:
        """What ``choose`` gives in the first of the processes that have shares, all of which call this; or here."""
        if share is None:
            return choose()
        with alike(share):
            found = asdict(choose()) if share.peers.is_first else {}
        return cls(**share.peers.said_by_first(found))

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """None if there is none yet; CheckpointError if it is damaged."""
        if not path.exists():
            return None
        with expecting(path, cls.what):
            found = cls(**_checked(json.loads(path.read_text(encoding="utf-8")), cls))
            found.check()
            return found


def check_same(before: Mapping[str, float], after: Mapping[str, float]) -> None:
    """Raise ValueError if the metrics without and with something are not the same ones."""
    if before.keys() != after.keys():
        raise ValueError(f"metrics {', '.join(before)} before and {', '.join(after)} after")


def _checked(tree: Any, kind: type[Chosen]) -> dict[str, Any]:
    """What a file has of the fields of a dataclass; ValueError or KeyError if it cannot be that."""
    if not isinstance(tree, dict):
        raise ValueError(f"{tree!r:.80}")
    hints = get_type_hints(kind)
    if missing := [field.name for field in fields(kind) if field.name not in tree]:
        raise KeyError(missing[0])
    for name, value in tree.items():
        if name in hints and not _fits(value, hints[name]):
            raise ValueError(f"{value!r:.80} as its {name}")
    return tree


def _fits(value: Any, kind: Any) -> bool:
    """Whether JSON gave what a field of some type holds: numbers are finite, and whole ones count something."""
    of, parts = get_origin(kind) or kind, get_args(kind)
    if of is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not isinstance(value, of) or isinstance(value, bool):
        return False
    if of is int:
        return bool(value >= 0)
    several = value.values() if of is dict else value if of is list else ()
    return all(_fits(part, parts[-1]) for part in several)


class Job(Kind, ABC):
    """A kind of run that works. A job of one file alone has the attributes of its kind itself.

    An instance knows what the ids of a run's inputs and classes mean; files live in the run folder. It obeys three
    laws: ``load`` after ``save`` gives a job with the same ``sizes``, predictions and tests; ``save`` twice with equal
    jobs writes equal bytes; ``read`` twice with equal options and files gives equal examples.

    Attributes:
        exclude_inputs: whether predictions leave out classes that the input names.
        by_shares: whether each of several processes keeps a share of the data. Then ``of`` takes a `Share` too, and all
            of them call it, and ``save`` of the job that has one.
        choice: what ``trained`` keeps in neighbours.json, if the job chooses anything there.
        probe, trial: what ``save`` keeps in probe.json and trial.json, if the job tries anything before a run.
    """

    exclude_inputs: ClassVar[bool] = False
    by_shares: ClassVar[bool] = False
    choice: ClassVar[type[Chosen] | None] = None
    probe: ClassVar[type[Chosen] | None] = None
    trial: ClassVar[type[Chosen] | None] = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        name = getattr(cls, "name", None)
        if name is not None and not issubclass(JOBS[name], Job):
            JOBS[name] = cls

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{size:,} {name}' for name, size in self.sizes.items())})"

    @property
    @abstractmethod
    def sizes(self) -> Mapping[str, int]:
        """Numbers of "inputs" and "classes"."""

    @property
    @abstractmethod
    def class_names(self) -> Sequence[str]:
        """What the classes are called, in the order of their ids."""

    @classmethod
    def read(cls, config: TrainingConfig) -> JobData:
        """The data of the files that ``config`` names; DataError if one is not what it should be."""
        return cls.of(config, config.train)

    @classmethod
    @abstractmethod
    def of(cls, config: TrainingConfig, train: Any, share: Share | None = None) -> JobData:
        """The data to train on, and those that ``config`` names or holds out to judge by.

        Args:
            train: the path of a file, data in memory of the same content, or None if the job brings its own.
            share: of the examples, which this process keeps alone, if the job goes ``by_shares``; None for all.

        Raises:
            DataError: they are not what they should be.
        """

    def kept(self, config: TrainingConfig) -> Any:
        """The training data as ``of`` takes them, if a job that was loaded has them all; else None."""
        return None

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
    def encoder(self, config: TrainingConfig, mesh: Any = None) -> nn.Module:
        """A new encoder with ``config.width`` outputs; one of bags has its rows split over the processes of a mesh."""

    def start(self, encoder: nn.Module, examples: Examples, config: TrainingConfig) -> None:
        """Give a new encoder weights made from the training data, as ``config.encoder_init`` says."""
        raise AssertionError("a job that takes another start than random says here what it is")

    def trained(self, network: WideNetwork, folder: RunFolder, config: TrainingConfig) -> str | None:
        """Choose by data that the network was not trained on, and keep it; what people should know.

        It is called after training; with `JobData.joining` before the last part of it, if the run comes so far.
        """
        return None

    def complete(self, network: WideNetwork, folder: RunFolder, config: TrainingConfig) -> None:
        """Give a network that was loaded what ranks ``beside`` its head, if the run has that."""

    @abstractmethod
    def metric_names(self, at: tuple[int, ...]) -> list[str]:
        """Metrics of this kind of run at some cutoffs; the first one decides which checkpoint is best."""

    @abstractmethod
    def read_test(self, data: Any) -> Test:
        """Examples to judge by: a file or data in memory, as training takes them."""

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


@dataclass(frozen=True)
class JobData:
    """A job with the examples to train on and, if there are some, those to judge by.

    ``reading`` says what was read of the training file, so that people see what was misread; ``checksum`` is that of
    the file, "" if there is none. ``share`` is that of the examples which this process has, None if it has all.
    ``tried`` says what was tried on the data before, if anything was.

    ``joining`` are the examples of a later pass, if some were held out of ``examples`` to choose by, and train too once
    they have chosen; ``joins`` says what those are.
    """

    job: Job
    examples: Examples
    test: Test | None
    reading: str = ""
    checksum: str = ""
    share: Share | None = None
    tried: str = ""
    joining: Examples | None = None
    joins: str = ""


def ranks_beside(config: TrainingConfig) -> str:
    """What ranks beside the network of a run, if anything does."""
    return "the direct term" if config.direct > 0.0 else "neighbours"


def warn_unchosen() -> None:
    """To be called if a run whose neighbours should have a say has not chosen what they count."""
    warn_user(
        "The run ranks by the network alone: what neighbours count is chosen when training ends. Go on with it "
        "(--resume, or Run.train).",
        RankingWarning,
    )


def job_named(name: str) -> type[Job]:
    """The job of that name; ValueError if there is none."""
    return cast(type[Job], kind_named(name))


def open_folder(path: Path | str) -> tuple[RunFolder, TrainingConfig, type[Job]]:
    """The folder of an earlier run, its options and its job; CheckpointError if one of them cannot be had."""
    folder, config = RunFolder.open(path)
    for name, value in UNDECIDED.items():
        if getattr(config, name) == value:
            raise CheckpointError(
                f"{folder.config_path}: `{name}` should be what the data decided. Found {value}, which leaves it to "
                "them: the file was changed."
            )
    try:
        return folder, config, job_named(config.job)
    except ValueError as error:
        raise CheckpointError(f"{folder.config_path}: {error}") from error
