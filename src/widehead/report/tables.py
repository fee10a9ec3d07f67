"""Tables of a report and how numbers are written in them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Table:
    """A table with a heading. Cells are plain text; the page escapes them.

    Args:
        header: names of the columns.
        rows: cells, as many in each row as there are columns.
        note: a sentence below the heading, or "".
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"A row should have {len(self.header)} cells. Found {list(row)}.")


def comparison(rows: Mapping[str, Mapping[str, Any]]) -> Table:
    """Metrics of several models, one row each: {"this run": {"recall@20": 0.2}, "popularity": …}."""
    names = list(dict.fromkeys(name for metrics in rows.values() for name in metrics))
    cells = [[label, *(number(metrics.get(name)) for name in names)] for label, metrics in rows.items()]
    return Table("Metrics", ["", *names], cells)


def options_table(options: Mapping[str, Any]) -> Table:
    """Every option of a run and its value."""
    return Table("Configuration", ["option", "value"], [[name, _shown(value)] for name, value in options.items()])


def number(value: Any) -> str:
    """A number in four significant digits; "–" if there is none.

    >>> number(0.123456), number(1234567.0), number(3), number(None)
    ('0.1235', '1,234,567', '3', '–')
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def duration(seconds: float) -> str:
    """A time for people.

    >>> duration(7.25), duration(75), duration(3700)
    ('7.2 seconds', '1 min 15 s', '1 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} seconds"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} = {v}" for k, v in value.items()) or "–"
    if isinstance(value, list | tuple):
        return ", ".join(str(v) for v in value) or "–"
    return str(value)
