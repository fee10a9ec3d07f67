"""The report of a run: one HTML file, pictures inside, that asks nothing of the network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from widehead.errors import CheckpointError
from widehead.jobs.base import Job, open_folder, ranks_beside
from widehead.options import TrainingConfig
from widehead.report.curves import WHERE, curves_of, draw
from widehead.report.tables import Table, comparison, duration, number, options_table
from widehead.training import read_metrics
from widehead.training.folder import RunFolder, atomic_write


def write_report(
    run: Path | str, *, comparisons: Mapping[str, Mapping[str, float]] | None = None, tables: Sequence[Table] = ()
) -> Path:
    """Write report.html into a run folder, from its config.json and metrics.jsonl; returns its path.

    Args:
        run: the run folder.
        comparisons: metrics of other models on the same test, by name, such as {"popularity": {"recall@20": 0.02}}.
        tables: more tables, such as examples of predictions.

    Raises:
        CheckpointError: this is no run folder, or a file of it is damaged.
        OSError: the file cannot be written; an earlier report is as it was.
    """
    folder, config, job = open_folder(run)
    records = read_metrics(folder.metrics_path)
    network, both = (_last(records, kind) for kind in ("evaluation", "final"))
    ranks = folder.neighbours_path.exists() or config.direct > 0.0
    more = f"with {ranks_beside(config)}"
    alone, beside = ({"its network alone": network}, {more: both}) if both else ({}, {})
    whose = more if both else "alone" if ranks else ""
    html = render(
        title=folder.path.absolute().name,
        summary=_summary(job.title, config, records, both or network, whose),
        metrics=comparison({"this run": both or network, **alone, **(comparisons or {})}) if network else None,
        pictures=[draw(curve) for curve in curves_of(records, {**beside, **(comparisons or {})})],
        tables=[*_neighbours(folder, config, job), *tables],
        configuration=options_table(vars(config)),
        source="config.json and metrics.jsonl of this run",
    )
    with atomic_write(folder.report_path) as file:
        file.write(html.encode())
    return folder.report_path


def _last(records: Sequence[Mapping[str, Any]], kind: str) -> Mapping[str, Any]:
    """The metrics of the last record of a kind; none if there is no such record."""
    last: Mapping[str, Any] = next((record for record in reversed(records) if record["kind"] == kind), {})
    return {name: value for name, value in last.items() if name not in WHERE}


def _neighbours(folder: RunFolder, config: TrainingConfig, job: type[Job]) -> list[Table]:
    """Whether neighbours should rank, what they count, and width and direct term, if the data decided about these."""
    places = {
        "Neighbours, or none": (job.probe, folder.probe_path),
        "Width and direct term": (job.trial, folder.trial_path),
        "Neighbours": (job.choice, folder.neighbours_path),
    }
    tables = []
    for title, (kind, path) in places.items():
        if kind is None or (found := kind.read(path)) is None:
            continue
        for name, value in found.decided().items():
            if value != getattr(config, name):
                raise CheckpointError(
                    f"{path} should hold {kind.what} in this run, whose `{name}` is {getattr(config, name):g}. Found "
                    f"{value:g}: it is of another run."
                )
        tables.append(Table(title, *found.table(), str(found)))
    return tables


def render(**contents: Any) -> str:
    """The page with its title, summary, tables and pictures."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("widehead.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja").render(**contents)


def _summary(
    title: str, config: TrainingConfig, records: Sequence[Mapping[str, Any]], metrics: Mapping[str, Any], whose: str
) -> str:
    """One paragraph: what was trained, for how long, to what end; ``whose`` metrics, if neighbours may rank."""
    data = "" if config.train is None else f", trained on {Path(config.train).name}"
    head = f"the loss {config.loss} on the exact head" if config.loss else f"the head {config.head}"
    said = f"{title}{data} with {head} and {config.width} hidden units before it."
    if not records:
        return f"{said} No step was made yet."
    last = records[-1]
    prepared = last.get("preparation", 0.0)
    apart = f", {duration(prepared)} of them before the first step" if prepared >= 0.05 else ""
    said += (
        f" It has seen {number(last['epoch'])} epochs in {last['step']:,} steps and {duration(last['seconds'])}{apart}."
    )
    if joined := [record for record in records if record["kind"] == "joined"]:
        said += (
            f" From step {joined[0]['step']:,} on a pass had {joined[0]['examples']:,} examples, with those that had "
            "been held out to choose by."
        )
    if metrics:
        of = f", of the network {whose}" if whose else ""
        said += f" Its last evaluation{of}: " + ", ".join(f"{k} {number(v)}" for k, v in metrics.items()) + "."
    return said
