"""Checks of options: each says whether a value holds, and what it should be."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from widehead.options.intervals import Interval

_LIMIT = 2**31  # of whole numbers, far inside what torch takes


@dataclass(frozen=True, eq=False)
class Check:
    """Whether a value ``holds``, what it ``should`` be, and its ``names`` if it is one of a few."""

    holds: Callable[[Any], bool]
    should: str
    names: Collection[str] = ()


def refusal(option: str, should: str, found: Any) -> ValueError:
    """The error for an option that is not what it should be."""
    return ValueError(f"Option `{option}` should {should}. Found {found!r}.")


def one_of(names: Any) -> str:
    return f"one of {', '.join(names)}"


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return (_is_integer(value) or isinstance(value, float)) and math.isfinite(value)


def whole(least: int) -> Check:
    return Check(lambda v: _is_integer(v) and least <= v < _LIMIT, f"a whole number, at least {least} and below 2^31")


def number(test: Callable[[float], bool], should: str) -> Check:
    return Check(lambda v: _is_number(v) and test(v), f"a number {should}")


def or_none(check: Check) -> Check:
    return Check(lambda v: v is None or check.holds(v), f"{check.should}, or null", check.names)


def choice(names: Any) -> Check:
    return Check(lambda v: isinstance(v, str) and v in names, one_of(names), names)


def wholes(least_length: int) -> Check:
    positive = whole(1).holds

    def holds(value: Any) -> bool:
        return isinstance(value, tuple) and len(value) >= least_length and all(positive(n) for n in value)

    return Check(holds, "a list of positive whole numbers below 2^31")


def _is_interval(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(Interval.parse(value))
    except ValueError:
        return False


def _are_options(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    return all(isinstance(k, str) and (_is_number(v) or isinstance(v, str)) for k, v in value.items())


FLAG = Check(lambda v: isinstance(v, bool), "true or false")
TEXT = Check(lambda v: isinstance(v, str) and v != "", "a name")
PATH = Check(TEXT.holds, "a path")
POSITIVE = number(lambda v: v > 0, "above 0")
NOT_NEGATIVE = number(lambda v: v >= 0, "at least 0")
WEIGHT_OR_LEFT = number(lambda v: 0 <= v <= 1e6 or v == -1, "in [0, 1,000,000], or -1")
PROBABILITY = number(lambda v: 0 <= v < 1, "in [0, 1)")
SHARE = number(lambda v: 0 <= v <= 1, "in [0, 1]")
INTERVAL = Check(_is_interval, 'an interval such as "500 steps", "1 epoch", "60 seconds" or "5 minutes"')
PAIRS = Check(_are_options, "an object of numbers or texts")
