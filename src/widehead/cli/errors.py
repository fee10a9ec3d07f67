"""What users see when something is wrong: one line on standard error. This is the one place that decides it."""

import io
import os
import re
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import typer

from widehead.cli import torchrun
from widehead.cli.console import say
from widehead.errors import CheckpointError, DataError, NonFiniteError, ProcessesError, WideheadWarning

_BUG = _CUT_SHORT = 1
_BAD_INPUT, _INTERRUPTED = 2, 130


class Interrupted(Exception):
    """Ctrl-C was heard and everything is in order; the message says how to go on."""


def run_guarded(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code; bad input becomes one line, a bug of ours stays an exception."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a character that the terminal does not have is no reason to stop
            stream.reconfigure(errors="replace")
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            code = typer.main.get_command(app).main(list(arguments), prog_name="widehead", standalone_mode=False)
            sys.stdout.flush()
        except BrokenPipeError:  # as with ``widehead predict … | head``: whoever reads has seen enough
            _abandon_output()
            return _CUT_SHORT
        except Interrupted as error:
            return _end(str(error), _INTERRUPTED)
        except Exception as error:
            line = _line(error)
            if line is None:
                torchrun.ended(_BUG)
                raise
            _abandon_output()
            return _end(f"error: {line}", _BAD_INPUT)
    if code == _INTERRUPTED:  # what typer makes of a KeyboardInterrupt
        return _end("interrupted.", _INTERRUPTED)
    return code if isinstance(code, int) else 0


def _line(error: Exception) -> str | None:
    """The line for an error that is not our bug; None for a bug."""
    if isinstance(error, typer.TyperException):
        return f"{error.format_message().strip()} (see --help)"
    if isinstance(error, DataError | CheckpointError | NonFiniteError | ProcessesError):
        return str(error)
    if isinstance(error, OSError):
        return ": ".join(str(part) for part in (error.filename, error.strerror or error) if part)
    if _is_out_of_memory(error):
        return "there is not enough memory for a network of this size. Smaller --width, --hidden or --batch-size help."
    if isinstance(error, ImportError) and _raised_in_the_library(error):  # a package of an extra
        return str(error)
    if isinstance(error, ValueError) and _raised_in_the_library(error):
        return re.sub(r"Option `(\w+)`", lambda found: f"Option --{found[1].replace('_', '-')}", str(error))
    return None


def _raised_in_the_library(error: BaseException) -> bool:
    """Whether our own code raised it, as for options out of range; numpy's and torch's mean a bug of ours."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame is not None and str(frame.tb_frame.f_globals.get("__name__", "")).startswith("widehead.")


def _is_out_of_memory(error: Exception) -> bool:
    """Whether there is not enough memory; torch says so in several ways."""
    if isinstance(error, MemoryError):
        return True
    said = ("can't allocate memory", "out of memory", "Storage size calculation overflowed")
    return isinstance(error, RuntimeError) and any(text in str(error) for text in said)


def _end(text: str, code: int) -> int:
    """Say why the program ends; of several processes the first to end says it, and all end with its code."""
    is_first, code = torchrun.ended(code)
    if is_first:
        where = f"rank {torchrun.rank()}: " if torchrun.size() > 1 and code != _INTERRUPTED else ""
        _say(f"{where}{text}")
    return code


def _say(text: str) -> None:
    say(f"widehead: {' '.join(text.split())}")


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    """A warning of the library is for users: one line. Others keep the place in the code that they come from."""
    if not torchrun.is_first():  # others are warned of the same
        return
    if issubclass(category, WideheadWarning):
        _say(f"warning: {message}")
    else:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))


def _abandon_output() -> None:
    """Drop what is still buffered for standard output: it cannot be written, or should not be."""
    try:
        target = sys.stdout.fileno()
    except (OSError, ValueError):  # not a real file, as under tests
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, target)
    os.close(nowhere)
