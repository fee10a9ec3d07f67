"""What a run tells: metrics.jsonl for programs, a progress bar or plain lines on standard error for people."""

import importlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from widehead.errors import CheckpointError
from widehead.progress import heard_by
from widehead.training.folder import atomic_write

_MOMENT = 0.3  # seconds: work that takes less is not worth a line
_KINDS = ("train", "evaluation", "joined", "final")


class MetricsLog:
    """metrics.jsonl, one JSON object a line, each in the file as soon as it is written.

    Every object has "kind", "step", "epoch" (a fraction while it runs), "seconds" (of training, evaluations and
    checkpoints left out) and "preparation" (those of them that first weights made from the data took). Kind "train"
    adds "loss" (mean since the last such line), "examples_per_second", "head_share" (part of the time that the head
    took: forward, backward and step), "head_lr", "encoder_lr" and the monitors of the head and of its optimiser, by
    their names (see `Head.monitors`, `HeadOptimizer.monitors`). Kind "evaluation" adds one key a metric of the network,
    and kind "final", after training, one a metric of the network with what ranks beside it, neighbours or a direct
    term. Kind "joined" adds "examples": so many a pass has from there on, with those that were held out to choose by. A
    number that is not finite is written as null.

    Args:
        path: None if another process writes the log; then nothing happens here.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one line; CheckpointError if the file cannot be written."""
        if self.path is None:
            return
        line = json.dumps({name: _finite(value) for name, value in record.items()})
        try:
            with open(self.path, "a", encoding="utf-8", opener=_own) as file:
                file.write(line + "\n")
        except OSError as error:
            raise CheckpointError(f"{self.path} could not be written: {error.strerror or error}.") from error

    def cut(self, step: int, joined: bool = False) -> None:
        """Leave out every line past ``step`` or of kind "final", and a last one that a kill cut short.

        So is one of kind "joined" unless a checkpoint knows of it: the run says so again.
        """
        if self.path is None or not self.path.exists():
            return
        again = ("final",) if joined else ("final", "joined")
        kept = [r for r in read_metrics(self.path) if r["step"] <= step and r["kind"] not in again]
        with atomic_write(self.path) as file:
            file.write("".join(json.dumps(record) + "\n" for record in kept).encode())


