"""``widehead predict RUN --input FILE``: the best classes for each line of a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from widehead.cli.console import printable, show_json, working
from widehead.cli.files import input_file
from widehead.cli.options import BestOption, DeviceOption, JsonOption, RunArgument, check_device

if TYPE_CHECKING:
    from widehead.training import Prediction, Run

__all__ = ["predict"]


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

    What a line holds: a user and items, "user item item …" (recommender); a word or phrase (demo); text, of which the
    last words count (language model, word embeddings); text, or a row of features in the training file's format
    (multi-label).

    **Examples**

        widehead predict runs/shop --input users.txt --top 10

        echo ocean | widehead predict runs/demo --input -
    """
    from widehead.training import load_run

    check_device(device)
    with working(f"Reading {run}"):
        loaded = load_run(run, best=best, device=device)
    with input_file(inputs) as path:
        predictions = _predictions(loaded, path, top)
        if as_json:
            show_json({"predictions": [vars(prediction) for prediction in predictions]})
            return
        for prediction in predictions:
            print(f"{printable(prediction.name)}: {printable(', '.join(prediction.classes))}")


def _predictions(run: Run, path: Path, top: int) -> Iterator[Prediction]:
    if run.config.job == "demo":
        from widehead.cli.thesaurus import suggest_for_lines

        return suggest_for_lines(run, path, top)
    return run.predict(path, top)
