"""``widehead train JOB FILE``: train a network, or go on with a run."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from widehead.cli import torchrun
from widehead.cli.completion import one_of
from widehead.cli.config_file import merged, read_options
from widehead.cli.console import say, show_json, show_metrics
from widehead.cli.dry_run import show_rehearsal
from widehead.cli.errors import Interrupted
from widehead.cli.job_options import build_command, given_options, jobs_of, options_of, parameter
from widehead.cli.options import JsonOption, ThreadsOption, usable_device
from widehead.kinds import Kind, configure
from widehead.options import TrainingConfig

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
        config: Annotated[
            Path | None,
            _option("--config", "Options in TOML, or a run's config.json; those given here win.", metavar="FILE"),
        ] = None,
        resume: Annotated[bool, _option("--resume", "Go on with the run in --out; FILE is known, or moved.")] = False,
        overwrite: Annotated[bool, _option("--overwrite", "Replace the run in --out once this one is done.")] = False,
        dry_run: Annotated[
            bool, _option("--dry-run", "Say what it would take, after some seconds of steps; write nothing.")
        ] = False,
        quiet: Annotated[bool, _option("--quiet", "Show no progress.")] = False,
        task: Annotated[
            str | None,
            _option(
                "--task",
                f"What to learn. [default: {next(iter(jobs))}]",
                metavar="|".join(jobs),
                autocompletion=one_of(jobs),
            ),
        ] = None,
        threads: ThreadsOption = None,
        as_json: JsonOption = False,
        **given: Any,
    ) -> None:
        if task is not None and task not in jobs:
            raise typer.BadParameter(f"expected one of {', '.join(jobs)}. Found {task!r}", param_hint="--task")
        if resume and (config is not None or overwrite or dry_run):
            raise typer.BadParameter("not with --config, --overwrite or --dry-run", param_hint="--resume")
        asked = {} if config is None else read_options(config)
        job = _job(jobs, task, asked.pop("job", None), config)
        options = mine = given_options(job, given)
        asked_place = asked.pop("out", Path("runs") / job.name)
        place = out or Path(asked_place)
        mesh = torchrun.joined()
        resume = resume or (not dry_run and torchrun.goes_on(place))
        if not resume:
            options = merged(asked, options, job, str(config))
        if "device" in options:
            options["device"] = usable_device(options["device"])
        if resume:
            _finish(job, place, *_resumed(job, file, place, options, mesh), quiet, as_json)
            return
        wanted = _config(job, file, place, options)
        if dry_run:
            sources = {name: "given" if name in mine else str(config) for name in options}
            if wanted.epochs is None:
                sources.setdefault("epochs", "minutes alone")
            show_rehearsal(wanted, sources, overwrite, as_json, mesh)
            return
        from widehead.runs import Run
        from widehead.training.log import showing

        with showing(quiet or not torchrun.is_first()):
            run = Run.new(wanted, overwrite=overwrite, mesh=mesh)
        torchrun.began(place)
        _finish(job, place, run, {}, quiet, as_json)

    help = "\n\n".join(job.help for job in jobs.values())
    options = [parameter(row, *jobs.values()) for row in options_of(*jobs.values())]
    return build_command(name, help, command, options, without="" if len(jobs) > 1 else "task")


def _option(flag: str, help: str, **more: Any) -> Any:
    return typer.Option(flag, help=help, rich_help_panel="Run", **more)


def _job(jobs: Mapping[str, type[Kind]], task: str | None, asked: Any, source: Path | None) -> type[Kind]:
    """The job of the command, of its ``--task``, or that a file asks for."""
    named = {job.name: job for job in jobs.values()}
    job = jobs[task] if task is not None else named.get(asked, next(iter(jobs.values())))
    if asked not in (None, job.name):
        raise ValueError(f"Expected options of the job {job.name} in {source}. Found job = {asked!r}.")
    return job


def finish(outcome: "Outcome", out: Path, again: str) -> None:
    """Stop here with a line that says how to go on, if a run was interrupted."""
    if outcome.status == "interrupted":
        moment = f"step {outcome.step:,} (epoch {outcome.epoch:.2f})"
        raise Interrupted(f"stopped at {moment} with a checkpoint in {out}. Go on with: {again}")


def _finish(job: type[Kind], out: Path, run: "Run", changes: dict[str, Any], quiet: bool, as_json: bool) -> None:
    """Train, and say what came of it."""
    outcome = run.train(quiet=quiet, **changes)
    if outcome.status == "finished":
        torchrun.finished(out)
    task = f" --task {job.task}" if job.task != next(iter(jobs_of(job.command))) else ""
    again = f"{torchrun.again()} train {job.command}{task} --out {shlex.quote(str(out))} --resume"
    if not torchrun.is_first():
        finish(outcome, out, again)
        return
    report = run.report()
    if as_json:
        show_json({**vars(outcome), "metrics": dict(outcome.metrics), "out": str(out), "report": str(report)})
    finish(outcome, out, again)
    if as_json:
        return
    if outcome.metrics:
        show_metrics(outcome.metrics)
    apart = f", {outcome.preparation:.1f} of them before the first step" if outcome.preparation >= 0.05 else ""
    say(
        f"Finished: {outcome.epoch:g} epochs, {outcome.step:,} steps, {outcome.seconds:.1f} seconds of training{apart}."
    )
    say(f"Run folder {out}, report {report}.")


def _config(job: type[Kind], file: Path | None, out: Path, options: dict[str, Any]) -> TrainingConfig:
    """The options of a new run, with the presets of its job."""
    train = options.get("train") if file is None else str(file)
    if train is None:
        raise typer.BadParameter("a training file is needed, unless a run is resumed", param_hint="FILE")
    by_time = {} if options.get("minutes") is None else {"epochs": None}
    return configure(job.name, **{**by_time, **options, "train": train, "out": str(out)})


def _resumed(
    job: type[Kind], file: Path | None, out: Path, options: dict[str, Any], mesh: Any
) -> tuple["Run", dict[str, Any]]:
    """The run in ``out``, and those of the options that differ from its own."""
    from widehead.runs import Run

    run = Run.open(out, mesh=mesh)
    if run.config.job != job.name:
        raise typer.BadParameter(
            f"the run in {out} is of the job {run.config.job}. Found {job.name}", param_hint="--resume"
        )
    if file is not None:
        options["train"] = str(file.absolute())
    return run, {name: value for name, value in options.items() if not _same(getattr(run.config, name), value)}


def _same(kept: Any, given: Any) -> bool:
    """Whether an option of a run is what was given; paths are kept as absolute ones."""
    return kept == given or (isinstance(given, str) and kept == str(Path(given).absolute()))
