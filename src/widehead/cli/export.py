"""``widehead export RUN --format F``: the weights of a run in a form that other programs read."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from widehead.cli.console import show_json, working
from widehead.cli.options import BestOption, JsonOption, RunArgument


def export(
    run: RunArgument,
    to: Annotated[
        Literal["torch", "safetensors", "word2vec", "faiss"],
        typer.Option("--format", help="What to write.", show_default=False),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="File to write.", show_default="named after the run")
    ] = None,
    best: BestOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the weights of a run for other programs.

    - torch: a state_dict of the encoder and of the output layer as an nn.Linear; torch.load(weights_only=True) reads it

    - safetensors: the same, with the classes' names

    - word2vec: text that gensim reads, a name and its vector on each line

    - faiss: an index of the output layer's rows by inner product; needs the package faiss-cpu

    **Example**

        widehead export runs/words --format word2vec --output words.txt
    """
    from widehead.runs import Run

    with working(f"Exporting {run}"):
        path = Run.open(run, best=best).export(to, output)
    size = path.stat().st_size
    if as_json:
        show_json({"format": to, "output": str(path), "bytes": size})
    else:
        print(f"{path}: {size:,} bytes, {to}")
