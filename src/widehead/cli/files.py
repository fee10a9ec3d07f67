"""Files that commands take and leave: standard input, and rows that are added to a file."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any


def input_file(path: Path) -> AbstractContextManager[Path]:
    """The file itself, or for "-" and pipes a temporary one with all that comes through them."""
    from widehead.data.files import copied, whole_file

    return copied(sys.stdin.buffer, "standard input") if str(path) == "-" else whole_file(path)


@contextmanager
def appending(path: Path | None) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A function that appends one JSON object a line, each on disk when it returns; without a path it does nothing.

    The file is opened before the work for it is done; one that is new is removed again if no row was made.
    """
    if path is None:
        yield lambda row: None
        return
    new = not path.exists()
    with path.open("a", encoding="utf-8") as lines:

        def append(row: Mapping[str, Any]) -> None:
            lines.write(json.dumps(row) + "\n")
            lines.flush()

        try:
            yield append
        except BaseException:
            if new and path.stat().st_size == 0:
                path.unlink()
            raise
