"""The report of a comparison of heads: a table, a plot of quality against time, and the page that holds both."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from widehead.comparison.results import Result, objective, ranked, verdict
from widehead.jobs import JOBS
from widehead.options import TrainingConfig
from widehead.report.curves import Curve, draw, save_png
from widehead.report.page import render
from widehead.report.tables import Table, number, options_table
from widehead.training.folder import atomic_write

_WHERE = ("seconds", "step")


def comparison_table(results: Sequence[Result]) -> Table:
    """One row a contender, the best first."""
    names = list(dict.fromkeys(name for result in results for name in result.metrics))
    header = ["name", "head", *names, "seconds", "epochs", "steps", "ms a step", "peak memory"]
    return Table("Held-out quality, time and memory", header, [_row(result, names) for result in ranked(results)])


def write_comparison(out: Path, configs: Mapping[str, TrainingConfig], results: Sequence[Result]) -> Path:
    """Write comparison.png and report.html into the folder of a comparison; returns the path of the page.

    CheckpointError says that a file cannot be written; an earlier one is as it was.
    """
    curves = _curves(results)
    if curves:
        with atomic_write(out / "comparison.png") as file:
            save_png(curves[0], file)
    failed = [[result.name, result.status] for result in results if result.status.startswith("failed")]
    html = render(
        title=out.absolute().name,
        summary=_summary(configs, results),
        metrics=comparison_table(results),
        pictures=[draw(curve) for curve in curves],
        tables=[Table("What failed", ["name", "why"], failed)] if failed else [],
        configuration=_settings(configs),
        source="results.jsonl of this comparison",
    )
    path = out / "report.html"
    with atomic_write(path) as page:
        page.write(html.encode())
    return path


def _row(result: Result, names: Sequence[str]) -> list[str]:
    metrics = [number(result.metrics.get(name)) for name in names]
    memory = "–" if result.peak_bytes is None else f"{result.peak_bytes / 1e6:,.0f} MB"
    length = [f"{result.seconds:.1f}", f"{result.epochs:.2f}", f"{result.steps:,}", number(result.milliseconds_a_step)]
    return [result.name, result.head, *metrics, *length, memory]


def _curves(results: Sequence[Result]) -> list[Curve]:
    """Each metric against seconds of training, a line a contender; the one that decides first."""
    names = dict.fromkeys(name for result in results for record in result.curve for name in record)
    first = objective(results)
    ordered = sorted((name for name in names if name not in _WHERE), key=lambda name: name != first)
    return [_curve(name, results) for name in ordered]


def _curve(metric: str, results: Sequence[Result]) -> Curve:
    x = sorted({record["seconds"] for result in results for record in result.curve})
    lines: dict[str, list[float | None]] = {}
    for result in ranked(results):
        known = {record["seconds"]: record[metric] for record in result.curve if record.get(metric) is not None}
        if known:
            lines[result.name] = [known.get(seconds) for seconds in x]
    return Curve(metric.replace("_", " "), "seconds of training", x, lines, {})


def _summary(configs: Mapping[str, TrainingConfig], results: Sequence[Result]) -> str:
    config = next(iter(configs.values()))
    data = "its own data" if config.train is None else Path(config.train).name
    count, unit = (config.epochs, "epoch") if config.minutes is None else (config.minutes, "minute")
    limit = f"{count:g} {unit}" + ("" if count == 1 else "s")
    title = JOBS[config.job].title
    return f"{title} on {data}: each head had the same encoder and {limit} of training. {verdict(results)}"


def _settings(configs: Mapping[str, TrainingConfig]) -> Table:
    """Options that all have, and below them those in which the contenders differ."""
    every: list[dict[str, Any]] = [{k: v for k, v in vars(config).items() if k != "out"} for config in configs.values()]
    shared = {k: v for k, v in every[0].items() if all(other[k] == v for other in every)}
    own = {f"{name}: {k}": v for name, c in zip(configs, every, strict=True) for k, v in c.items() if k not in shared}
    return options_table({**shared, **own})
