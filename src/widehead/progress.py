"""What long work that is no training tells of how far it is: reading, singular vectors, judging."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_hears: ContextVar[Callable[[str, float], object] | None] = ContextVar("hears", default=None)


@contextmanager
def heard_by(listener: Callable[[str, float], object]) -> Iterator[None]:
    """Meanwhile ``listener`` hears of all work of this thread: what it is, and what part, from 0 to 1, is done."""
    token = _hears.set(listener)
    try:
        yield
    finally:
        _hears.reset(token)


class Work:
    """Work of a size that is known, or guessed, in any unit; whoever hears of it hears of its beginning at once.

    >>> with heard_by(lambda what, done: print(what, done)):
    ...     work = Work("axes", 4)
    ...     work.add(1)
    axes 0.0
    axes 0.25
    """

    def __init__(self, what: str, size: float) -> None:
        self.what, self.size, self.done = what, size, 0.0
        self.add(0.0)

    def add(self, part: float) -> None:
        """So much more is done."""
        self.at(self.done + part)

    def at(self, done: float) -> None:
        """So much is done."""
        self.done = done
        if (listener := _hears.get()) is not None:
            listener(self.what, min(1.0, self.done / self.size) if self.size else 1.0)
