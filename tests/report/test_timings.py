"""Plots of timings: every line has its name, a page tells what was left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from widehead.report import write_timings
from widehead.report.timings import _plot


def row(method: str, classes: int, seconds: float | None, **changes: Any) -> dict[str, Any]:
    sizes = {"classes": classes, "width": 16, "batch": 8, "targets_per_example": 1}
    where = dict.fromkeys(("device", "threads", "torch", "system", "version", "commit", "date"), "x")
    figures = {"seconds": seconds, "ratio_to_dense": None, "ratio_to_floor": 3.0, "floor_seconds": 1e-4}
    return {"method": method, "skipped": None, **figures, **sizes, **where, **changes}


ROWS = [
    row("exact", 1000, 1e-3),
    row("dense", 1000, 2e-3),
    row("exact", 100, 1.1e-3),
    row("dense", 100, 2e-4),
    row("exact", 10_000, 1e-3),
    row("dense", 10_000, None, skipped="dense needs more"),
]


def drawn(rows: list[dict[str, Any]]) -> Any:
    axes = Figure().add_subplot()
    _plot(axes, rows, "black", ["red", "blue"])
    return axes


def names(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.figure.legends[0].get_texts()]


def test_a_line_a_method_over_rising_classes_and_the_floor() -> None:
    axes = drawn(ROWS)
    lines = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]
    assert lines[0] == ([100, 1000, 10_000], pytest.approx([1.1, 1.0, 1.0]))
    assert lines[1] == ([100, 1000], pytest.approx([0.2, 2.0]))  # left out above
    assert lines[2] == ([100, 1000, 10_000], pytest.approx([0.1, 0.1, 0.1]))
    assert axes.lines[2].get_linestyle() == "--"
    assert set(names(axes)) == {"exact", "dense", "floor"}
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_other_sizes_that_vary_stand_in_the_names() -> None:
    rows = [*ROWS, row("exact", 100, 2e-3, targets_per_example=5), row("exact", 1000, 2e-3, targets_per_example=5)]
    axes = drawn(rows)
    assert set(names(axes)) == {"exact, K = 1", "dense, K = 1", "exact, K = 5", "floor"}
    exact = [line for line in axes.lines if line.get_color() == "red"]
    assert len({line.get_linestyle() for line in exact}) == 2


def test_names_stand_in_the_order_of_the_lines_ends() -> None:
    axes = drawn(ROWS)
    assert names(axes) == ["dense", "exact", "floor"]
    assert names(drawn([*ROWS, row("sampled", 100, 5e-3)]))[0] == "sampled"


def test_files(tmp_path: Path) -> None:
    write_timings(ROWS, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    write_timings(ROWS, tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text()
    assert "left out" in page
    assert "exact goes from 1.1 to 1" in page
    with pytest.raises(ValueError, match=r"\.png or \.html"):
        write_timings(ROWS, tmp_path / "a.pdf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "a.png"]
