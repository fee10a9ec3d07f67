"""``widehead export RUN --format F``: the weights of a run in a form that other programs read."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from widehead.cli.console import show_json, working
from widehead.cli.options import BestOption, JsonOption, RunArgument


def export(
    run: RunArgument,
    to: Annotated[
        Literal["torch", "safetensors", "word2vec", "faiss", "onnx"],
        typer.Option("--format", help="What to write.", show_default=False),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="File to write.", show_default="named after the run")
    ] = None,
    index: Annotated[
        Literal["flat", "ivf", "hnsw"], typer.Option("--index", help="faiss: look at all classes, or at some.")
    ] = "flat",
    recall: Annotated[float, typer.Option("--recall", help="faiss: recall@10 that ivf or hnsw should reach.")] = 0.95,
    top: Annotated[int, typer.Option("--top", min=1, help="onnx: how many classes the model names.")] = 10,
    best: BestOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the weights of a run for other programs.

    - torch: a state_dict of the encoder and of the output layer as an nn.Linear; torch.load(weights_only=True) reads it

    - safetensors: the same, with the classes' names

    - word2vec: text that gensim reads, a name and its vector on each line

    - faiss: an index of the output layer's rows by inner product; needs the package faiss-cpu. What the indices ivf and
    hnsw find of the ten best classes is measured and printed

    - onnx: a model from inputs to the best classes, as predict ranks them; needs the extra onnx

    **Example**

        widehead export runs/words --format word2vec --output words.txt
    """
    from widehead.runs import Run

    opened = Run.open(run, best=best)
    with working(f"Exporting {run}"):
        path = opened.export(to, output, index=index, recall=recall, top=top)
    size = path.stat().st_size
    made = None if index == "flat" else opened.index(index, recall)
    if as_json:
        show_json({"format": to, "output": str(path), "bytes": size, **({} if made is None else made.figures)})
    else:
        print(f"{path}: {size:,} bytes, {to}" + ("" if made is None else f". {made}"))
