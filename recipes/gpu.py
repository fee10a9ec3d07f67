"""How fast the exact head is on a GPU: steps beside those of others, the best classes, and what was promised.

    python recipes/gpu.py OUT [--device cuda] [--seconds 560] [--tiny]

OUT/bench.jsonl gets each row as soon as it is measured, OUT/bench.log what is printed. Ends with an error if a promise
is not kept; one whose sizes do not fit the memory, or whose time did not come, is not judged.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TextIO

import torch

from widehead.bench import compare_step
from widehead.bench.measure import hardware, interleaved
from widehead.bench.memory import PeakMemory
from widehead.bench.provenance import provenance
from widehead.heads import ExactHead
from widehead.losses import SphericalSoftmax

PAPER, TEN_MILLION, WIDE, LARGEST = (793_471, 300, 128), (10**7, 300, 128), (10**7, 512, 4_096), (10**8, 64, 128)
#: D, d and m, those first that promises are about
SIZES = [PAPER, TEN_MILLION, WIDE, LARGEST, (10**5, 300, 128), (10**5, 300, 4_096), (793_471, 300, 4_096)]
SIZES += [(10**7, 300, 4_096)]
#: which methods take turns; what stands in one group is in memory together
GROUPS = [
    ("exact", "exact-captured", "dense"),
    ("exact-captured", "dense-tf32"),
    ("exact-captured", "sampled"),
    ("exact-captured", "retrieved"),
]
#: sizes, other method, how many times faster than it the captured step should be
FASTER = [(PAPER, "dense", 8), (PAPER, "dense-tf32", 3), (TEN_MILLION, "dense", 90), (TEN_MILLION, "dense-tf32", 40)]
_BEST, _READ = 10, 5.0  # the best classes should be found in so many readings of V

Sizes = tuple[int, int, int]
Rows = list[dict[str, Any]]


class Report:
    """Rows go to a file and lines to a log at once, so that a time limit loses nothing."""

    def __init__(self, lines: TextIO, log: TextIO) -> None:
        self.lines, self.log = lines, log
        self.rows: Rows = []

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        print(json.dumps(row), file=self.lines, flush=True)
        figures = {
            name: row.get(name) for name in ("seconds", "seconds_p99", "peak_bytes", "readings") if row.get(name)
        }
        self.say(
            f"{row['classes']:>11,} × {row['width']}, {row['batch']:>5}  {row['method']:15} {row['skipped'] or figures}"
        )

    def say(self, text: str) -> None:
        print(text, flush=True)
        print(text, file=self.log, flush=True)

    def seconds(self, sizes: Sizes, method: str, beside: str) -> float | None:
        """Median of a method, in the group in which ``beside`` took its turns."""
        groups = {row["group"] for row in self.of(sizes) if row["method"] == beside}
        found = [row["seconds"] for row in self.of(sizes) if row["method"] == method and row["group"] in groups]
        return found[0] if found else None

    def of(self, sizes: Sizes) -> Rows:
        return [row for row in self.rows if (row["classes"], row["width"], row["batch"]) == sizes]


def time_steps(report: Report, sizes: Sizes, group: tuple[str, ...], device: str) -> None:
    """A group's rows, or those that say why there are none."""
    try:
        rows = compare_step(*sizes, methods=group, rounds=3, device=device)
    except (ValueError, RuntimeError) as error:  # nothing fits, or the estimate of the memory was wrong
        rows = [row_of(sizes, method, device, skipped=str(error).splitlines()[0]) for method in group]
    for row in rows:
        report.add({**row, "group": "+".join(group)})
    free()


def row_of(sizes: Sizes, method: str, device: str, **found: Any) -> dict[str, Any]:
    """A row of what was found, or of why nothing was."""
    named = dict(zip(("classes", "width", "batch"), sizes, strict=True))
    return {**named, "method": method, **hardware(torch.device(device)), "skipped": None, "seconds": None, **found}


def free() -> None:
    gc.collect()
    torch.cuda.empty_cache()


