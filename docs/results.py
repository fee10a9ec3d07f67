"""Makes docs/results.md out of the stored results: python docs/results.py. A test holds the page to what this makes.

A claim is one section of the page: its setting, its command, its figures and where the raw results are. The claims are
listed in claims/; here is how they are read and written. README has five of the figures, in the table that
`readme_table` makes.
"""

from __future__ import annotations

import json
import re
import statistics
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

__all__ = ["Claim", "Column", "Headline", "Pivot", "Table", "median", "number", "page", "readme_table", "value_of"]

PROJECT = Path(__file__).resolve().parents[1]
Row = dict[str, Any]

# Dates of commits, for rows that were stored before rows had dates.
DATES = {
    **dict.fromkeys(("25f9894", "a05f0dd"), "2026-11-22"),
    **dict.fromkeys(("6f5d8f4", "d05e0fc", "d5f562c", "983fc72", "e7ead94", "efa98f7", "f9adfae"), "2026-11-22"),
    **dict.fromkeys(
        ("09f9b98", "1d20176", "27239b3", "40b3f26", "58dd0cc", "760dfe0", "8841ad0", "b66be76"), "2026-11-23"
    ),
}


@dataclass(frozen=True)
class Column:
    """A column: its heading, the key of its figure in a row ("a.b" for b within a), a factor and a format.

    A list counts as the number of its entries.
    """

    heading: str
    key: str
    factor: float | None = None
    form: str = ""
    suffix: str = ""

    def of(self, row: Row) -> str:
        found = value_of(row, self.key)
        if isinstance(found, list):
            return str(len(found))
        return (
            ""
            if found is None
            else number(found if self.factor is None else found * self.factor, self.form) + self.suffix
        )


@dataclass(frozen=True)
class Table:
    """Rows of one file with ``match``'s values (a tuple: one of these; ...: any but null), one line each."""

    file: str
    columns: tuple[Column, ...]
    match: dict[str, Any]

    def lines(self) -> Iterator[str]:
        yield from table([column.heading for column in self.columns], [self.line(row) for row in self.rows()])

    def line(self, row: Row) -> list[str]:
        return [column.of(row) for column in self.columns]

    def rows(self) -> list[Row]:
        found = [row for row in rows_of(self.file) if matches(row, self.match)]
        if not found:
            raise ValueError(f"{self.file} should have rows with {self.match}. Found none.")
        return found


@dataclass(frozen=True)
class Pivot:
    """The same rows as a table with two sides: a line for each value of ``down``, a column for each of ``across``."""

    file: str
    down: Column
    across: Column
    figure: Column
    match: dict[str, Any]

    def lines(self) -> Iterator[str]:
        cells: dict[str, dict[str, str]] = {}
        for row in sorted(self.rows(), key=self.place):
            cells.setdefault(self.down.of(row), {})[self.across.of(row)] = self.figure.of(row)
        across = list(dict.fromkeys(column for line in cells.values() for column in line))
        lines = [[name, *(line.get(column, "") for column in across)] for name, line in cells.items()]
        yield from table([self.down.heading, *(f"{self.across.heading} {column}" for column in across)], lines)

    def place(self, row: Row) -> Any:
        """Lines by size if they are sizes, else as they were stored."""
        return 0 if self.down.factor is None else value_of(row, self.down.key)

    def rows(self) -> list[Row]:
        return Table(self.file, (), self.match).rows()


@dataclass(frozen=True)
class Claim:
    """A section of the page.

    Attributes:
        title: what is claimed. setting: sizes, data and what stands beside it, in sentences.
        command: what makes the figures again, "" if it was not kept.
        shown: the tables of raw results, none if they were not stored.
        noted: for figures that have no raw result: the figures, and where they were noted.
        says: a sentence made from the rows of the first table.
    """

    title: str
    setting: str
    command: str
    shown: tuple[Table | Pivot, ...] = ()
    noted: str = ""
    says: Callable[[list[Row]], str] | None = None

    def lines(self) -> Iterator[str]:
        yield from (f"### {self.title}", "", *paragraph(self.setting), *fenced(self.command))
        if self.says is not None:
            yield from paragraph(self.says(self.shown[0].rows()))
        for shown in self.shown:
            yield from (*shown.lines(), "", *paragraph(provenance(shown.file, shown.rows())))
        if self.noted:
            yield from paragraph(self.noted)


