"""Readers of a head's rows in several threads, and one that rewrites them all."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Gate:
    """Lets readers in together (``with gate``), and a writer alone; a reader that is inside must not enter again.

    Copies and pickles are new gates, with nobody inside.
    """

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._readers = 0
        self._waiting = False

    # Every training step passes here, and a `with` of the condition would take three times as long.
    def __enter__(self) -> None:
        self._change.acquire()
        try:
            while self._waiting:
                self._change.wait()
            self._readers += 1
        finally:
            self._change.release()

    def __exit__(self, *error: object) -> None:
        self._change.acquire()
        self._readers -= 1
        if self._waiting:
            self._change.notify_all()
        self._change.release()

    @contextmanager
    def writing(self) -> Iterator[None]:
        with self._change:
            while self._waiting:  # another writer
                self._change.wait()
            self._waiting = True
            try:
                while self._readers:
                    self._change.wait()
                yield
            finally:
                self._waiting = False
                self._change.notify_all()

    def __reduce__(self) -> tuple[Any, ...]:
        return Gate, ()
