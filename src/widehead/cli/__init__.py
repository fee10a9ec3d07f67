"""The command line. ``main`` is the entry point ``widehead``; every command is a file of its own."""

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line (that of the process by default) and exit with its code.

    Codes: 0 done; 1 a bug of ours (with a traceback), or the reader of a pipe has gone (silently); 2 bad input or
    options (one line says what); 130 interrupted.
    """
    try:
        from widehead.cli.interrupt import leaving_imports_at_once

        with leaving_imports_at_once():
            from widehead.cli.app import app
            from widehead.cli.errors import run_guarded

            code = run_guarded(app, sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        sys.stderr.write("widehead: interrupted.\n")
        code = 130
    sys.exit(code)
