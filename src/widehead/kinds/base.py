"""What a job is called, which options it takes, and their defaults. How it works stands in `widehead.jobs`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from widehead.options import Preset, TrainingConfig
from widehead.options.checks import one_of, refusal

JOBS: dict[str, type[Kind]] = {}
"""Every job by its name: what it is called and takes; the job itself once `widehead.jobs` is imported."""

STARTS = ("encoder_init", "encoder_lr", "head", "loss", "head_optimizer", "hidden", "activation")
"""What presets of a fixed encoder and a least-squares output layer stand on: other values ask for training."""

UNDECIDED: Mapping[str, int] = {"width": 0, "batch_size": 0, "epochs": 0, "neighbours": -1, "direct": -1}
"""Options that the data of some jobs decide, and the value by which they are left to them."""


class Kind:
    """A kind of run, as the command line and the table of options know it; subclasses with a ``name`` are in `JOBS`.

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
        decides: options, of those in `UNDECIDED`, that the data decide where they have the value there.
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
    decides: ClassVar[Sequence[str]] = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "name" in vars(cls):
            JOBS[cls.name] = cls

    @classmethod
    def check(cls, config: TrainingConfig) -> None:
        """Raise ValueError if the options do not fit the job."""
        if cls.brings_data and config.train is not None:
            raise refusal("train", f"be left out for the job {cls.name}, which brings its own data", config.train)
        if config.width == 0 and not ("width" in cls.decides and config.encoder_init == "svd"):
            raise ValueError(
                f"Option `width` should be at least 1 but for encoder_init svd and the job {_deciding('width')}, "
                f"for which 0 lets the data decide. Found 0 with job = {cls.name!r}, "
                f"encoder_init = {config.encoder_init!r}."
            )
        for name in ("batch_size", "epochs"):
            if getattr(config, name) == 0 and name not in cls.decides:
                raise ValueError(
                    f"Option `{name}` should be at least 1 but for the job {_deciding(name)}, for which 0 lets the "
                    f"data decide. Found 0 with job = {cls.name!r}."
                )
        for name in ("neighbours", "direct"):
            if (found := getattr(config, name)) < 0 and name not in cls.decides:
                raise refusal(name, f"be at least 0 for the job {cls.name}", found)
        if "encoder" in cls.takes:
            _check_encoder(config)
        if config.encoder_init != "svd":
            return
        if "encoder_init" not in cls.takes:
            raise refusal("encoder_init", f"be random for the job {cls.name}", "svd")
        if config.hidden or config.activation != "none":
            raise ValueError(
                "Option `encoder_init` should be svd for a linear encoder only. "
                f"Found hidden = {list(config.hidden)}, activation = {config.activation!r}."
            )


def _deciding(option: str) -> str:
    """The jobs whose data decide an option."""
    return " or ".join(name for name, job in JOBS.items() if option in job.decides)


def _check_encoder(config: TrainingConfig) -> None:
    """Raise ValueError if there is an option that the encoder has no use for."""
    layered = config.encoder not in ("bag", "ngram")
    if not layered and config.layers != 1:
        raise refusal("layers", f"be 1 with the encoder {config.encoder}, which takes hidden", config.layers)
    if layered and config.hidden:
        raise refusal("hidden", f"be empty with the encoder {config.encoder}, which takes layers", list(config.hidden))
    if layered and config.activation != "none":
        raise refusal("activation", f"be none with the encoder {config.encoder}", config.activation)


def kind_named(name: str) -> type[Kind]:
    """The kind of that name; ValueError if there is none."""
    if name not in JOBS:
        raise refusal("job", f"be {one_of(JOBS)}", name)
    return JOBS[name]
