"""The errands of CONTRIBUTING.md: what its blocks define passes every test of the tables, as a new row of them."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest
import test_exact_table
import test_optimizer_table
import torch
from heads import test_head_table, test_head_table_state
from support import head_table, job_files, properties
from support.head_table import small_blocks  # noqa: F401
from support.pages import PROJECT, blocks
from torch import Tensor

from widehead.heads import LinearHead
from widehead.jobs import configure
from widehead.losses import mean_over_targets
from widehead.names import HEADS, LOSSES
from widehead.runs import Run
from widehead.targets import SparseTargets

PAGE = PROJECT / "CONTRIBUTING.md"
# Losses that the optimiser is tried with; the table of optimisers has all.
TRIED = (properties.TABLE[0], properties.TABLE[4])


@pytest.fixture(scope="module")
def defined() -> dict[str, Any]:
    """The names that the page's Python defines, read from its beginning to its end."""
    names: dict[str, Any] = {"__name__": "contributing"}
    for block in blocks(PAGE):
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.text, str(PAGE), "exec", dont_inherit=True), names)
    return names


def every_test(row: str, *modules: ModuleType) -> list[Any]:
    """The tests that are made for all rows of a table, with each of their other parameters.

    Long and slow ones are left out, and types other than float32: the tables have them.
    """
    tests = [test for module in modules for name, test in vars(module).items() if name.startswith("test_")]
    return [
        pytest.param(test, given, id="-".join([test.__name__.removeprefix("test_"), *map(name_of, given.values())]))
        for test in tests
        if len(parameters(test).get(row, [])) == most(row, tests)
        for given in combinations({name: values for name, values in parameters(test).items() if name != row})
        if given.get("dtype", torch.float32) == torch.float32
    ]


def most(row: str, tests: list[FunctionType]) -> int:
    """Rows of the whole table; some tests are for a part of it, such as optimisers with a preconditioner."""
    return max(len(parameters(test).get(row, [])) for test in tests)


def parameters(test: FunctionType) -> dict[str, list[Any]]:
    marks = [mark for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    return {mark.args[0]: [value for value in map(plain, mark.args[1]) if value is not None] for mark in marks}


def name_of(value: Any) -> str:
    return str(getattr(value, "name", value))


def plain(value: Any) -> Any:
    """A parameter without its marks; None for a long or slow one."""
    is_marked = hasattr(value, "marks") and hasattr(value, "values")
    return (None if value.marks else value.values[0]) if is_marked else value


def combinations(values: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    return (dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values()))


def call(test: FunctionType, request: pytest.FixtureRequest, **given: Any) -> None:
    others = [name for name in inspect.signature(test).parameters if name not in given]
    test(**given, **{name: request.getfixturevalue(name) for name in others})


@pytest.mark.parametrize(("test", "given"), every_test("row", test_exact_table))
def test_the_loss(
    test: FunctionType, given: dict[str, Any], defined: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    row = properties.Row("logistic targets", defined["LogisticTargets"], defined["logistic_targets"])
    call(test, request, row=row, **given)


@pytest.mark.parametrize(
    ("test", "given"),
    [case for case in every_test("kind", test_optimizer_table) if case.values[1].get("row", TRIED[0]) in TRIED],
)
def test_the_optimiser(
    test: FunctionType, given: dict[str, Any], defined: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    ours, twin = defined["NormalizedSGD"], defined["DenseNormalizedSGD"]
    call(test, request, kind=test_optimizer_table.Kind("normalised", ours, twin, {"lr": 0.05}), **given)


@pytest.mark.parametrize(("test", "given"), every_test("row", test_head_table, test_head_table_state))
def test_the_head(
    test: FunctionType, given: dict[str, Any], defined: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    def make(d: int, n: int, dtype: torch.dtype, bias: bool) -> Any:
        return defined["OneVersusAllHead"](d, n, dtype=dtype, bias=bias)

    call(test, request, row=head_table.Row("one versus all", make), **given)


def test_a_head_whose_training_loss_is_not_minus_log_p(request: pytest.FixtureRequest) -> None:
    """Its row says so, and no test of the table asks it to be one."""

    class Smoothed(LinearHead):
        def _losses(self, hidden: Tensor, targets: SparseTargets) -> Tensor:
            outputs = self._widened(hidden) @ self.table.T
            at_targets = mean_over_targets(outputs[targets.example_ids, targets.class_ids], targets)
            return outputs.logsumexp(1) - 0.9 * at_targets - 0.1 * outputs.mean(1)

    def make(d: int, n: int, dtype: torch.dtype, bias: bool) -> Any:
        return Smoothed(d, n, dtype=dtype, bias=bias)

    row = head_table.Row("smoothed", make, minus_log_p=False)
    for case in every_test("row", test_head_table, test_head_table_state):
        test, given = case.values
        call(test, request, row=row, **given)


def test_the_tables_are_followed() -> None:
    assert len(every_test("row", test_exact_table)) > 40
    assert len(every_test("kind", test_optimizer_table)) > 30
    assert len(every_test("row", test_head_table, test_head_table_state)) > 40


def test_files_that_the_page_names_are_there() -> None:
    text = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:src|tests|docs|benchmarks)/[\w./]+)`", text))
    assert len(named) > 20
    missing = [name for name in named if "your_" not in name and not (PROJECT / name).exists()]
    assert missing == []


LISTED = {"loss": (LOSSES, "LogisticTargets"), "head": (HEADS, "OneVersusAllHead")}


@pytest.mark.parametrize("option", LISTED)
def test_what_is_listed_trains_in_a_job(
    option: str, defined: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name alone brings it to the options of every job."""
    listed, name = LISTED[option]
    monkeypatch.setitem(listed, "the-new-one", defined[name])
    options = {**job_files.recommender_files(tmp_path), option: "the-new-one"}
    files = {"train": str(tmp_path / "train.txt"), "test": str(tmp_path / "test.txt")}
    run = Run.new(configure("recommender", **files, out=str(tmp_path / "run"), **options))
    run.train(quiet=True)
    assert run.config.head != "exact" if option == "head" else run.config.head == "exact"
    assert Run.open(tmp_path / "run").evaluate()["recall@6"] > 0.2  # by chance it is 0.1
