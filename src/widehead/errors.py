"""Errors and warnings with names of their own.

Users' mistakes are plain ``ValueError`` and ``TypeError``. The classes here are for what only this library can
meet: numbers that are not finite, a graph that outlived its weights, a file that is not what it should be.
"""

import math
import sys
import warnings
from collections.abc import Collection
from typing import Any

__all__ = [
    "CheckpointError",
    "DataError",
    "KeptPrecisionWarning",
    "KernelWarning",
    "NoOptimizerWarning",
    "NonFiniteError",
    "ProcessesError",
    "RankingWarning",
    "RetrievalWarning",
    "StaleGraphError",
    "UnstableStepWarning",
    "WideheadWarning",
    "check_choice",
    "check_number",
    "check_whole",
    "warn_user",
]


class NonFiniteError(ArithmeticError):
    """A step met a NaN or an infinity. The head is as it was before the step."""


class ProcessesError(RuntimeError):
    """The processes that have the rows of a head do different things, or one is gone: says which rank does what."""


class StaleGraphError(RuntimeError):
    """A backward pass or a step met weights, or a hidden layer, that changed since the forward pass."""


class DataError(ValueError):
    """An input file cannot be read as what it should be: says file, line, what was found and what was expected."""


class CheckpointError(ValueError):
    """A run folder or checkpoint is missing, damaged or belongs to something else."""


class WideheadWarning(UserWarning):
    """Base of every warning of this library."""


class KeptPrecisionWarning(WideheadWarning):
    """A module was cast to half precision, and an exact head in it was not: it works in float32 or float64."""


class KernelWarning(WideheadWarning):
    """The compiled parts of steps on the CPU are not there, or have to be compiled anew. Says why.

    Without them steps are slower, with the same results.
    """


class RankingWarning(WideheadWarning):
    """Classes are ranked by other than what the run ranks them by, or weights leave for programs that do so."""


class RetrievalWarning(WideheadWarning):
    """An index of FAISS was asked for on a GPU, and the FAISS that is installed has none there; says what is done."""


class NoOptimizerWarning(WideheadWarning):
    """Backward passes of an exact head that no optimiser of widehead takes: its weights stay as they are."""


class UnstableStepWarning(WideheadWarning):
    """The step is larger than the curvature allows: the loss will grow. The message names the largest stable lr."""


def check_whole(name: str, value: Any, least: int = 1) -> None:
    """ValueError naming a parameter that is not a whole number of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"Parameter `{name}` should be a whole number of at least {least}. Found {value!r}.")


def warn_user(message: str, category: type[WideheadWarning]) -> None:
    """Warn as of the line that called into the library, through torch or not."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).split(".")[0] in ("widehead", "torch"):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


def check_number(name: str, value: float, least: float = 0.0, *, below: float = math.inf) -> None:
    """ValueError naming a parameter that is not in [least, below)."""
    if not (math.isfinite(value) and least <= value < below):
        finite = "" if math.isfinite(value) else " and finite"
        should = f"at least {least:g}{finite}" if below == math.inf else f"in [{least:g}, {below:g})"
        raise ValueError(f"Parameter `{name}` should be {should}. Found {value}.")


def check_choice(name: str, value: Any, choices: Collection[str]) -> None:
    """ValueError naming a parameter that is none of two or more words."""
    if value not in choices:
        *others, last = (f'"{choice}"' for choice in choices)
        among = "one of " if len(choices) > 3 else ""
        raise ValueError(f"Parameter `{name}` should be {among}{', '.join(others)} or {last}. Found {value!r}.")
