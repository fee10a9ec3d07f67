"""``widehead bench output-layer``: one exact step beside one dense step, in the same run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from widehead.bench.methods import METHODS
from widehead.cli.console import show_json, show_table, working
from widehead.cli.options import DeviceOption, JsonOption, check_device, whole_numbers

__all__ = ["bench"]

bench = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Measure speed, method beside method.")


@bench.callback()
def _bench() -> None:
    """Makes typer keep ``output-layer`` as a command of its own."""


@bench.command("output-layer")
def output_layer(
    classes: Annotated[
        tuple,  # type: ignore[type-arg]
        typer.Option("--classes", parser=whole_numbers, metavar="N,N,…", help="Numbers of classes D, in turn."),
    ] = "100000",  # type: ignore[assignment]
    width: Annotated[int, typer.Option("--width", min=1, help="Width d of the hidden layer.")] = 256,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Examples m in a step.")] = 128,
    targets: Annotated[int, typer.Option("--targets", min=1, help="Targets K of an example.")] = 1,
    methods: Annotated[
        str, typer.Option("--methods", help=f"Which to time, separated by commas: {', '.join(METHODS)}.")
    ] = "exact,dense",
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Turns that each method gets.")] = 5,
    out: Annotated[
        Path | None, typer.Option("--out", help="Also append the rows to this file, one JSON object a line.")
    ] = None,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Time one training step of an output layer: loss, gradient to the encoder, update of all D × d weights.

    Methods take turns in one process; figures are medians. The floor is 14·d²·m floating-point operations at the rate
    of a plain float32 matrix product measured in the same run.

    **Example**

        widehead bench output-layer --classes 793471 --width 300 --batch 128
    """
    from widehead.bench import compare_step

    check_device(device)
    rows: list[dict[str, Any]] = []
    for number in classes:
        with working(f"Timing {number:,} classes"):
            names = [name.strip() for name in methods.split(",")]
            rows += compare_step(number, width, batch, targets, methods=names, rounds=rounds, device=device)
    if out is not None:
        with out.open("a", encoding="utf-8") as lines:
            lines.writelines(json.dumps(row) + "\n" for row in rows)
    show_json({"rows": rows}) if as_json else _show(rows)


def _show(rows: list[dict[str, Any]]) -> None:
    first = rows[0]
    title = (
        f"One training step: width {first['width']}, batch {first['batch']}, {first['targets_per_example']} target(s) "
        f"an example; {first['device']}, {first['threads']} thread(s)"
    )
    header = [
        "classes",
        "method",
        "milliseconds",
        "times faster than dense",
        "than full softmax",
        "times exact SGD",
        "times the floor",
    ]
    show_table(title, header, [_cells(row) for row in rows])


def _cells(row: dict[str, Any]) -> list[str]:
    dense, full, slower = row["ratio_to_dense"], row["ratio_to_full"], row["ratio_to_exact"]
    return [
        f"{row['classes']:,}",
        row["method"],
        f"{1e3 * row['seconds']:,.2f}",
        "–" if dense is None else f"{dense:,.1f}",
        "–" if full is None else f"{full:,.1f}",
        "–" if slower is None else f"{slower:,.2f}",
        f"{row['ratio_to_floor']:,.1f}",
    ]
