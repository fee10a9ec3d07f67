"""What a run starts from: its data, a network, and how it is judged."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from widehead.data.files import listed, whole_file
from widehead.errors import NonFiniteError
from widehead.jobs import Job, JobData, build_network, configure
from widehead.jobs.base import job_named
from widehead.jobs.judging import LOWER_IS_BETTER
from widehead.models import WideNetwork
from widehead.options import TrainingConfig
from widehead.options.checks import refusal
from widehead.training import Evaluator


def read_data(config: TrainingConfig, data: Any = None) -> JobData:
    """The data of a run, in memory or in files, each of which may be a pipe."""
    with ExitStack() as files:
        paths = {name: getattr(config, name) for name in ("train", "test", "labels")}
        places: dict[str, Any] = {n: path and str(files.enter_context(whole_file(path))) for n, path in paths.items()}
        given = dataclasses.replace(config, **places)
        return job_named(config.job).of(given, given.train if data is None else data)


def said(path: Path | str | None, reading: str) -> str:
    """The line that says what was read of a file, or of the data that a job brings."""
    return f"Read: {reading}" if path is None else f"Read {listed([Path(path).name])}: {reading}"


def evaluator_of(config: TrainingConfig, network: WideNetwork, data: JobData) -> Evaluator | None:
    test = data.test
    if test is None:
        return None
    names = data.job.metric_names(config.at)
    return Evaluator(
        lambda: test.metrics(network, names, config.rank_at_most, config.seed), names[0], names[0] in LOWER_IS_BETTER
    )


def built(job: Job, config: TrainingConfig, frequencies: Tensor | None) -> WideNetwork:
    try:
        return build_network(job, config, frequencies)
    except OSError as error:
        raise ValueError(f"Option `head_storage` cannot be used: {error.strerror or error}") from error


def fitting_cutoffs(config: TrainingConfig, job: Job) -> TrainingConfig:
    """The options with cutoffs for so many classes: those that nobody asked for are made to fit.

    Raises:
        ValueError: others that are larger than the number of classes.
    """
    classes = job.sizes["classes"]
    default = configure(config.job, train=config.train, out=config.out, preset=config.preset).at
    if config.at == default and classes > 0:
        return dataclasses.replace(config, at=tuple(sorted({min(k, classes) for k in default})))
    check_cutoffs(config, job)
    return config


def check_cutoffs(config: TrainingConfig, job: Job) -> None:
    if max(config.at) > job.sizes["classes"]:
        raise refusal("at", f"not exceed the number of classes, {job.sizes['classes']}", max(config.at))


def check_finite(network: WideNetwork) -> None:
    if not all(bool(torch.isfinite(p).all()) for p in network.encoder.parameters()):
        raise NonFiniteError(
            "An encoder made from the training data should be finite. Found NaN or infinity, as from values that are "
            "too large to be squared. Use smaller values, or --encoder-init random."
        )
