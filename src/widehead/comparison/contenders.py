"""The runs of a comparison: one for each head, alike in all but what is set for one."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from widehead.jobs import configure
from widehead.kinds.base import kind_named
from widehead.names import HEADS
from widehead.options import OPTIONS, TrainingConfig

_EVALUATIONS = 8  # of each contender, if the time is what ends a run


def contenders(
    job: str, heads: Sequence[str], settings: Sequence[tuple[str, str, Any]], out: Path, **options: Any
) -> dict[str, TrainingConfig]:
    """The run of each contender, by its name.

    Args:
        job: as for `configure`.
        heads: names of heads, or "NAME=HEAD" to have a head twice with different settings.
        settings: (contender, option, value): options of TrainingConfig, or the head's own parameters.
        out: folder of the comparison; each contender has a run folder in it.
        options: of all contenders; without a limit they train for two minutes each, and no neighbours rank.

    Raises:
        ValueError: a name that is not there or comes twice, or an option out of range.
    """
    chosen = dict(_named(text) for text in heads)
    if len(chosen) != len(heads) or not heads:
        raise ValueError(f"Each contender should have a name of its own. Found {', '.join(heads) or 'none'}.")
    for name, option, _ in settings:
        if name not in chosen:
            raise ValueError(f"A setting should be of one of {', '.join(chosen)}. Found {name!r} with {option!r}.")
    if options.get("minutes") is None and options.get("epochs") is None:
        options["minutes"] = 2.0
    if options.get("minutes") is not None:
        options.setdefault("epochs", None)
        options.setdefault("evaluate_every", f"{60.0 * options['minutes'] / _EVALUATIONS:.6f} seconds")
    options.setdefault("encoder_init", "random")  # one encoder for all, to be trained: not each job's own start
    if "neighbours" in kind_named(job).takes:
        options.setdefault("neighbours", 0)  # what ranks beside output layers hides how they differ
    configs = {}
    for name, head in chosen.items():
        own = [(option, value) for who, option, value in settings if who == name]
        configs[name] = configure(job, out=str(out / name), **{**options, **_settings(head, own)})
    return configs


def _named(text: str) -> tuple[str, str]:
    name, _, head = text.rpartition("=")
    name = name or head
    if head not in HEADS:
        raise ValueError(f"A head should be one of {', '.join(HEADS)}. Found {head!r}.")
    if not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"A contender's name should be of letters, digits, '-', '_' and '.'. Found {name!r}.")
    return name, head


def _settings(head: str, own: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Options of TrainingConfig as they are; all others are parameters of the head, or of its loss."""
    options: dict[str, Any] = {"head": head, **{name: value for name, value in own if name in OPTIONS}}
    rest = {name: value for name, value in own if name not in OPTIONS}
    if rest:
        options["loss_options" if head == "exact" else "head_options"] = rest
    return options
