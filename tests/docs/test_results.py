"""docs/results.md is what its script makes of the stored results, and README's five figures are among them."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import pytest
from support.pages import PROJECT


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(PROJECT / "docs"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return importlib.import_module("results")


def test_the_page_is_what_the_script_makes(results: ModuleType) -> None:
    page = (PROJECT / "docs" / "results.md").read_text(encoding="utf-8")
    assert page == results.page(), "results.md is old: run python docs/results.py"


def test_the_figures_of_readme_are_those_of_the_results(results: ModuleType) -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    table = results.readme_table()
    assert table.count("\n") == 6  # two lines of heading and five figures
    assert table in readme, "README's figures are old: python docs/results.py prints them"


def test_each_claim_shows_raw_results_or_says_that_there_are_none(results: ModuleType) -> None:
    claims = [claim for part in importlib.import_module("claims").PARTS.values() for claim in part]
    assert len(claims) > 20
    for claim in claims:
        bound = "not measurements" in claim.noted
        assert claim.shown or bound or "not stored" in claim.noted, claim.title


def test_every_stored_result_is_shown_or_was_followed_by_another(results: ModuleType) -> None:
    """No file of results is left out of the page."""
    page = results.page()
    files = [*PROJECT.glob("benchmarks/results/*.jsonl"), *PROJECT.glob("recipes/results/*.jsonl")]
    superseded = {"optimizers.jsonl"}  # the same command was run again with kernels: output-layer.jsonl has its rows
    left_out = [file.name for file in files if file.name not in page and file.name not in superseded]
    assert left_out == []


def test_a_claim_without_rows_is_an_error(results: ModuleType) -> None:
    with pytest.raises(ValueError, match="Found none"):
        results.Table("recipes/results/gowalla.jsonl", (), {"method": "nobody"}).rows()
