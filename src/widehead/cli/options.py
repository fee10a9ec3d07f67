"""Options that several commands share."""

import os
import sys
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


def _use_threads(wanted: int | None) -> None:
    """Before torch and polars are imported, as they ask once; torch can be told later too."""
    if wanted is not None:
        os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"), str(wanted))
        if (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(wanted)


ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads", min=1, max=1024, callback=_use_threads, help="Threads that compute.", show_default="one a core"
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
    if device == "cpu":
        return device
    from widehead.devices import resolved, usable

    if device == "auto":
        device = resolved(device)
        say(f"Device: {device}.")
    if device != "cpu" and not usable(device):
        raise typer.BadParameter(f"this machine has no usable device {device!r}", param_hint="--device")
    return device
