"""``widehead train JOB FILE``: train a network, or go on with a run."""

from __future__ import annotations

import shlex
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any

import typer
import typer.main

from widehead.cli.console import say, show_json, show_metrics
from widehead.cli.errors import Interrupted
from widehead.cli.files import new_run_folder
from widehead.cli.options import JsonOption, check_device
from widehead.cli.training_options import TrainOption, options_of, parameter
from widehead.training import JOBS, Outcome, RunFolder, TrainingConfig, resume, train

__all__ = ["finish", "given_options", "job_command", "number_or_text"]

_TASKS = {"next-word": "language-model", "word-embeddings": "word-embeddings"}
_HELP = {
    "recommender": """Train a recommender: the items of a user in, the items of a user out.

    FILE holds a line for each user, "user item item …", or a table of (user, item[, rating]): CSV, TSV or Parquet.

    **Example**

        widehead train recommender train.txt --test test.txt --out runs/shop --epochs 20
    """,
    "language-model": """Train on text: an n-gram language model, or word embeddings with --task word-embeddings.

    FILE is plain text. Words rarer than --minimum-count become one unknown word.

    **Examples**

        widehead train language-model wiki.txt.xz --out runs/wiki --hidden 512,256

        widehead train language-model wiki.txt.xz --task word-embeddings --out runs/words
    """,
    "multilabel": """Train a classifier with many labels.

    FILE holds lines "label label<TAB>text", or XC repository text: the header "rows features labels", then
    "l1,l2 f:v f:v" lines.

    **Example**

        widehead train multilabel train.txt.gz --test test.txt.gz --out runs/tags
    """,
}
_Given = dict[str, Any]


def job_command(job: str) -> Any:
    """The command of one job, with its options and their defaults."""
    jobs = tuple(_TASKS.values()) if job == "language-model" else (job,)

    def command(**given: Any) -> None:
        _run(_task_job(given.pop("task")) if "task" in given else job, given)

    parameters = [*_common(job), *(parameter(option, *jobs) for option in options_of(*jobs)), _json()]
    command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    app.command(job, help=_HELP[job], context_settings={"help_option_names": ["--help", "-h"]})(command)
    return typer.main.get_command(app)


def finish(outcome: Outcome, out: Path, again: str) -> None:
    """Stop here with a line that says how to go on, where a run was interrupted."""
    if outcome.status == "interrupted":
        where = f"step {outcome.step:,} (epoch {outcome.epoch:.2f})"
        raise Interrupted(f"stopped at {where} with a checkpoint in {out}. Go on with: {again}")


def _common(job: str) -> list[Parameter]:
    """FILE and the options that are not of TrainingConfig."""
    file = typer.Argument(None, metavar="FILE", help="Training file, plain or compressed by gzip, xz or zstd.")
    out = typer.Option(None, "--out", help=f"Run folder. [default: runs/{job}]", rich_help_panel="Run")
    again = typer.Option(False, "--resume", help="Go on with the run in --out; FILE is known.", rich_help_panel="Run")
    quiet = typer.Option(False, "--quiet", help="Show no progress.", rich_help_panel="Run")
    task = typer.Option("next-word", "--task", help="What to learn.", metavar="|".join(_TASKS), rich_help_panel="Run")
    made: list[tuple[str, Any, Any]] = [
        ("file", file, Path | None),
        ("out", out, Path | None),
        ("resume", again, bool),
        ("quiet", quiet, bool),
    ]
    if job == "language-model":
        made.append(("task", task, str))
    return [Parameter(n, Parameter.KEYWORD_ONLY, default=default, annotation=a) for n, default, a in made]


def _json() -> Parameter:
    return Parameter("as_json", Parameter.KEYWORD_ONLY, default=False, annotation=JsonOption)


def _run(job: str, given: _Given) -> None:
    from widehead.report import write_report  # plots are slow to import, and no help needs them

    file, again, quiet, as_json = (given.pop(name) for name in ("file", "resume", "quiet", "as_json"))
    out = given.pop("out") or Path("runs") / job
    options = given_options(job, given)
    check_device(options.get("device", "cpu"))
    outcome = _resumed(job, file, out, options, quiet) if again else _started(job, file, out, options, quiet)
    report = write_report(out)
    again_line = f"widehead train {_words(job)} --out {shlex.quote(str(out))} --resume"
    if as_json:
        show_json({**vars(outcome), "metrics": dict(outcome.metrics), "out": str(out), "report": str(report)})
    finish(outcome, out, again_line)
    if not as_json:
        _tell(outcome, out, report)


def _task_job(task: str) -> str:
    if task not in _TASKS:
        raise typer.BadParameter(f"expected one of {', '.join(_TASKS)}. Found {task!r}", param_hint="--task")
    return _TASKS[task]


def _words(job: str) -> str:
    """A job as it is written on the command line."""
    return "language-model --task word-embeddings" if job == "word-embeddings" else job


def given_options(job: str, given: _Given) -> _Given:
    """The options that were given, as TrainingConfig takes them; an option of another job is refused."""
    made: _Given = {}
    for option in options_of(*JOBS):
        value = given.get(option.name)
        if value is None or value is False or value == []:
            continue
        if job not in option.jobs:
            raise typer.BadParameter(f"this is an option of {' and '.join(option.jobs)}", param_hint=option.flag)
        made[option.name] = _pairs(option, value) if option.kind is dict else value
    return made


def _pairs(option: TrainOption, texts: list[str]) -> dict[str, float | str]:
    """NAME=VALUE texts as a mapping; values that are numbers become numbers."""
    pairs: dict[str, float | str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"expected NAME=VALUE. Found {text!r}", param_hint=option.flag)
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


def _started(job: str, file: Path | None, out: Path, options: _Given, quiet: bool) -> Outcome:
    if file is None:
        raise typer.BadParameter("a training file is needed, unless a run is resumed", param_hint="FILE")
    if "minutes" in options:
        options.setdefault("epochs", None)
    config = TrainingConfig.for_job(job, train=str(file), out=str(out), **options)
    with new_run_folder(out):
        return train(config, quiet=quiet)


def _resumed(job: str, file: Path | None, out: Path, options: _Given, quiet: bool) -> Outcome:
    """Go on; what was given again may differ from the run only where ``resume`` allows it."""
    _, config = RunFolder.open(out)
    if config.job != job:
        raise typer.BadParameter(f"the run in {out} is of the job {config.job}. Found {job}", param_hint="--resume")
    if file is not None and str(file.absolute()) != config.train:
        raise typer.BadParameter(f"the run in {out} was trained on {config.train}. Found {file}", param_hint="FILE")
    changes = {name: value for name, value in options.items() if not _same(getattr(config, name), value)}
    return resume(out, quiet=quiet, **changes)


def _same(kept: Any, given: Any) -> bool:
    """Whether an option of a run is what was given; paths are kept as absolute ones."""
    return kept == given or (isinstance(given, str) and kept == str(Path(given).absolute()))


def _tell(outcome: Outcome, out: Path, report: Path) -> None:
    if outcome.metrics:
        show_metrics(outcome.metrics)
    say(f"Finished: {outcome.epoch:g} epochs, {outcome.step:,} steps, {outcome.seconds:.1f} seconds of training.")
    say(f"Run folder {out}, report {report}.")