@dataclass(frozen=True)
class Headline:
    """A figure of README: what it is, one number made from the first table of a claim."""

    what: str
    claim: Claim
    figure: Callable[[list[Row]], str]


def value_of(row: Row, key: str) -> Any:
    for part in key.split("."):
        row = row.get(part) if isinstance(row, dict) else None  # type: ignore[assignment]
    return row


def matches(row: Row, match: dict[str, Any]) -> bool:
    return all(fits(value_of(row, key), wanted) for key, wanted in match.items())


def fits(found: Any, wanted: Any) -> bool:
    if wanted is ...:
        return found is not None
    return bool(found in wanted if isinstance(wanted, tuple) else found == wanted)


def rows_of(file: str) -> list[Row]:
    """The rows of a file, each with its number from 1 ("line"); a row's "runs" become rows of their own."""
    lines = (PROJECT / file).read_text(encoding="utf-8").splitlines()
    read = json.loads if file.endswith(".jsonl") else errors_of_a_loss
    found = [{"line": number, **read(line)} for number, line in enumerate(lines, start=1) if line]
    return [{**row, **run} for row in found for run in row.get("runs", [{}])]


def errors_of_a_loss(line: str) -> Row:
    """A line of exactness-5000-steps.txt: "name, torch.type: W error, loss error, gradient error"."""
    name, kind, *errors = re.fullmatch(r"(.*), torch\.(\w+): W (\S+), loss (\S+), gradient (\S+)", line).groups()  # type: ignore[union-attr]
    return {
        "loss": name,
        "type": kind,
        **dict(zip(("of W", "of loss", "of gradient"), map(float, errors), strict=True)),
    }


def number(value: Any, form: str) -> str:
    """2.0e-6 for 2.0e-06."""
    return re.sub(r"e-0(?=\d)", "e-", format(value, form))


def table(headings: list[str], lines: list[list[str]]) -> Iterator[str]:
    yield "| " + " | ".join(headings) + " |"
    yield "|" + "---|" * len(headings)
    yield from ("| " + " | ".join(line) + " |" for line in lines)


def paragraph(text: str) -> list[str]:
    return [*textwrap.wrap(text, 120, break_long_words=False, break_on_hyphens=False), ""]


def fenced(command: str) -> tuple[str, ...]:
    return ("```", command, "```", "") if command else ()


def provenance(file: str, rows: list[Row]) -> str:
    numbers = sorted({row["line"] for row in rows})
    lines = f"line {spans(numbers)}" if len(numbers) == 1 else f"lines {spans(numbers)}"
    commits = sorted({row["commit"][:7] for row in rows if row.get("commit")})
    changed = {row["commit"][:7] for row in rows if row.get("commit", "").endswith("-dirty")}
    dates = sorted({date_of(row) for row in rows if row.get("commit")})
    threads = " and ".join(dict.fromkeys(str(row["threads"]) for row in rows if "threads" in row))
    machine = f" {rows[0]['device']}, threads: {threads}." if "device" in rows[0] else ""
    names = ", ".join(commit + (" with changes" if commit in changed else "") for commit in commits)
    when = f"{', '.join(dates)}, commit {names}" if commits else "Date and commit not stored in the rows"
    return f"`{file}`, {lines}. {when}.{machine}"


def spans(numbers: list[int]) -> str:
    """1, 2, 3, 7 as 1–3, 7."""
    runs = ([n for _, n in run] for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]))
    return ", ".join(f"{run[0]}" if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)


def date_of(row: Row) -> str:
    return str(row["date"])[:10] if "date" in row else DATES[row["commit"][:7]]


def page() -> str:
    from claims import INTRODUCTION, PARTS

    lines = [line for text in INTRODUCTION for line in paragraph(text)]
    for part, claims in PARTS.items():
        lines += [f"## {part}", "", *(line for claim in claims for line in claim.lines())]
    return "\n".join(lines).rstrip() + "\n"


def readme_table() -> str:
    """The five rows of README: what, one figure, the command that proves it."""
    from claims import HEADLINES

    lines = [[h.what, h.figure(h.claim.shown[0].rows()), f"`{h.claim.command.splitlines()[0]}`"] for h in HEADLINES]
    return "\n".join(table(["what", "figure", "command"], lines))


def median(rows: list[Row], key: str, form: str) -> str:
    return number(statistics.median(value_of(row, key) for row in rows), form)


if __name__ == "__main__":
    (PROJECT / "docs" / "results.md").write_text(page(), encoding="utf-8")
    print(readme_table())
