"""``widehead train --dry-run``: sizes, memory and time of a run, and where each of its options comes from."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from widehead.cli import torchrun
from widehead.cli.console import say, show_json, show_table, working
from widehead.kinds import JOBS
from widehead.options import OPTIONS, TrainingConfig

if TYPE_CHECKING:
    from widehead.runs import Rehearsal


def show_rehearsal(
    wanted: TrainingConfig, given: Mapping[str, str], overwrite: bool, as_json: bool, mesh: Any = None
) -> None:
    """Rehearse a run, in all processes of a mesh, and have the first show what was found.

    Args:
        given: where options that were asked for come from.
    """
    from widehead.runs import rehearse

    with working("Reading the data and timing some steps") if torchrun.is_first() else nullcontext():
        found = rehearse(wanted, overwrite=overwrite, mesh=mesh)
    if not torchrun.is_first():
        return
    reasons = _reasons(wanted, found.config, given)
    if as_json:
        numbers = {name: value for name, value in vars(found).items() if name != "config"}
        options = {name: {"value": getattr(found.config, name), "because": why} for name, why in reasons.items()}
        show_json({**numbers, "seconds": found.seconds, "preset": _preset(found.config), "options": options})
        return
    show_table("What the run would take", ["figure", "value"], _figures(found))
    options = {name: getattr(found.config, name) for name in reasons}
    rows = [[name, str(value), reasons[name]] for name, value in options.items() if value != OPTIONS[name].default]
    show_table("Options; all others have their defaults", ["option", "value", "because"], rows)
    say("Nothing was written. The time is that of training alone, without evaluations.")


def _figures(found: "Rehearsal") -> list[list[str]]:
    config = found.config
    each = 8 if config.dtype == "float64" else 2 if config.head_storage_dtype else 4
    weights = f"{found.classes:,} × {config.width:,}, {each * found.head_parameters / 1e6:,.1f} MB"
    by_time = "" if config.minutes is None else f", or {config.minutes:g} minutes"
    steps = "until the time is up" if found.steps is None else f"{found.steps:,}"
    each_process = "" if found.processes == 1 else f", in each of {found.processes} processes"
    figures = {
        "training file": found.reading,
        "examples": f"{found.examples:,}",
        "inputs, classes": f"{found.inputs:,}, {found.classes:,}",
        "output layer": weights,
        "encoder": f"{found.encoder_parameters:,} parameters",
        "steps": f"{steps}{by_time}",
        "memory": "unknown" if found.memory is None else f"{found.memory / 1e9:.2f} GB at most{each_process}",
        "first weights": f"{found.start_seconds:.1f} s",
        "a step": f"{1e3 * found.step_seconds:.2f} ms, the median of {found.timed_steps}",
        "training": f"{found.seconds:,.0f} s",
        "preset": _preset(config),
    }
    return [[name, value] for name, value in figures.items()]


def _preset(config: TrainingConfig) -> str:
    return f"{config.preset}: {config.because or 'the default'}"


def _reasons(wanted: TrainingConfig, found: TrainingConfig, given: Mapping[str, str]) -> dict[str, str]:
    """Where each option of the job comes from: who gave it, the preset, the data, or its default."""
    job = JOBS[wanted.job]
    rows = {name: row for name, row in OPTIONS.items() if row.panel and (row.shared or name in job.takes)}
    preset = next(preset for preset in job.presets if preset.name == wanted.preset)
    asked = {name: getattr(wanted, name) for name in given}
    values = preset.beside(asked)
    told = wanted.with_absolute_paths()

    def reason(name: str) -> str:
        if getattr(found, name) != getattr(told, name):
            return "the data"
        return given.get(name) or (f"preset {preset.name}" if name in values else "default")

    return {name: reason(name) for name in rows if name != "preset"}
