"""``widehead compare JOB FILE``: the same data, encoder and minutes for every head; which is best?"""

from __future__ import annotations

import dataclasses
import shlex
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

import typer
import typer.main

from widehead.cli.console import say, show_json, show_table
from widehead.cli.errors import Interrupted
from widehead.cli.options import JsonOption, check_device
from widehead.cli.train import given_options, number_or_text
from widehead.cli.training_options import TrainOption, options_of, parameter
from widehead.errors import CheckpointError
from widehead.training import HEADS, compare, contenders, objective, ranked, verdict

__all__ = ["compare_command"]

# What every contender decides for itself.
_HEADS_OWN = ("head", "head_options", "loss", "loss_options", "keep_best")
_HELP = """Train several heads on the same data with the same encoder, and say which is best.

    Each head gets the same minutes (2 unless --minutes or --epochs says otherwise) in a process of its own. The folder
    then holds results.jsonl, comparison.png, report.html and the run of each head. A comparison that was interrupted
    goes on with --resume.

    **Examples**

        {example}

        --set NAME:OPTION=VALUE gives one head other options, and LABEL=HEAD names a head once more:
        --heads exact,taylor=exact,sampled --set taylor:loss=taylor-softmax --set sampled:negatives=500
    """
_EXAMPLES = {
    "recommender": "widehead compare recommender train.txt --test test.txt --heads exact,sampled,retrieved --minutes 2",
    "language-model": "widehead compare language-model wiki.txt.xz --heads exact,full,retrieved,adaptive --minutes 5",
    "multilabel": "widehead compare multilabel train.txt.gz --test test.txt.gz --heads exact,full --minutes 2",
}


def compare_command(job: str) -> Any:
    """The command of one job."""

    def command(**given: Any) -> None:
        _run(job, given)

    parameters = [*_own(), *(parameter(option, job) for option in _shared(job)), _json()]
    command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    help_text = _HELP.format(example=_EXAMPLES[job])
    app.command(job, help=help_text, context_settings={"help_option_names": ["--help", "-h"]})(command)
    return typer.main.get_command(app)


def _shared(job: str) -> list[TrainOption]:
    """Options that all contenders have alike."""
    return [
        option for option in options_of(job) if option.name not in _HEADS_OWN and not option.name.startswith("head_")
    ]


def _own() -> list[Parameter]:
    panel = "Comparison"
    file = typer.Argument(metavar="FILE", help="Training file, as for train.")
    heads = typer.Option(
        "exact,full", "--heads", help=f"With commas between them: {', '.join(HEADS)}.", rich_help_panel=panel
    )
    own = typer.Option(None, "--set", metavar="NAME:OPTION=VALUE", help="An option of one head.", rich_help_panel=panel)
    out = typer.Option(Path("runs/compare"), "--out", help="Folder of the comparison.", rich_help_panel=panel)
    again = typer.Option(False, "--resume", help="Go on with the comparison in --out.", rich_help_panel=panel)
    quiet = typer.Option(False, "--quiet", help="Show no progress.", rich_help_panel=panel)
    made: list[tuple[str, Any, Any]] = [
        ("file", file, Path),
        ("heads", heads, str),
        ("settings", own, list[str]),
        ("out", out, Path),
        ("resume", again, bool),
        ("quiet", quiet, bool),
    ]
    return [Parameter(n, Parameter.KEYWORD_ONLY, default=default, annotation=a) for n, default, a in made]


def _json() -> Parameter:
    return Parameter("as_json", Parameter.KEYWORD_ONLY, default=False, annotation=JsonOption)


def _run(job: str, given: dict[str, Any]) -> None:
    from widehead.report import comparison_table, write_comparison

    file, again, quiet, as_json, out = (given.pop(name) for name in ("file", "resume", "quiet", "as_json", "out"))
    heads = [name.strip() for name in given.pop("heads").split(",")]
    settings = [_setting(text) for text in given.pop("settings") or []]
    options = given_options(job, given)
    check_device(options.get("device", "cpu"))
    if out.exists() and any(out.iterdir()) and not again:
        raise CheckpointError(f"The folder {out} should be empty or not there. Found files in it: add --resume.")
    configs = contenders(job, heads, settings, out, train=str(file), **options)
    results = compare(configs, out, quiet=quiet, say=(lambda line: None) if quiet else say)
    report = write_comparison(out, configs, results)
    table = comparison_table(results)
    if as_json:
        show_json(
            {
                "verdict": verdict(results),
                "objective": objective(results),
                "results": [dataclasses.asdict(result) for result in ranked(results)],
                "out": str(out),
                "report": str(report),
            }
        )
    else:
        show_table(table.title, table.header, table.rows)
        print(verdict(results))
    if any(result.status == "interrupted" for result in results):
        raise Interrupted(f"stopped. Go on with the same command and --resume --out {shlex.quote(str(out))}")
    say(f"Folder {out}, report {report}.")


def _setting(text: str) -> tuple[str, str, Any]:
    """NAME:OPTION=VALUE in its parts."""
    name, colon, rest = text.partition(":")
    option, equals, value = rest.partition("=")
    if not (name and colon and option and equals):
        raise typer.BadParameter(f"expected NAME:OPTION=VALUE. Found {text!r}", param_hint="--set")
    return name, option.replace("-", "_"), number_or_text(value)
