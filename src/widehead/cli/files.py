"""Files that commands take and leave: standard input, and rows that are added to a file."""

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from widehead.errors import DataError


@contextmanager
def input_file(path: Path) -> Iterator[Path]:
    """The file itself, or for "-" a temporary one with what standard input holds; errors name standard input then."""
    if str(path) != "-":
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="widehead-") as folder:
        copy = Path(folder) / "standard-input"
        with copy.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        try:
            yield copy
        except DataError as error:
            raise DataError(str(error).replace(str(copy), "standard input")) from error


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