def _own(path: str, flags: int) -> int:
    """Opens a file, but not through a link."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Every whole line of a metrics.jsonl, in order; none if there is no such file.

    Raises:
        CheckpointError: a line other than the last one is not what ``MetricsLog`` writes; says which.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    records = []
    # What follows the last line break is nothing, or a line that a kill cut short.
    for number, line in enumerate(lines[:-1], start=1):
        try:
            records.append(_record(json.loads(line)))
        except (RecursionError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path}, line {number}, should be a JSON object of numbers with kind, step, epoch and seconds. "
                f"Found {line[:60]!r}."
            ) from error
    return records


def _record(found: Any) -> dict[str, Any]:
    """The object of a line; ValueError or TypeError if it is none of ours."""
    numbers = {k: v for k, v in found.items() if k != "kind"} if isinstance(found, dict) else {}
    where = [numbers.get(name) for name in ("step", "epoch", "seconds")]
    if not numbers or found.get("kind") not in _KINDS or None in where:
        raise ValueError("not a record")
    if not isinstance(numbers["step"], int) or not all(isinstance(v, int | float | None) for v in numbers.values()):
        raise TypeError("not a number")
    return dict(found)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Status:
    """Where training stands: ``done`` of it, from 0 to 1, and the figures of the last moments."""

    done: float
    step: int
    loss: float
    examples_per_second: float
    head_share: float
    seconds_left: float

    def __str__(self) -> str:
        return (
            f"step {self.step:,} | loss {self.loss:.4g} | {self.examples_per_second:,.0f} examples/s | "
            f"head {self.head_share:.0%} | {_duration(self.seconds_left)} left"
        )


@dataclass(frozen=True)
class Task:
    """Where other work of a run stands: ``done`` of it, and how long the rest takes if it goes on as it did."""

    what: str
    done: float
    seconds_left: float

    def __str__(self) -> str:
        return f"{self.what} | {_duration(self.seconds_left)} left"


class Display:
    """Shows a run to people; this one shows nothing. ``update`` is cheap enough to be called a few times a second."""

    clock: Callable[[], float] = staticmethod(time.monotonic)
    _what, _began = "", 0.0

    def update(self, status: Status | Task) -> None:
        """Show where training stands, or other work."""

    def hear(self, what: str, done: float) -> None:
        """Show where other work stands, as `widehead.progress` tells it; its time left is told by its own time."""
        now = self.clock()
        if what != self._what or done == 0.0:
            self._what, self._began = what, now
        self.update(Task(what, done, (now - self._began) * (1.0 - done) / done if done > 0.0 else math.inf))

    def say(self, text: str) -> None:
        """Show one line that stays."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class PlainDisplay(Display):
    """Lines of plain text, at most one every ``seconds`` besides those that are said, and the first of other work."""

    def __init__(self, stream: TextIO, seconds: float = 10.0) -> None:
        self.stream = stream
        self.seconds = seconds
        self._last, self._shown_of = self.clock(), ""

    def update(self, status: Status | Task) -> None:
        """A line, if the last one was long enough ago, or if it is of other work and the last one was not just now."""
        what = status.what if isinstance(status, Task) else ""
        wait = min(self.seconds, _MOMENT) if what and what != self._shown_of else self.seconds
        if self.clock() - self._last >= wait:
            self._shown_of = what
            self.say(f"{status.done:4.0%} | {status}")

    def say(self, text: str) -> None:
        """A line."""
        print(text, file=self.stream, flush=True)
        self._last = self.clock()


class BarDisplay(Display):
    """A progress bar that redraws itself, with lines that stay above it."""

    def __init__(self, stream: TextIO) -> None:
        columns = (BarColumn(bar_width=24), TaskProgressColumn(), TextColumn("{task.description}"))
        self._progress = Progress(*columns, console=Console(file=stream), refresh_per_second=5)
        self._task = self._progress.add_task("starting", total=1.0)
        self._progress.start()

    def update(self, status: Status | Task) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=status.done, description=str(status))

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._progress.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        """Stop redrawing."""
        self._progress.stop()


class NotebookDisplay(PlainDisplay):
    """A line with a bar in the output of a notebook's cell, which is written anew; lines that are said stay there."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream, seconds=0.5)
        self._line = importlib.import_module("IPython.display").DisplayHandle()
        self._shown = False

    def update(self, status: Status | Task) -> None:
        """The line anew, if the last one was long enough ago."""
        if self.clock() - self._last < self.seconds and self._shown and status.done < 1.0:
            return
        full = round(24 * status.done)
        text = {"text/plain": f"{'█' * full}{'░' * (24 - full)} {status.done:4.0%} | {status}"}
        self._line.update(text, raw=True) if self._shown else self._line.display(text, raw=True)
        self._shown, self._last = True, self.clock()


def display_for(quiet: bool) -> Display:
    """Nothing if ``quiet``, a bar if standard error is a terminal or in a notebook, plain lines elsewhere."""
    if quiet:
        return Display()
    if _in_notebook():
        return NotebookDisplay(sys.stderr)
    return BarDisplay(sys.stderr) if sys.stderr.isatty() else PlainDisplay(sys.stderr)


@contextmanager
def showing(quiet: bool) -> Iterator[None]:
    """Show meanwhile what work tells, unless ``quiet``."""
    display = display_for(quiet)
    try:
        with heard_by(display.hear):
            yield
    finally:
        display.close()


def _in_notebook() -> bool:
    """Whether IPython runs this for a notebook, also one of Colab's, whose shell is derived from Jupyter's."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return any(kind.__name__ == "ZMQInteractiveShell" for kind in type(shell).__mro__)


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
