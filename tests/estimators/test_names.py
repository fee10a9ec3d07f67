"""Names of classes: numbers stay numbers, and places without a class are seen to have none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from widehead.estimators.names import Names, kind_of, padded


@pytest.mark.parametrize(
    ("names", "kind", "expected", "empty"),
    [
        (["7", "10"], "int", [7, 10], -1),
        (["-3", "10"], "int", [-3, 10], -1),
        (["0.5", "2"], "float", [0.5, 2.0], np.nan),
        (["True", "False"], "bool", [True, False], None),
        (["7", "a"], "str", ["7", "a"], None),
        (["7", "10"], "str", ["7", "10"], None),
        (["7", "10"], None, [7, 10], -1),
        (["07", "10"], None, ["07", "10"], None),
    ],
)
def test_ids_to_names(names: list[str], kind: str | None, expected: list[Any], empty: Any) -> None:
    found = Names(names, kind).of(np.array([[1, 0], [0, -1]]))
    assert found.tolist()[0] == [expected[1], expected[0]]
    assert found[1, 0] == expected[0]
    assert found[1, 1] is None if empty is None else np.array_equal(found[1, 1], empty, equal_nan=True)


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ([1, np.int32(2)], "int"),
        (["a"], "str"),
        ([1, "a"], "str"),
        ([np.float32(1)], "float"),
        ([True], "bool"),
        ([np.bool_(True), False], "bool"),
        ([1, True], "str"),
        (np.array([1, 2]), "int"),
        ([], "str"),
    ],
)
def test_kinds(names: list[Any], kind: str) -> None:
    assert kind_of(names) == kind


def test_padding() -> None:
    assert padded([np.array([[1]]), np.array([[2]])], 3, -1).tolist() == [[1, -1, -1], [2, -1, -1]]
    assert padded([], 2, -1).shape == (0, 2)


def test_a_long_name_takes_the_memory_of_itself() -> None:
    names = Names([*map(str, range(999)), "x" * 100_000], "str")
    assert names.array.nbytes < 100_000
    assert names.of(np.array([999, -1]))[0] == "x" * 100_000
