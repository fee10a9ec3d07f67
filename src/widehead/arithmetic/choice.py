"""Which class of operations computes with the rows of a head: the one place that asks."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from torch import Tensor

from widehead.arithmetic.compiled import Compiled
from widehead.arithmetic.library import library
from widehead.arithmetic.reference import Arithmetic

#: torch's own operations
TORCH = Arithmetic()

_asked_for: Arithmetic | None = None


@contextmanager
def using(arithmetic: Arithmetic) -> Iterator[None]:
    """Let `choose` prefer ``arithmetic`` meanwhile, in all threads: for comparisons."""
    global _asked_for
    before, _asked_for = _asked_for, arithmetic
    try:
        yield
    finally:
        _asked_for = before


@cache
def find_compiled() -> Compiled | None:
    """The compiled operations; None if there are none here, as `library` says."""
    found = library()
    return None if found is None else Compiled(found)


def choose(table: Tensor, *, resident: bool) -> Arithmetic:
    """What computes with rows that are stored as ``table`` (D, c).

    Args:
        resident: whether all of it can be read at once, in memory, in the type that is computed in.
    """
    preferred = _asked_for or find_compiled() or TORCH
    return preferred if preferred.fits(table, resident=resident) else TORCH
