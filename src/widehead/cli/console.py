"""How commands talk: results on standard output, everything else on standard error."""

import json
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

# C0, delete and C1; ends of lines and paragraphs; signs of direction.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def show_json(result: Mapping[str, Any]) -> None:
    """One JSON object on standard output; numbers that are not finite become null."""
    print(json.dumps(_finite(result), allow_nan=False))


def show_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output; columns after the first are right-aligned if they hold figures."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", title_style="bold")
    for column, name in enumerate(header):
        figures = column > 0 and all(row[column][:1].isdigit() or row[column] == "–" for row in rows)
        table.add_column(name, justify="right" if figures else "left")
    for row in rows:
        table.add_row(*(shown(cell, sys.stdout) for cell in row))
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:  # a file or a program, which no line is too long for
        console.width = 10_000
    console.print(table)


def show_metrics(metrics: Mapping[str, float]) -> None:
    """A table of metrics."""
    from widehead.report.tables import number

    show_table("", ["metric", "value"], [[name, number(value)] for name, value in metrics.items()])


def say(text: str) -> None:
    """One line on standard error."""
    print(shown(text, sys.stderr), file=sys.stderr, flush=True)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Something that turns on a terminal's standard error while there is nothing else to see."""
    from rich.console import Console

    console = Console(stderr=True, markup=False, highlight=False)
    if not console.is_terminal:
        yield
        return
    with console.status(what):
        yield


def shown(text: str, stream: TextIO) -> str:
    """Text from data for a stream: as it is, but for a terminal `printable`."""
    return printable(text) if stream.isatty() else text


def printable(text: str) -> str:
    """Text without what a terminal could take for a command, an end of the line or a change of the direction.

    >>> printable("a\\x1b[31mb")
    'a�[31mb'
    """
    return _CONTROLS.sub("\ufffd", text)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, list | tuple) else value
