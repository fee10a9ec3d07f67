"""The commands, in the order in which ``widehead --help`` shows them."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from widehead.cli.bench import bench
from widehead.cli.demo import demo
from widehead.cli.evaluate import evaluate
from widehead.cli.export import export
from widehead.cli.predict import predict

__all__ = ["app"]

_HELP = """Trains networks with very many outputs, exactly, at a cost per example independent of their number.

**Examples**

    widehead demo

    widehead train recommender train.txt --test test.txt --out runs/shop

    widehead compare recommender train.txt --test test.txt --heads exact,sampled,retrieved --minutes 2

    widehead evaluate runs/shop --test test.txt --at 20

    widehead predict runs/shop --input users.txt --top 10

    widehead export runs/shop --format safetensors
"""
_ORDER = ("demo", "train", "compare", "evaluate", "predict", "export", "bench")
_JOBS = ("recommender", "language-model", "multilabel")


class Commands(TyperGroup):
    """All commands, in an order that makes sense."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*(name for name in _ORDER if name in self.commands), *(self.commands.keys() - set(_ORDER))]


class JobGroup(TyperGroup):
    """The jobs of a command. A job's command is built when it is asked for, because its defaults need torch."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_JOBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in _JOBS:
            raise typer.BadParameter(f"the job should be one of {', '.join(_JOBS)}. Found {cmd_name!r}")
        return self._command(cmd_name)

    def _command(self, job: str) -> Any:
        from widehead.cli.train import job_command

        return job_command(job)


class CompareGroup(JobGroup):
    """The jobs of ``compare``."""

    def _command(self, job: str) -> Any:
        from widehead.cli.compare import compare_command

        return compare_command(job)


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


_train = typer.Typer(
    cls=JobGroup,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Train a network. `widehead train JOB --help` shows every option of a job and its default.",
)

_compare = typer.Typer(
    cls=CompareGroup,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Train several output layers on the same data and say which is best.",
)

app.command()(demo)
app.add_typer(_train, name="train")
app.add_typer(_compare, name="compare")
app.command()(evaluate)
app.command()(predict)
app.command()(export)
app.add_typer(bench, name="bench")
