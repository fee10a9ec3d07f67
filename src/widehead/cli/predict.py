"""``widehead predict RUN FILE``: the best classes for each line of a file."""

import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from widehead.cli.console import say, show_json, shown, working
from widehead.cli.files import input_file
from widehead.cli.options import BestOption, DeviceOption, JsonOption, RunArgument, ThreadsOption, usable_device


def predict(
    run: RunArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help='File of inputs; "-" reads standard input.')],
    top: Annotated[int, typer.Option("--top", min=1, help="How many classes for each input.")] = 10,
    best: BestOption = False,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict for each line of a file.

    What a line holds depends on the job; `widehead train JOB --help` says it. The demo takes a word or phrase.

    **Examples**

        widehead predict runs/shop users.txt --top 10

        echo ocean | widehead predict runs/demo -
    """
    from widehead.runs import Run

    device = usable_device(device)
    with input_file(file) as path:
        with working(f"Reading {run}"):
            predictions = Run.open(run, best=best, device=device).predict(path, top)
        answered = show_predictions("predictions", predictions, as_json)
    if answered[False]:
        say(
            f"widehead: {answered[False]:,} of {answered.total():,} inputs have no classes: nothing that they hold is "
            "known to the run, or no class is left to name."
        )


def show_predictions(what: str, predictions: Iterable[Any], as_json: bool) -> Counter[bool]:
    """A line for each, or one object with all of them as ``what``; how many have classes, and how many have none."""
    answered: Counter[bool] = Counter()
    objects = []
    for prediction in predictions:
        answered[bool(prediction.classes)] += 1
        if as_json:
            objects.append(vars(prediction))
        else:
            print(shown(f"{prediction.name}: {', '.join(prediction.classes)}", sys.stdout))
    if as_json:
        show_json({what: objects})
    return answered
