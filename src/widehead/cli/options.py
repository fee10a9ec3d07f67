"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from widehead.cli.completion import one_of, run_folders
from widehead.cli.console import say

RunArgument = Annotated[
    Path, typer.Argument(metavar="RUN", help="Run folder, as `train` or `demo` left it.", autocompletion=run_folders)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, nothing else.")]
BestOption = Annotated[
    bool, typer.Option("--best", help="The best checkpoint (train --keep-best) instead of the last.")
]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="Also append the rows to this file, one JSON object a line.")
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device", help="cpu, cuda, cuda:N, or auto: cuda if usable.", autocompletion=one_of(("cpu", "cuda", "auto"))
    ),
]


def whole_numbers(text: str) -> tuple[int, ...]:
    """Read "512,256"; the empty text is no number.

    >>> whole_numbers("512, 256"), whole_numbers("")
    ((512, 256), ())
    """
    try:
        return tuple(int(part) for part in text.split(",")) if text.strip() else ()
    except ValueError as error:
        raise typer.BadParameter(f"expected whole numbers with commas between them. Found {text!r}") from error


def usable_device(device: str) -> str:
    """The device to take, named if "auto" chose it; one that this machine lacks is refused before anything is read."""
    from widehead.devices import resolved, usable

    if device == "auto":
        device = resolved(device)
        say(f"Device: {device}.")
    if device != "cpu" and not usable(device):
        raise typer.BadParameter(f"this machine has no usable device {device!r}", param_hint="--device")
    return device
