"""``widehead demo``: the Moby thesaurus completes itself; everything from data to report in one command."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from widehead.cli.console import say, show_json, show_table, working
from widehead.cli.options import DeviceOption, JsonOption, ThreadsOption, usable_device

if TYPE_CHECKING:
    from widehead.jobs import Prediction
    from widehead.runs import Run
    from widehead.training import Outcome

_WORDS = ("happy", "brave", "music", "calculate", "mountain", "ocean")
_SHOWN = 8


def demo(
    out: Annotated[
        Path, typer.Option("--out", help="Run folder. An earlier demo in it is replaced; anything else is refused.")
    ] = Path("runs/demo"),
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Passes over the data.", show_default="that of the demo")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted demo in --out.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train an autoencoder of the Moby thesaurus (102,428 outputs), evaluate it and write a report.

    A fifth of each entry's synonyms is hidden; the network learns to name them from the others.
    """
    from widehead.cli.train import finish

    device = usable_device(device)
    run, outcome = _trained(out, epochs, resume, quiet, device)
    elsewhere = "" if device == "cpu" else f" --device {device}"
    finish(outcome, out, f"widehead demo --out {shlex.quote(str(out))} --resume{elsewhere}")
    with working("Measuring popularity and an untrained network on the same split"):
        baselines, found = _compared(run)
    with working("Timing one exact step beside one dense step"):
        timing = _timed(run)
    metrics = {"trained": dict(outcome.metrics), **baselines}
    tables = [_suggestion_table(found), _timing_table(timing)]
    report = run.report(comparisons=baselines, tables=tables)
    if as_json:
        suggestions = {prediction.name: prediction.classes for prediction, _ in found}
        told = {"out": str(out), "report": str(report), **metrics}
        show_json({**told, "suggestions": suggestions, "output_layer": timing})
        return
    _tell(metrics, tables, out, report)


def _trained(out: Path, epochs: int | None, again: bool, quiet: bool, device: str) -> tuple[Run, Outcome]:
    from widehead.data.demo import thesaurus_path
    from widehead.jobs import configure
    from widehead.jobs.demo import Demo
    from widehead.runs import Run

    thesaurus_path()
    changes: dict[str, Any] = {"device": device} | ({} if epochs is None else {"epochs": epochs})
    earlier = Run.open(out) if again or (out / "config.json").exists() else None
    same = earlier is not None and earlier.config.job == Demo.name
    if earlier is not None and again:
        if not same:
            told = f"the run in {out} is of the job {earlier.config.job}. Found {Demo.name}"
            raise typer.BadParameter(told, param_hint="--resume")
        return earlier, earlier.train(quiet=quiet, **changes)
    config = configure(Demo.name, out=str(out), **changes)
    if not quiet:
        say("Moby thesaurus: 30,259 entries, 102,428 synonyms to rank. Training with a fifth of them hidden.")
    run = Run.new(config, overwrite=same)
    return run, run.train(quiet=quiet)


def _compared(run: Run) -> tuple[dict[str, dict[str, float]], list[tuple[Prediction, set[str]]]]:
    """Metrics of popularity and of an untrained network on the run's own split, and what the run suggests."""
    from widehead.jobs import build_network
    from widehead.jobs.demo import Demo, popularity_network

    job, test, config = run.data.job, run.data.test, run.config
    assert isinstance(job, Demo)
    assert test is not None
    networks = {"popularity": popularity_network(job.train.matrix), "untrained": build_network(job, config)}
    names = job.metric_names(config.at)
    measured = {who: test.metrics(made, names, config.rank_at_most, config.seed) for who, made in networks.items()}
    roots = set(job.train.users)
    words = [word for word in _WORDS if word in roots]
    return measured, list(zip(job.suggest(run.network, words, _SHOWN), job.hidden(words), strict=True))


def _timed(run: Run) -> list[dict[str, Any]]:
    """One exact step and, if it fits in memory, one dense step of PyTorch, in the run's own shapes."""
    from widehead.bench import compare_step
    from widehead.jobs.demo import Demo

    assert isinstance(run.job, Demo)
    known = run.job.train.matrix
    targets = max(1, round(known.nnz / known.shape[0]))
    sizes = known.shape[1], run.config.width, run.config.batch_size, targets
    rows = compare_step(*sizes, methods=("exact", "dense"), device=run.config.device)
    return [row for row in rows if row["skipped"] is None]


def _suggestion_table(found: list[tuple[Prediction, set[str]]]) -> Any:
    from widehead.report import Table

    rows = [[p.name, ", ".join(f"{name}*" if name in real else name for name in p.classes)] for p, real in found]
    note = "None of these was a known synonym in training. A * marks one that the thesaurus has, but that was hidden."
    return Table("What it suggests", ["word", "suggestions"], rows, note)


def _timing_table(timing: list[dict[str, Any]]) -> Any:
    from widehead.report import Table

    names = {"exact": "exact head", "dense": "dense PyTorch"}
    ratios = ["–" if row["ratio_to_dense"] is None else f"{row['ratio_to_dense']:,.0f} times" for row in timing]
    rows = [[names[r["method"]], f"{1000 * r['seconds']:.2f} ms", x] for r, x in zip(timing, ratios, strict=True)]
    shape = "{classes:,} outputs, width {width}, batch {batch}, {targets_per_example} targets an example"
    note = f"The same step by both, taking turns in one process; medians. {shape.format(**timing[0])}."
    return Table("One training step of the output layer", ["method", "time", "faster than dense"], rows, note)


def _tell(metrics: dict[str, dict[str, float]], tables: list[Any], out: Path, report: Path) -> None:
    from widehead.report.tables import comparison

    compared = comparison(metrics)
    show_table("How well hidden synonyms are found", ["model", *compared.header[1:]], compared.rows)
    for table in tables:
        show_table(table.title, table.header, table.rows)
        print(table.note)
    place = shlex.quote(str(out))
    print(f"\nReport: {report}\nNext:")
    print(f"  echo courage | widehead predict {place} -")
    print(f"  widehead export {place} --format safetensors")
    print("  widehead train JOB FILE --test FILE --out runs/mine")
