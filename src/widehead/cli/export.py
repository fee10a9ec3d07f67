"""``widehead export RUN --format F``: the weights of a run in a form that other programs read."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from widehead.cli.console import show_json, working
from widehead.cli.files import output_file
from widehead.cli.options import BestOption, JsonOption, RunArgument

__all__ = ["Format", "export"]


class Format(StrEnum):
    """Formats, by what the option says."""

    torch = "torch"
    safetensors = "safetensors"
    word2vec = "word2vec"
    faiss = "faiss"


_ENDINGS = {"torch": ".pt", "safetensors": ".safetensors", "word2vec": ".txt", "faiss": ".faiss"}


def export(
    run: RunArgument,
    to: Annotated[Format, typer.Option("--format", help="What to write.", show_default=False)],
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
    from widehead.cli.formats import WRITERS, check_packages
    from widehead.training import load_run

    check_packages(to.value)
    path = output if output is not None else Path(run.absolute().name + _ENDINGS[to.value])
    with working(f"Reading {run}"):
        loaded = load_run(run, best=best)
    with output_file(path) as temporary, working(f"Writing {path}"):
        WRITERS[to.value](loaded, temporary)
    size = path.stat().st_size
    if as_json:
        show_json({"format": to.value, "output": str(path), "bytes": size})
    else:
        print(f"{path}: {size:,} bytes, {to.value}")
