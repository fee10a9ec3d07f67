"""``widehead train JOB FILE``: train a network, or go on with a run."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from widehead.cli.completion import one_of
from widehead.cli.console import say, show_json, show_metrics
from widehead.cli.errors import Interrupted
from widehead.cli.job_options import build_command, given_options, jobs_of, options_of, parameter
from widehead.cli.options import JsonOption, usable_device
from widehead.kinds import Kind, configure

if TYPE_CHECKING:
    from widehead.runs import Run
    from widehead.training import Outcome


def job_command(name: str) -> Any:
    """The command of one job, or of several that ``--task`` tells apart, with their options and defaults."""
    jobs = jobs_of(name)

    def command(
        file: Annotated[
            Path | None, typer.Argument(metavar="FILE", help="Training file, plain or compressed by gzip, xz or zstd.")
        ] = None,
        out: Annotated[Path | None, _option("--out", f"Run folder. [default: runs/{name}]")] = None,
        resume: Annotated[bool, _option("--resume", "Go on with the run in --out; FILE is known.")] = False,
        quiet: Annotated[bool, _option("--quiet", "Show no progress.")] = False,
        task: Annotated[
            str, _option("--task", "What to learn.", metavar="|".join(jobs), autocompletion=one_of(jobs))
        ] = next(iter(jobs)),
        as_json: JsonOption = False,
        **given: Any,
    ) -> None:
        if task not in jobs:
            raise typer.BadParameter(f"expected one of {', '.join(jobs)}. Found {task!r}", param_hint="--task")
        _run(jobs[task], file, out or Path("runs") / jobs[task].name, resume, quiet, as_json, given)

    help = "\n\n".join(job.help for job in jobs.values())
    options = [parameter(row, *jobs.values()) for row in options_of(*jobs.values())]
    return build_command(name, help, command, options, without="" if len(jobs) > 1 else "task")


def _option(flag: str, help: str, **more: Any) -> Any:
    return typer.Option(flag, help=help, rich_help_panel="Run", **more)


def finish(outcome: "Outcome", out: Path, again: str) -> None:
    """Stop here with a line that says how to go on, if a run was interrupted."""
    if outcome.status == "interrupted":
        moment = f"step {outcome.step:,} (epoch {outcome.epoch:.2f})"
        raise Interrupted(f"stopped at {moment} with a checkpoint in {out}. Go on with: {again}")


def _run(
    job: type[Kind], file: Path | None, out: Path, resume: bool, quiet: bool, as_json: bool, given: dict[str, Any]
) -> None:
    options = given_options(job, given)
    if "device" in options:
        options["device"] = usable_device(options["device"])
    if resume:
        run, changes = _earlier(job, file, out, options)
    else:
        run, changes = _new(job, file, out, options), {}
    outcome = run.train(quiet=quiet, **changes)
    report = run.report()
    if as_json:
        show_json({**vars(outcome), "metrics": dict(outcome.metrics), "out": str(out), "report": str(report)})
    task = f" --task {job.task}" if job.task != next(iter(jobs_of(job.command))) else ""
    finish(outcome, out, f"widehead train {job.command}{task} --out {shlex.quote(str(out))} --resume")
    if as_json:
        return
    if outcome.metrics:
        show_metrics(outcome.metrics)
    say(f"Finished: {outcome.epoch:g} epochs, {outcome.step:,} steps, {outcome.seconds:.1f} seconds of training.")
    say(f"Run folder {out}, report {report}.")


def _new(job: type[Kind], file: Path | None, out: Path, options: dict[str, Any]) -> "Run":
    if file is None:
        raise typer.BadParameter("a training file is needed, unless a run is resumed", param_hint="FILE")
    if "minutes" in options:
        options.setdefault("epochs", None)
    config = configure(job.name, train=str(file), out=str(out), **options)
    from widehead.runs import Run

    return Run.new(config)


def _earlier(job: type[Kind], file: Path | None, out: Path, options: dict[str, Any]) -> tuple["Run", dict[str, Any]]:
    """The run in ``out``, and those of the options that differ from its own."""
    from widehead.runs import Run

    run = Run.open(out)
    if run.config.job != job.name:
        raise typer.BadParameter(
            f"the run in {out} is of the job {run.config.job}. Found {job.name}", param_hint="--resume"
        )
    if file is not None and str(file.absolute()) != run.config.train:
        raise typer.BadParameter(f"the run in {out} was trained on {run.config.train}. Found {file}", param_hint="FILE")
    return run, {name: value for name, value in options.items() if not _same(getattr(run.config, name), value)}


def _same(kept: Any, given: Any) -> bool:
    """Whether an option of a run is what was given; paths are kept as absolute ones."""
    return kept == given or (isinstance(given, str) and kept == str(Path(given).absolute()))