def time_top_k(report: Report, sizes: Sizes, device: str) -> None:
    """The best classes of a batch, beside one reading of V."""
    try:
        found = top_k_figures(sizes, torch.device(device))
    except RuntimeError as error:
        found = {"skipped": str(error).splitlines()[0]}
    report.add(row_of(sizes, "top_k", device, group="top_k", **found, **provenance()))
    free()


def top_k_figures(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """Seconds, the same in readings of V, and the memory with W."""
    classes, width, batch = sizes
    with PeakMemory(device) as memory:
        head = ExactHead(width, classes, SphericalSoftmax(), device=device)
        hidden = torch.randn(batch, width, device=device)
        head.top_k(hidden, min(_BEST, classes))
    stored = head.weights.rows.stored
    turns: dict[str, Callable[[], object]] = {
        "top_k": lambda: head.top_k(hidden, min(_BEST, classes)),
        "reading": stored.sum,
    }
    turns["reading"]()
    seconds = {name: statistics.median(found) for name, found in interleaved(turns, 3, device).items()}
    ratio = seconds["top_k"] / seconds["reading"]
    return {"seconds": seconds["top_k"], "readings": ratio, "peak_bytes": memory.bytes}


def promises(report: Report) -> Iterable[tuple[str, float | None, bool]]:
    """What was promised, what was found or None, and whether it was kept."""
    for sizes, other, least in FASTER:
        theirs, ours = report.seconds(sizes, other, other), report.seconds(sizes, "exact-captured", other)
        ratio = theirs / ours if theirs is not None and ours is not None else None
        yield f"{sizes}: captured at least {least} times faster than {other}", ratio, (ratio or 0.0) >= least
    wide = report.seconds(WIDE, "exact-captured", "exact-captured")
    yield f"{WIDE}: a captured step in at most 2 ms", wide and 1e3 * wide, (wide or 1.0) <= 2e-3
    most = report.seconds(LARGEST, "exact", "exact")
    yield f"{LARGEST}: trains, milliseconds a step", most and 1e3 * most, most is not None
    for row in report.rows:
        if row["method"] == "top_k":
            name = f"top_k of {row['classes']:,} classes, {row['batch']} examples: within {_READ:.0f} readings of V"
            readings = row.get("readings")
            yield name, readings, readings is not None and readings <= _READ


def run(report: Report, sizes: list[Sizes], device: str, seconds: float) -> bool:
    """Measure until the time is over; whether no promise was broken."""
    end = time.monotonic() + seconds
    report.say(f"{hardware(torch.device(device))}")
    for each in sizes:
        for group in GROUPS:
            if time.monotonic() < end:
                time_steps(report, each, group, device)
    for classes, width in dict.fromkeys(each[:2] for each in sizes):
        for batch in (1, 128):
            if time.monotonic() < end:
                time_top_k(report, (classes, width, batch), device)
    kept = True
    for name, found, holds in promises(report):
        verdict = "not measured" if found is None else "pass" if holds else "FAIL"
        report.say(f"{verdict:12} {name}" + ("" if found is None else f": {found:.3g}"))
        kept &= found is None or holds
    return kept


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=560.0, help="after which nothing new is begun")
    parser.add_argument("--tiny", action="store_true", help="small sizes, for trying it out; no promise is judged")
    given = parser.parse_args()
    try:
        torch.ones(1, device=given.device)
    except (RuntimeError, AssertionError) as error:
        sys.exit(f"This needs a device {given.device} that torch can use. Found none: {str(error).splitlines()[0]}")
    given.out.mkdir(parents=True, exist_ok=True)
    with (given.out / "bench.jsonl").open("w") as lines, (given.out / "bench.log").open("w") as log:
        sizes = [(2_000, 16, 8), (5_000, 8, 16)] if given.tiny else SIZES
        kept = run(Report(lines, log), sizes, given.device, given.seconds)
    return 0 if kept or given.tiny else 1


if __name__ == "__main__":
    sys.exit(main())
