"""Plots of step times against the number of classes, on logarithmic axes, names in the order of the lines' ends."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from widehead.report.curves import Picture, png, svg_pair
from widehead.report.page import render
from widehead.report.tables import Table, number
from widehead.training.folder import atomic_write

_SIZES = {"width": "d", "batch": "m", "targets_per_example": "K"}
_WHERE = ("device", "threads", "torch", "system", "version", "commit", "date")
_STYLES = ("-", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
_Line = list[tuple[int, float]]


def write_timings(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Plot rows of `widehead.bench.compare_step` into a picture (.png) or a page with it and its table (.html).

    Raises:
        ValueError: another ending.
        CheckpointError: the file cannot be written; an earlier one is as it was.
    """
    if path.suffix not in (".png", ".html"):
        raise ValueError(f"Parameter `path` should end in .png or .html. Found {str(path)!r}.")
    with atomic_write(path) as file:
        if path.suffix == ".png":
            png(lambda axes, ink, colours: _plot(axes, rows, ink, colours), file)
        else:
            file.write(_page(rows).encode())


def _page(rows: Sequence[Mapping[str, Any]]) -> str:
    light, dark = svg_pair(lambda axes, ink, colours: _plot(axes, rows, ink, colours))
    first = rows[0]
    return render(
        title="Training step of an output layer",
        summary=f"Loss, gradient to the encoder and update of all D × d weights, method beside method in one run; "
        f"medians. {_fixed(rows)}.",
        metrics=_table(rows),
        pictures=[Picture("Time of a step against the number of classes", _described(rows), light, dark)],
        tables=[],
        configuration=Table("Where", ["", "value"], [[key, str(first[key])] for key in _WHERE]),
        source="the rows of widehead bench output-layer",
    )


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    header = ["method", "classes", "width", "batch", "targets", "ms a step", "faster than dense", "times the floor"]
    cells = [
        [
            row["method"],
            *(f"{row[key]:,}" for key in ("classes", *_SIZES)),
            "left out" if row["seconds"] is None else number(1e3 * row["seconds"]),
            number(row["ratio_to_dense"]),
            number(row["ratio_to_floor"]),
        ]
        for row in rows
    ]
    return Table("Steps", header, cells)


def _lines(rows: Sequence[Mapping[str, Any]]) -> tuple[dict[tuple[str, str], _Line], dict[str, _Line]]:
    """(D, milliseconds) of each method and of each floor, a line for every combination of the other sizes."""
    methods: dict[tuple[str, str], _Line] = {}
    floors: dict[str, dict[int, float]] = {}
    for row in rows:
        if row["seconds"] is None:
            continue
        line = methods.setdefault((row["method"], _variant(row, rows)), [])
        line.append((row["classes"], 1e3 * row["seconds"]))
        floor = floors.setdefault(_variant(row, rows, but="targets_per_example"), {})  # targets do not matter to it
        floor[row["classes"]] = 1e3 * row["floor_seconds"]
    by_classes = {key: sorted(line.items()) for key, line in floors.items()}
    return {key: sorted(line) for key, line in methods.items()}, by_classes


def _variant(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], but: str = "") -> str:
    """What tells a row's line from others of the same method: ", d = 300", or "" if no other size varies."""
    own = {key: letter for key, letter in _SIZES.items() if len({r[key] for r in rows}) > 1 and key != but}
    return "".join(f", {letter} = {row[key]:,}" for key, letter in own.items())


def _fixed(rows: Sequence[Mapping[str, Any]]) -> str:
    """The sizes that are the same in all rows, and the machine."""
    sizes = [f"{letter} = {rows[0][key]:,}" for key, letter in _SIZES.items() if len({r[key] for r in rows}) == 1]
    return ", ".join([*sizes, str(rows[0]["device"]), f"{rows[0]['threads']} thread(s)"])


def _described(rows: Sequence[Mapping[str, Any]]) -> str:
    lines, _ = _lines(rows)
    ends = [f"{''.join(key)} goes from {number(line[0][1])} to {number(line[-1][1])}" for key, line in lines.items()]
    return f"Milliseconds a step against the number of classes: {'; '.join(ends)}."


def _plot(axes: Axes, rows: Sequence[Mapping[str, Any]], ink: str, colours: Sequence[str]) -> None:
    """A colour a method, a style of line a combination of the other sizes."""
    lines, floors = _lines(rows)
    names = list(dict.fromkeys(row["method"] for row in rows))
    variants = list(dict.fromkeys(_variant(row, rows) for row in rows))
    for (name, variant), line in lines.items():
        colour = colours[names.index(name) % len(colours)]
        style = _STYLES[variants.index(variant) % len(_STYLES)]
        look: dict[str, Any] = {"color": colour, "linestyle": style, "marker": "o", "markersize": 3.5}
        axes.plot(*zip(*line, strict=True), label=name + variant, **look)
    for variant, line in floors.items():
        axes.plot(*zip(*line, strict=True), label="floor" + variant, color=ink, linestyle="--", linewidth=1.0)
    axes.set(xscale="log", yscale="log", xlabel="classes D", ylabel="milliseconds a step")
    axes.set_title(_fixed(rows), fontsize=8, loc="left")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _short(x)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.6g}"))
    axes.yaxis.set_major_locator(LogLocator(numticks=12))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_minor_formatter(NullFormatter())
    highest_first = sorted(axes.lines, key=lambda line: float(np.asarray(line.get_ydata())[-1]), reverse=True)
    axes.figure.legend(handles=highest_first, loc="outside right upper", frameon=False, fontsize=8)


def _short(count: float) -> str:
    """A number of classes as people say it.

    >>> _short(1e4), _short(2.5e6), _short(300)
    ('10k', '2.5M', '300')
    """
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:g}{letter}"
    return f"{count:g}"
