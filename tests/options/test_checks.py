"""Checks of options: what each one takes, and what it refuses, at its edges."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Any

import pytest

from widehead.options import checks
from widehead.options.checks import Check, choice, or_none, whole, wholes

TABLE: list[tuple[str, Check, list[Any], list[Any]]] = [
    ("whole", whole(3), [3, 4, 2**31 - 1], [2, -3, 2**31, 3.0, True, "3", None, [3]]),
    ("or none", or_none(whole(1)), [None, 1], [0, False, "", [None]]),
    ("choice", choice(("adam", "sgd")), ["adam", "sgd"], ["", "ada", "Adam", None, 0, ["adam"]]),
    ("wholes", wholes(1), [(1,), (1, 7)], [(), [1], (1, 0), (0, 1), (1, 2.0), (True,), 1, "11"]),
    ("no wholes", wholes(0), [(), (5,)], [(0,), None]),
    ("flag", checks.FLAG, [True, False], [0, 1, "true", None]),
    ("text", checks.TEXT, ["a", " "], ["", None, 1, b"a"]),
    ("above 0", checks.POSITIVE, [1e-300, 1, 2.5], [0, 0.0, -1, math.inf, math.nan, True, "1"]),
    ("at least 0", checks.NOT_NEGATIVE, [0, 0.0, 3], [-1e-300, -1, math.inf, math.nan, False, None]),
    ("probability", checks.PROBABILITY, [0, 0.0, 0.999], [1, 1.0, -0.1, math.nan, False, "0.5"]),
    ("interval", checks.INTERVAL, ["5 steps", "0.5 min"], ["", "0 steps", "1.5 steps", "5", 5, None]),
    (
        "options",
        checks.PAIRS,
        [{}, {"a": 1, "b": 0.5, "c": "x"}, MappingProxyType({"a": 1})],
        [{1: 1}, {"a": None}, {"a": True}, {"a": math.inf}, {"a": [1]}, [("a", 1)], None],
    ),
]


@pytest.mark.parametrize(("check", "taken", "refused"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_what_is_taken_and_what_is_refused(check: Check, taken: list[Any], refused: list[Any]) -> None:
    holds, should = check.holds, check.should
    assert should
    assert [value for value in taken if not holds(value)] == []
    assert [value for value in refused if holds(value)] == []
