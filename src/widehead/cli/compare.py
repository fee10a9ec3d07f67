"""``widehead compare JOB FILE``: the same data, encoder and minutes for every head; which is best?"""

import dataclasses
import shlex
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from widehead.cli.completion import some_of
from widehead.cli.console import say, show_json, show_table
from widehead.cli.errors import Interrupted
from widehead.cli.job_options import build_command, given_options, jobs_of, number_or_text, options_of, parameter
from widehead.cli.options import JsonOption, ThreadsOption, usable_device
from widehead.errors import CheckpointError
from widehead.kinds import Kind
from widehead.names import HEADS
from widehead.options import Option

# What every contender decides for itself.
_HEADS_OWN = ("head", "head_options", "loss", "loss_options", "keep_best", "preset")
_HELP = """Train several heads on the same data with the same encoder, and say which is best.

    Each head gets the same minutes (2 unless --minutes or --epochs says otherwise) in a process of its own. The folder
    then holds results.jsonl, comparison.png, report.html and the run of each head. A comparison that was interrupted
    goes on with --resume.

    **Examples**

        widehead compare {example}

        --set NAME:OPTION=VALUE gives one head other options, and LABEL=HEAD names a head once more:
        --heads exact,taylor=exact,sampled --set taylor:loss=taylor-softmax --set sampled:negatives=500
    """


def job_command(name: str) -> Any:
    """The command of one job."""
    job = next(iter(jobs_of(name).values()))
    options = [parameter(row, job) for row in _shared(job)]
    return build_command(name, _HELP.format(example=f"{name} {job.compared}"), partial(_run, job), options)


def _shared(job: type[Kind]) -> list[Option]:
    """Options that all contenders have alike."""
    return [row for row in options_of(job) if row.name not in _HEADS_OWN and not row.name.startswith("head_")]


def _option(flag: str, help: str, **more: Any) -> Any:
    return typer.Option(flag, help=help, rich_help_panel="Comparison", **more)


def _run(
    job: type[Kind],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Training file, as for train.")],
    heads: Annotated[
        str, _option("--heads", f"With commas between them: {', '.join(HEADS)}.", autocompletion=some_of(HEADS))
    ] = "exact,full",
    settings: Annotated[
        list[str] | None, _option("--set", "An option of one head.", metavar="NAME:OPTION=VALUE")
    ] = None,
    out: Annotated[Path, _option("--out", "Folder of the comparison.")] = Path("runs/compare"),
    resume: Annotated[bool, _option("--resume", "Go on with the comparison in --out.")] = False,
    quiet: Annotated[bool, _option("--quiet", "Show no progress.")] = False,
    processes: Annotated[
        int, _option("--processes", "Processes that train each head, with a share of rows and examples.", min=1)
    ] = 1,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
    **given: Any,
) -> None:
    names, own = [name.strip() for name in heads.split(",")], [_setting(text) for text in settings or []]
    options = given_options(job, given)
    if "device" in options:
        options["device"] = usable_device(options["device"])
    if out.exists() and any(out.iterdir()) and not resume:
        raise CheckpointError(f"The folder {out} should be empty or not there. Found files in it: add --resume.")
    from widehead.comparison import compare, contenders, write_comparison

    configs = contenders(job.name, names, own, out, train=str(file), **options)
    told = (lambda line: None) if quiet else say
    results = compare(configs, out, quiet=quiet, processes=processes, say=told)
    report = write_comparison(out, configs, results)
    _show(results, out, report, as_json)
    if any(result.status == "interrupted" for result in results):
        raise Interrupted(f"stopped. Go on with the same command and --resume --out {shlex.quote(str(out))}")
    say(f"Folder {out}, report {report}.")


def _show(results: list[Any], out: Path, report: Path, as_json: bool) -> None:
    from widehead.comparison import comparison_table, objective, ranked, verdict

    if not as_json:
        table = comparison_table(results)
        show_table(table.title, table.header, table.rows)
        print(verdict(results))
        return
    best_first = [dataclasses.asdict(result) for result in ranked(results)]
    told = {"verdict": verdict(results), "objective": objective(results), "results": best_first}
    show_json({**told, "out": str(out), "report": str(report)})


def _setting(text: str) -> tuple[str, str, Any]:
    """NAME:OPTION=VALUE in its parts."""
    name, colon, rest = text.partition(":")
    option, equals, value = rest.partition("=")
    if not (name and colon and option and equals):
        raise typer.BadParameter(f"expected NAME:OPTION=VALUE. Found {text!r}", param_hint="--set")
    return name, option.replace("-", "_"), number_or_text(value)
