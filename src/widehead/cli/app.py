"""The commands, in the order in which ``widehead --help`` shows them."""

import importlib
from typing import Annotated, Any

import typer

from widehead.cli import torchrun
from widehead.cli.bench import bench
from widehead.cli.commands import SETTINGS, Command, Group
from widehead.cli.demo import demo
from widehead.cli.evaluate import evaluate
from widehead.cli.export import export
from widehead.cli.predict import predict
from widehead.cli.serve import serve
from widehead.cli.similar import similar
from widehead.version import __version__

_HELP = """Trains networks with very many outputs, exactly, at a cost per example independent of their number.

**Examples**

    widehead demo

    widehead train JOB train.txt --test test.txt --out runs/shop

    widehead compare JOB train.txt --test test.txt --heads exact,sampled,retrieved --minutes 2

    widehead evaluate runs/shop --test test.txt --at 20

    widehead predict runs/shop users.txt --top 10

    widehead similar runs/shop milk

    widehead serve runs/shop

    widehead export runs/shop --format safetensors
"""
_ORDER = ("demo", "train", "compare", "evaluate", "predict", "similar", "serve", "export", "bench")


class Commands(Group):
    """All commands, in an order that makes sense."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*(name for name in _ORDER if name in self.commands), *(self.commands.keys() - set(_ORDER))]


class JobGroup(Group):
    """The jobs of ``train`` or ``compare``, whose options are made when they are asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        from widehead.kinds import JOBS

        return list(dict.fromkeys(job.command for job in JOBS.values() if job.command))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        names = self.list_commands(ctx)
        if cmd_name not in names:
            raise typer.BadParameter(f"the job should be one of {', '.join(names)}. Found {cmd_name!r}")
        return importlib.import_module(f"widehead.cli.{self.name}").job_command(cmd_name)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"widehead {__version__}")
        raise typer.Exit


app = typer.Typer(name="widehead", cls=Commands, help=_HELP, context_settings=SETTINGS)


@app.callback()
def _options(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """The help text is that of ``app``."""
    if torchrun.size() > 1 and ctx.invoked_subcommand != "train":
        raise typer.BadParameter(
            f"`widehead train` runs in several processes. Found `widehead {ctx.invoked_subcommand}`: start it without "
            "torchrun; compare and bench take --processes"
        )


_GROUPS = {
    "train": "Train a network. `widehead train JOB --help` shows every option of a job and its default.",
    "compare": "Train several output layers on the same data and say which is best.",
}
for _name, _text in _GROUPS.items():
    group = typer.Typer(cls=JobGroup, help=_text, context_settings=SETTINGS)
    app.add_typer(group, name=_name)
for _command in (demo, evaluate, predict, similar, serve, export):
    app.command(cls=Command, context_settings=SETTINGS)(_command)
app.add_typer(bench, name="bench")
