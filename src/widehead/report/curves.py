"""Curves of a run: which ones there are, and each as a pair of SVG pictures, for light and for dark pages.

matplotlib draws into memory: no window system is touched and no global state is changed.
"""

import base64
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, PercentFormatter

from widehead.report.tables import number

#: draws on axes, given the ink and the colours of lines
Paint = Callable[[Axes, str, Sequence[str]], None]

_SIZE = (4.6, 2.9)  # inches; at this size the letters stay readable on a phone
_PNG_SIZE = (7.0, 4.4)
WHERE = ("kind", "step", "epoch", "seconds", "preparation")
"""What every line of a metrics.jsonl has; the rest are its metrics or monitors."""
_BASELINES = ("--", ":", "-.")
# Ink, and colours after Okabe and Ito's palette, which colour-blind people can tell apart;
# each with the lighter one that dark pages have.
_ON_DARK = {
    "#1d2430": "#d7dde6",
    "#0072b2": "#56b4e9",
    "#c55a00": "#f0a34a",
    "#00805c": "#2fc898",
    "#a0508a": "#dc8fc0",
    "#5b6b00": "#d8d060",
    "#6a6a6a": "#b0b0b0",
    "#b03060": "#f08aa0",
    "#3b4cc0": "#93a4f0",
    "#8a5a2b": "#cfa06c",
}
_INK, *_COLOURS = _ON_DARK
_COLOUR = re.compile("#[0-9a-f]{6}")
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "path",
    "svg.hashsalt": "widehead",
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.linewidth": 0.6,
    "grid.alpha": 0.16,
    "lines.linewidth": 1.8,
    "path.simplify": True,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), _INK
    ),
}


@dataclass(frozen=True)
class Curve:
    """One plot: lines over a common axis.

    Attributes:
        x_label, x: name and numbers of the axis.
        lines: numbers by name, each as long as ``x``; None if there is no number.
        baselines: constants to compare with, by name.
        percent: whether the numbers are shares of 1, to be shown from 0 % to 100 %.
        from_zero: whether the vertical axis starts at 0.
    """

    title: str
    x_label: str
    x: Sequence[float]
    lines: Mapping[str, Sequence[float | None]]
    baselines: Mapping[str, float]
    percent: bool = False
    from_zero: bool = False

    def describe(self) -> str:
        """The curve in words, for those who do not see it."""
        parts = []
        for name, values in self.lines.items():
            known = [v for v in values if v is not None]
            parts.append(f"{name} goes from {number(known[0])} to {number(known[-1])}")
        parts += [f"{name} is {number(value)}" for name, value in self.baselines.items()]
        return f"{self.title} against {self.x_label}: {'; '.join(parts)}."


@dataclass(frozen=True)
class Picture:
    """A curve as data URIs, with its text."""

    title: str
    text: str
    light: str
    dark: str


def curves_of(
    records: Sequence[Mapping[str, Any]], comparisons: Mapping[str, Mapping[str, float]] | None = None
) -> list[Curve]:
    """The curves that the lines of a metrics.jsonl give: loss, metrics, throughput; those without numbers left out."""
    train = [r for r in records if r["kind"] == "train"]
    evaluations = [r for r in records if r["kind"] == "evaluation"]
    made = [_curve("Training loss", "step", train, ["loss"])]
    for title, names in _groups(evaluations).items():
        first = names[0]
        baselines = {f"{first}, {who}": m[first] for who, m in (comparisons or {}).items() if first in m}
        made += [_curve(title, axis, evaluations, names, baselines) for axis in ("step", "minutes")]
    made.append(_curve("Examples per second", "step", train, ["examples_per_second"], from_zero=True))
    made.append(_curve("Head's share of the time", "step", train, ["head_share"], percent=True))
    made.append(_curve("Head's steps scaled back", "step", train, ["scaled_back"], percent=True))
    made.append(_curve("Relative deviation of the normaliser", "step", train, ["relative_std"], from_zero=True))
    return [curve for curve in made if curve.lines]


def draw(curve: Curve) -> Picture:
    """A curve as pictures."""
    light, dark = svg_pair(lambda axes, ink, colours: _plot(axes, curve, ink, colours))
    return Picture(curve.title, curve.describe(), light, dark)


def save_png(curve: Curve, file: BinaryIO) -> None:
    """Write a curve as a PNG picture on white."""

    def paint(axes: Axes, ink: str, colours: Sequence[str]) -> None:
        axes.set_ylabel(curve.title)
        _plot(axes, curve, ink, colours)

    png(paint, file)


def svg_pair(paint: Paint) -> tuple[str, str]:
    """Data URIs of one plot on a transparent ground, for light and for dark pages."""
    file, figure = io.BytesIO(), Figure(_SIZE, dpi=72)  # the canvas measures text, at the dpi that SVG has
    FigureCanvasSVG(figure)
    _save(paint, figure, file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    light = file.getvalue().decode()
    return _uri(light), _uri(_COLOUR.sub(lambda found: _ON_DARK.get(found[0], found[0]), light))


def _uri(picture: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(picture.encode()).decode()


def png(paint: Paint, file: BinaryIO) -> None:
    """Write a plot as a PNG picture on white."""
    _save(paint, Figure(_PNG_SIZE, dpi=150), file, format="png", facecolor="white", metadata={"Software": None})


def _save(paint: Paint, figure: Figure, file: BinaryIO, **how: Any) -> None:
    with matplotlib.rc_context(_SETTINGS):
        figure.set_layout_engine(layout := ConstrainedLayoutEngine())
        paint(figure.add_subplot(), _INK, _COLOURS)
        layout.execute(figure)  # by itself: with an engine, saving draws everything twice
        figure.set_layout_engine(None)
        figure.savefig(file, **how)


def _groups(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Names of metrics that share a plot: the shares of 1, such as recall@20, in one; each other metric alone."""
    names = dict.fromkeys(name for r in evaluations for name in r if name not in WHERE)
    groups: dict[str, list[str]] = {}
    for name in names:
        title = "Ranking metrics" if "@" in name else name.replace("_", " ").capitalize()
        groups.setdefault(title, []).append(name)
    return groups


def _curve(
    title: str,
    axis: str,
    records: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    baselines: Mapping[str, float] | None = None,
    **options: bool,
) -> Curve:
    x = [r["step"] if axis == "step" else r["seconds"] / 60.0 for r in records]
    lines = {name.replace("_", " "): [r.get(name) for r in records] for name in names}
    known = {name: values for name, values in lines.items() if any(v is not None for v in values)}
    label = "step" if axis == "step" else "minutes of training"
    return Curve(title, label, x, known, baselines or {}, **options)


def _plot(axes: Axes, curve: Curve, ink: str, colours: Sequence[str]) -> None:
    for i, (name, values) in enumerate(curve.lines.items()):
        points = [(x, v) for x, v in zip(curve.x, values, strict=True) if v is not None]
        look: dict[str, Any] = {"color": colours[i % len(colours)], "marker": "o" if len(points) <= 25 else ""}
        axes.plot(*zip(*points, strict=True), label=name, markersize=3.5, **look)
    for i, (name, value) in enumerate(curve.baselines.items()):
        axes.axhline(value, label=name, color=ink, linewidth=1.2, linestyle=_BASELINES[i % len(_BASELINES)])
    axes.set_xlabel(curve.x_label)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=curve.x_label == "step"))
    if curve.percent:
        axes.set_ylim(0.0, 1.0)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    elif curve.from_zero or curve.baselines:
        axes.set_ylim(bottom=0.0)
    if len(curve.lines) + len(curve.baselines) > 1:
        axes.figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=8)
