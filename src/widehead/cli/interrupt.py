"""Ctrl-C while a command imports what it needs: the program leaves at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_IMPORT = "<frozen importlib._bootstrap>"
_AGAIN = 0.02  # seconds


@contextmanager
def leaving_imports_at_once() -> Iterator[None]:
    """Until it is left, SIGINT during an import of a command says so and ends the process.

    Commands import before they open anything. What is raised within an import may get lost, or become another error;
    so SIGINT during an import of others, as in a run that has begun, comes again when that may be over.
    """
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not ignored, as after nohup
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, _hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _hear(number: int, frame: FrameType | None) -> None:
    importer, within = "", frame
    while within is not None:
        if within.f_code.co_filename == _IMPORT and within.f_back is not None:
            importer = str(within.f_back.f_globals.get("__name__"))
        within = within.f_back
    if importer == "importlib" or importer.startswith(("widehead.cli", "typer")):
        with suppress(OSError):
            os.write(2, b"widehead: interrupted.\n")
        os._exit(130)
    if not importer:
        raise KeyboardInterrupt
    again = threading.Timer(_AGAIN, os.kill, (os.getpid(), signal.SIGINT))
    again.daemon = True
    again.start()
