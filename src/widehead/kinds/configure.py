"""Options of a job, by its presets."""

import dataclasses
from copy import deepcopy
from typing import Any

from widehead.kinds.base import kind_named
from widehead.options import OPTIONS, TrainingConfig
from widehead.options.presets import ASKED_FOR, choose


def configure(job: str, **options: Any) -> TrainingConfig:
    """The options of a run: those given, and for the others the defaults of a preset of the job.

    The preset is the one of the option ``preset``, or the job's first one that goes with the options given.

    Args:
        job: a name in `JOBS`.
        options: those of `TrainingConfig`, which keeps the preset's name and why it holds.

    Raises:
        ValueError: an unknown job, preset or option, or one that is out of range or does not fit the others.
    """
    kind = kind_named(job)
    preset, because = choose(kind.presets, options, options.get("preset"))
    given = {**deepcopy(preset.beside(options)), **options, "job": job, "preset": preset.name, "because": because}
    config = TrainingConfig.from_options(given)
    kind.check(config)
    return config


def follow(config: TrainingConfig, name: str, because: str) -> TrainingConfig:
    """The options by another preset. Those that differ from the job's defaults stay, as they were asked for.

    A preset that was asked for by its name is not left.
    """
    if config.because == ASKED_FOR:
        return config
    given = {"out": config.out, "train": config.train}
    before, after = configure(config.job, **given), configure(config.job, **given, preset=name)
    kept = {n: getattr(config, n) for n in OPTIONS if getattr(config, n) != getattr(before, n)}
    return dataclasses.replace(after, **{**kept, "preset": name, "because": because})
