"""The page of options has every option and every preset."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest
from support.pages import PROJECT

from widehead.jobs import JOBS
from widehead.options import OPTIONS


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(PROJECT / "docs"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return importlib.import_module("hooks")


def test_the_page_is_made_of_the_table(hooks: Any) -> None:
    page = hooks.on_page_markdown((PROJECT / "docs" / "options.md").read_text(encoding="utf-8"))
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == [name for name, row in OPTIONS.items() if row.panel]
    width = next(row for row in rows if row.startswith("| `width`"))
    assert width.split(" | ")[1:] == [OPTIONS["width"].help, "256", OPTIONS["width"].check.should, "all |"]
    assert "| recommender, demo |" in next(row for row in rows if row.startswith("| `ratings`"))
    for name, job in JOBS.items():
        for preset in job.presets:
            assert f"| {name} | `{preset.name}` | {preset.help} |" in page
    assert "`loss_options = unobserved_weight=0.05`" in page
    assert "; `head_options = retrieved=500, tail=500` with the head retrieved |" in page
