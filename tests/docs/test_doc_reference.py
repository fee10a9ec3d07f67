"""The reference names every public name, the drawings are those of their script, and the pins are there."""

from __future__ import annotations

import importlib
import re
import sys

import pytest
from support.pages import PAGES, PROJECT

import widehead

ROOMS = (
    *("widehead.losses", "widehead.optim", "widehead.errors", "widehead.heads", "widehead.models", "widehead.data"),
    *(
        "widehead.metrics",
        "widehead.runs",
        "widehead.jobs",
        "widehead.kinds",
        "widehead.names",
        "widehead.options",
        "widehead.training",
        "widehead.comparison",
        "widehead.bench",
        "widehead.report",
        "widehead.sampling",
        "widehead.serving",
    ),
    *("widehead.cached", "widehead.cuda"),
    *("widehead.search", "widehead.factored", "widehead.versions", "widehead.arithmetic"),
)
# Modules of which the reference shows the text alone.
MODULES = {"widehead.data.interactions", "widehead.data.multilabel", "widehead.data.text", "widehead.data.sessions"}
REFERENCE = PROJECT / "docs" / "api"


def documented() -> set[str]:
    texts = (page.read_text(encoding="utf-8") for page in REFERENCE.glob("*.md"))
    return {name for text in texts for name in re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE)}


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_is_in_the_reference(room: str) -> None:
    public = {f"{room}.{name}" for name in importlib.import_module(room).__all__}
    assert public <= documented()


def test_the_names_of_the_library_itself_are_in_the_reference() -> None:
    ends = {name.rpartition(".")[2] for name in documented()} | {"cuda", "errors", "losses", "optim", "__version__"}
    assert set(widehead.__all__) <= ends


def test_the_reference_names_nothing_else() -> None:
    for name in documented() - MODULES:
        room, _, last = name.rpartition(".")
        assert last in importlib.import_module(room).__all__, name


def test_the_navigation_has_every_page_and_no_other() -> None:
    """The strict build says so too; this needs no build."""
    navigation = (PROJECT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    named = re.findall(r"[:-] ([\w/-]+\.md)$", navigation, re.MULTILINE)
    assert sorted(named) == sorted(str(page.relative_to(PROJECT / "docs")) for page in PAGES)


def test_drawings_are_those_of_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = PROJECT / "docs" / "figures"
    monkeypatch.syspath_prepend(str(figures))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    drawings = importlib.import_module("draw").DRAWINGS
    for name, draw in drawings.items():
        assert (figures / f"{name}.svg").read_text(encoding="utf-8") == draw().render(), (
            f"{name}.svg is old: run python docs/figures/draw.py"
        )
