"""``widehead predict RUN --input FILE``: the best classes for each line of a file."""

from pathlib import Path
from typing import Annotated

import typer

from widehead.cli.console import printable, show_json, working
from widehead.cli.files import input_file
from widehead.cli.options import BestOption, DeviceOption, JsonOption, RunArgument, check_device


def predict(
    run: RunArgument,
    inputs: Annotated[
        Path,
        typer.Option("--input", metavar="FILE", help='File of inputs; "-" reads standard input.', show_default=False),
    ],
    top: Annotated[int, typer.Option("--top", min=1, help="How many classes for each input.")] = 10,
    best: BestOption = False,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Predict for each line of a file.

    What a line holds depends on the job; `widehead train JOB --help` says it. The demo takes a word or phrase.

    **Examples**

        widehead predict runs/shop --input users.txt --top 10

        echo ocean | widehead predict runs/demo --input -
    """
    from widehead.runs import Run

    check_device(device)
    with input_file(inputs) as path:
        with working(f"Reading {run}"):
            predictions = Run.open(run, best=best, device=device).predict(path, top)
        if as_json:
            show_json({"predictions": [vars(prediction) for prediction in predictions]})
            return
        for prediction in predictions:
            print(f"{printable(prediction.name)}: {printable(', '.join(prediction.classes))}")
