"""The commands, in the order in which ``widehead --help`` shows them."""

import importlib
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from widehead.cli.bench import bench
from widehead.cli.demo import demo
from widehead.cli.evaluate import evaluate
from widehead.cli.export import export
from widehead.cli.predict import predict

_HELP = """Trains networks with very many outputs, exactly, at a cost per example independent of their number.

**Examples**

    widehead demo

    widehead train JOB train.txt --test test.txt --out runs/shop

    widehead compare JOB train.txt --test test.txt --heads exact,sampled,retrieved --minutes 2

    widehead evaluate runs/shop --test test.txt --at 20

    widehead predict runs/shop --input users.txt --top 10

    widehead export runs/shop --format safetensors
"""
_ORDER = ("demo", "train", "compare", "evaluate", "predict", "export", "bench")


class Commands(TyperGroup):
    """All commands, in an order that makes sense."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*(name for name in _ORDER if name in self.commands), *(self.commands.keys() - set(_ORDER))]


class JobGroup(TyperGroup):
    """The jobs of ``train`` or ``compare``. What a job is needs torch, so it is imported when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        from widehead.jobs import JOBS

        return list(dict.fromkeys(job.command for job in JOBS.values() if job.command))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        names = self.list_commands(ctx)
        if cmd_name not in names:
            raise typer.BadParameter(f"the job should be one of {', '.join(names)}. Found {cmd_name!r}")
        return importlib.import_module(f"widehead.cli.{self.name}").job_command(cmd_name)


def _version(wanted: bool) -> None:
    if wanted:
        from widehead import __version__

        typer.echo(f"widehead {__version__}")
        raise typer.Exit


app = typer.Typer(
    name="widehead",
    cls=Commands,
    help=_HELP,
    rich_markup_mode="markdown",
    no_args_is_help=True,
    context_settings={"help_option_names": ["--help", "-h"]},
)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """The help text is that of ``app``."""


_GROUPS = {
    "train": "Train a network. `widehead train JOB --help` shows every option of a job and its default.",
    "compare": "Train several output layers on the same data and say which is best.",
}
for _name, _text in _GROUPS.items():
    app.add_typer(typer.Typer(cls=JobGroup, no_args_is_help=True, rich_markup_mode="markdown", help=_text), name=_name)
app.command()(demo)
app.command()(evaluate)
app.command()(predict)
app.command()(export)
app.add_typer(bench, name="bench")
