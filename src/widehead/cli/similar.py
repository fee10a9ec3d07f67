"""``widehead similar RUN NAME …``: the classes nearest to some by their rows of the output layer."""

from typing import Annotated

import typer

from widehead.cli.console import working
from widehead.cli.options import BestOption, DeviceOption, JsonOption, RunArgument, ThreadsOption, usable_device
from widehead.cli.predict import show_predictions


def similar(
    run: RunArgument,
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Items, labels or words of the run.")],
    top: Annotated[int, typer.Option("--top", min=1, help="How many for each.")] = 10,
    best: BestOption = False,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Name the items, labels or words that are nearest to some.

    Near are those whose rows of the output layer point the same way: items that share their users, labels that share
    their documents, words that share their contexts.

    **Example**

        widehead similar runs/shop milk "rye bread" --top 5
    """
    from widehead.runs import Run

    device = usable_device(device)
    with working(f"Reading {run}"):
        found = Run.open(run, best=best, device=device).similar(names, top)
    show_predictions("similar", found, as_json)
