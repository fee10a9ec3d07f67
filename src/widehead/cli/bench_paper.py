"""``widehead bench paper-table``: the speed-ups that the method was published with, beside those measured here."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from widehead.cli.console import show_json, show_table, working
from widehead.cli.files import appending
from widehead.cli.options import DeviceOption, JsonOption, OutOption, check_device

__all__ = ["paper_table_command"]


def paper_table_command(
    classes: Annotated[int, typer.Option("--classes", min=1, help="Words D.")] = 793_471,
    width: Annotated[int, typer.Option("--width", min=1, help="Width d of both hidden layers.")] = 300,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Examples m in a step.")] = 128,
    embedding: Annotated[int, typer.Option("--embedding", min=1, help="Width of a word's embedding.")] = 100,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Turns that each method gets.")] = 3,
    out: OutOption = None,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Time the language model of the paper by Vincent, de Brébisson and Bouthillier, exact and as plain PyTorch.

    Nine words predict the tenth among 793,471, by two hidden layers of 300, in minibatches of 128: the output layer
    alone, and the whole model. Published speed-ups stand beside those measured. It takes about 6 GB of memory.

    **Example**

        widehead bench paper-table
    """
    from widehead.bench import paper_table
    from widehead.bench.paper import PaperSizes

    check_device(device)
    sizes = PaperSizes(classes=classes, width=width, batch=batch, embedding=embedding)
    with appending(out) as append:
        with working(f"Timing {classes:,} words"):
            rows = paper_table(sizes, rounds=rounds, device=device)
        for row in rows:
            append(row)
    show_json({"rows": rows}) if as_json else _show(rows)


def _show(rows: list[dict[str, Any]]) -> None:
    first = rows[0]
    sizes = f"{first['classes']:,} words, width {first['width']}, batch {first['batch']}"
    header = ["training step of", "dense PyTorch, ms", "exact, ms", "times faster", "published, CPU"]
    title = f"{sizes}; {first['device']}, {first['threads']} thread(s)"
    show_table(title, header, [_cells(row) for row in rows])
    for source in dict.fromkeys(fact["source"] for row in rows for fact in row["published"]):
        print(f"Published: {source}.")


def _cells(row: dict[str, Any]) -> list[str]:
    published = [f"{fact['speedup']:,.0f}" for fact in row["published"] if fact["device"] == "cpu"]
    return [
        row["part"],
        f"{1e3 * row['dense_seconds']:,.1f}",
        f"{1e3 * row['exact_seconds']:,.2f}",
        f"{row['speedup']:,.0f}",
        published[0] if published else "–",
    ]
