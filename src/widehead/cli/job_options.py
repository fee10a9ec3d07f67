"""Commands of jobs: their options are rows of the table of options."""

from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, Signature, signature
from typing import Any

import typer
import typer.main

from widehead.cli.commands import SETTINGS, Command
from widehead.cli.completion import one_of
from widehead.cli.options import whole_numbers
from widehead.kinds import JOBS, Kind
from widehead.options import OPTIONS, Option


def jobs_of(command: str) -> dict[str, type[Kind]]:
    """The jobs of a command by what ``--task`` calls them."""
    return {job.task: job for job in JOBS.values() if job.command == command}


def options_of(*jobs: type[Kind]) -> list[Option]:
    """The options that at least one of some jobs takes."""
    return [row for row in OPTIONS.values() if row.panel and any(_takes(job, row) for job in jobs)]


def _takes(job: type[Kind], row: Option) -> bool:
    return row.shared or row.name in job.takes


def build_command(
    name: str, help: str, function: Callable[..., None], options: Sequence[Parameter], without: str = ""
) -> Any:
    """A command with the parameters of ``function``, ``without`` one of them, and these options for its ``**given``."""

    def command(**given: Any) -> None:
        function(**given)

    own = [p for p in signature(function).parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
    parameters = [*(p.replace(kind=Parameter.KEYWORD_ONLY) for p in own if p.name != without), *options]
    command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    app = typer.Typer(add_completion=False)
    app.command(name, cls=Command, help=help, context_settings=SETTINGS)(command)
    return typer.main.get_command(app)


def parameter(row: Option, *jobs: type[Kind]) -> Parameter:
    """An option as a parameter of a command of these jobs; if it is not given, it is None or []."""
    names = _presets(jobs) if row.name == "preset" else row.check.names
    declared = typer.Option(
        None,
        f"{row.flag}/--no-{row.flag[2:]}" if row.kind is bool else row.flag,
        help=row.help + _shown_default(row, jobs),
        metavar=row.metavar,
        rich_help_panel=row.panel,
        show_default=False,
        parser=whole_numbers if row.kind is tuple else None,
        autocompletion=one_of(names) if names else None,
    )
    annotation: Any = list[str] if row.kind is dict else row.kind | None
    return Parameter(row.name, Parameter.KEYWORD_ONLY, default=declared, annotation=annotation)


def _presets(jobs: Sequence[type[Kind]]) -> list[str]:
    return list(dict.fromkeys(preset.name for job in jobs for preset in job.presets))


def _shown_default(row: Option, jobs: Sequence[type[Kind]]) -> str:
    """The default as the help shows it, of the first of the jobs that takes the option; "" if it says nothing."""
    if row.name == "preset":
        return f" {', '.join(_presets(jobs))}."
    value = next(job for job in jobs if _takes(job, row)).presets[0].value(row.name)
    if isinstance(value, tuple):
        value = ",".join(str(n) for n in value) or None
    if isinstance(value, Mapping):
        value = ", ".join(f"{parameter}={number}" for parameter, number in value.items()) or None
    return f" [default: {value}]" if isinstance(value, int | float | str) and not isinstance(value, bool) else ""


def given_options(job: type[Kind], given: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, as `configure` takes them; an option of another job is refused."""
    made: dict[str, Any] = {}
    for row in OPTIONS.values():
        value = given.get(row.name)
        if value is None or value == []:
            continue
        if not _takes(job, row):
            others = [other.name for other in JOBS.values() if other.command and _takes(other, row)]
            raise typer.BadParameter(f"this is an option of {' and '.join(others)}", param_hint=row.flag)
        made[row.name] = _pairs(row, value) if row.kind is dict else value
    return made


def _pairs(row: Option, texts: list[str]) -> dict[str, float | str]:
    """NAME=VALUE texts as a mapping; values that are numbers become numbers."""
    pairs: dict[str, float | str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"expected NAME=VALUE. Found {text!r}", param_hint=row.flag)
        pairs[name] = number_or_text(value)
    return pairs


def number_or_text(value: str) -> float | str:
    """A whole number, a number or a text, whichever ``value`` is."""
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            pass
    return value
