"""``widehead evaluate RUN``: metrics of a trained network on a file."""

from pathlib import Path
from typing import Annotated

import typer

from widehead.cli.console import show_json, show_metrics, working
from widehead.cli.options import (
    BestOption,
    DeviceOption,
    JsonOption,
    RunArgument,
    ThreadsOption,
    usable_device,
    whole_numbers,
)


def evaluate(
    run: RunArgument,
    test: Annotated[
        Path | None,
        typer.Option("--test", help="File to evaluate on.", metavar="FILE", show_default="the run's own test file"),
    ] = None,
    at: Annotated[
        tuple | None,  # type: ignore[type-arg]
        typer.Option("--at", parser=whole_numbers, metavar="N,N,…", help="Cutoffs.", show_default="those of the run"),
    ] = None,
    rank_at_most: Annotated[
        int | None, typer.Option("--rank-at-most", min=1, help="Rank a sample of so many examples.", show_default="all")
    ] = None,
    best: BestOption = False,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate a run on a file of held-out examples.

    **Examples**

        widehead evaluate runs/shop --test test.txt --at 20,50

        widehead evaluate runs/shop --json
    """
    from widehead.runs import Run

    device = usable_device(device)
    with working(f"Evaluating {run}"):
        metrics = Run.open(run, best=best, device=device).evaluate(test, at, rank_at_most)
    show_json(metrics) if as_json else show_metrics(metrics)
