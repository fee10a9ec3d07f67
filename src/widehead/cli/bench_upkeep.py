"""``widehead bench upkeep``: a long run of the exact head, with the time that its upkeep takes and its pauses."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from widehead.cli.console import show_json, show_table, working
from widehead.cli.files import appending
from widehead.cli.options import DeviceOption, JsonOption, OutOption, check_device

__all__ = ["upkeep_command"]


def upkeep_command(
    classes: Annotated[int, typer.Option("--classes", min=1, help="Number of classes D.")] = 1_000_000,
    width: Annotated[int, typer.Option("--width", min=1, help="Width d of the hidden layer.")] = 64,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Examples m in a step.")] = 128,
    per_example: Annotated[int, typer.Option("--targets", min=1, help="Targets K of an example.")] = 1,
    distribution: Annotated[
        Literal["zipf", "uniform"], typer.Option("--target-distribution", help="How target classes are drawn.")
    ] = "zipf",
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps to make.")] = 20_000,
    optimizer: Annotated[Literal["sgd", "newton"], typer.Option("--optimizer", help="Optimiser of the head.")] = "sgd",
    curvature: Annotated[
        float | None,
        typer.Option("--curvature", help="lr of SGD, as a fraction of the largest stable one. [default: 0.5]"),
    ] = None,
    out: OutOption = None,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Train the exact head for many steps and say what its upkeep costs: closing segments and moving rows forward.

    Hidden layers are drawn to look like a trained encoder's: half of their square in one mean direction, the rest with
    a spectrum that decays as 1/i. Steps are timed one by one, and in them every call that does upkeep.

    **Example**

        widehead bench upkeep --optimizer newton --steps 5000
    """
    from widehead.bench import measure_upkeep

    check_device(device)
    with appending(out) as append:
        with working(f"Training {steps:,} steps"):
            row = measure_upkeep(
                classes,
                width,
                batch,
                per_example,
                steps=steps,
                optimizer=optimizer,
                curvature=curvature,
                targets=distribution,
                device=device,
            )
        append(row)
    show_json(row) if as_json else _show(row)


def _show(row: dict[str, Any]) -> None:
    title = (
        f"{row['steps']:,} steps of {row['optimizer']}, lr {row['lr']:.3g}: {row['classes']:,} classes, width "
        f"{row['width']}, batch {row['batch']}, {row['targets']} targets; {row['device']}, {row['threads']} thread(s)"
    )
    show_table(title, ["figure", "value"], _cells(row))


def _cells(row: dict[str, Any]) -> list[list[str]]:
    return [
        ["median step", f"{1e3 * row['seconds']:.3f} ms"],
        ["99th percentile", f"{row['p99_in_medians']:.2f} medians"],
        ["99.9th percentile", f"{row['p999_in_medians']:.2f} medians"],
        ["longest step", f"{row['max_in_medians']:.2f} medians"],
        ["segments closed", f"{row['closes_per_step']:.4f} a step"],
        ["rows moved", f"{row['rows_moved']:,}"],
        ["time in closing segments", f"{100 * row['closing_share']:.2f} %"],
        ["time in moving rows", f"{100 * row['moving_share']:.2f} %"],
        ["longest close", f"{1e3 * row['longest_close']:.2f} ms"],
        ["longest move of rows", f"{1e3 * row['longest_move']:.2f} ms"],
    ]
