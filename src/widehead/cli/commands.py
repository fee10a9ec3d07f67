"""Commands and groups whose help and completion answer at once: typer's own import rich and pydantic for them."""

import inspect
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

SETTINGS = {"help_option_names": ["--help", "-h"], "max_content_width": 120}
"""Of every command."""


class _Light:
    """What commands and groups share; it stands before typer's class."""

    def get_params(self, ctx: Any) -> list[Any]:
        return [_light(parameter) for parameter in super().get_params(ctx)]  # type: ignore[misc]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Usage, what the command does, and a list of options for each panel, those without one last."""
        command: Any = self
        command.format_usage(ctx, formatter)
        for paragraph in inspect.cleandoc(command.help or "").replace("**", "").split("\n\n"):
            formatter.write_paragraph()
            if paragraph.startswith("    "):  # an example
                formatter.write(f"{paragraph}\n")
            else:
                formatter.write_text(paragraph)
        panels: dict[str, list[tuple[str, str]]] = {"Arguments": []}
        for parameter in command.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                panels.setdefault(_panel(parameter), []).append((_name(parameter, ctx), record[1]))
        panels["Options"] = panels.pop("Options")
        panels["Commands"] = list(command.summaries(ctx))
        for title, records in panels.items():
            if records:
                with formatter.section(typer.style(title, bold=True)):
                    formatter.write_dl(records)

    def summaries(self, ctx: Any) -> Iterator[tuple[str, str]]:
        """The name and the first sentence of each command in a group."""
        command: Any = self
        for name in command.list_commands(ctx) if isinstance(command, TyperGroup) else ():
            yield name, command.get_command(ctx, name).get_short_help_str(200)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        items: list[Any] = super().shell_complete(ctx, incomplete)  # type: ignore[misc]
        for item in items:
            item.help = None  # rich would be imported to show it
        return items


class Command(_Light, TyperCommand):
    """A command."""


class Group(_Light, TyperGroup):
    """A group of commands, which shows its help if none is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            typer.echo(ctx.get_help())
            ctx.fail("a command is missing")
        return super().parse_args(ctx, args)


def _light(parameter: Any) -> Any:
    """A parameter that leaves alone what is not given, and what is not needed while a line is completed."""
    if "process_value" not in vars(parameter):
        process = parameter.process_value

        def light(ctx: Any, value: Any) -> Any:
            nothing = value is None and not (parameter.required or parameter.multiple)
            return value if nothing or ctx.resilient_parsing else process(ctx, value)

        parameter.process_value = light
    return parameter


def _panel(parameter: Any) -> str:
    return parameter.rich_help_panel or ("Arguments" if parameter.param_type_name == "argument" else "Options")


def _name(parameter: Any, ctx: Any) -> str:
    """An argument's name, or an option with what it takes."""
    takes = parameter.metavar or parameter.display_type(ctx)
    if parameter.param_type_name == "argument":
        return takes
    names = ", ".join([*parameter.opts, *parameter.secondary_opts])
    return names if parameter.is_flag else f"{names} {takes}"
