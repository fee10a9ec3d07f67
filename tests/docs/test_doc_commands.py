"""Every command in the documentation is one that the program has, with options that it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer.main
from support.pages import PAGES, PROJECT, blocks, commands, inline_commands, name_of

from widehead.cli.app import app

ALL = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *PAGES]
# Words that stand for something else: JOB, FILE and the like.
ANY = ("JOB", "…", "...")


def commands_of(page: Path) -> list[list[str]]:
    fenced = [command for block in blocks(page) if block.language != "python" for command in commands(block.text)]
    return [*fenced, *inline_commands(page)]


@pytest.mark.parametrize("page", [page for page in ALL if commands_of(page)], ids=name_of)
def test_commands_of_a_page_are_there(page: Path) -> None:
    wrong = [f"widehead {' '.join(command)}: {why}" for command in commands_of(page) if (why := complaint(command))]
    assert wrong == []


def test_commands_are_found() -> None:
    assert sum(len(commands_of(page)) for page in ALL) > 50


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["trane", "recommender"], "no command trane"),
        (["train", "recommendations", "f.txt"], "no command recommendations"),
        (["train", "recommender", "f.txt", "--epoch", "3"], "no option --epoch"),
        (["train", "recommender", "f.txt", "--window=3"], "no option --window"),
        (["evaluate", "runs/x", "--at", "3"], ""),
    ],
)
def test_wrong_commands_are_told(command: list[str], why: str) -> None:
    assert complaint(command) == why


def complaint(words: list[str]) -> str:
    """What is wrong with a command, "" where nothing is."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("widehead", ["--version"], resilient_parsing=True)
    rest = list(words)
    while rest and rest[0] not in ANY and not rest[0].startswith("--") and hasattr(command, "get_command"):
        try:
            command = command.get_command(context, rest[0])
        except typer.BadParameter:
            command = None
        if command is None:
            return f"no command {rest[0]}"
        rest.pop(0)
    if hasattr(command, "get_command"):  # the page says `widehead train JOB`, or means the group
        return ""
    known = {"--help", *(flag for parameter in command.params for flag in parameter.opts)}
    unknown = [word.partition("=")[0] for word in rest if word.startswith("--") and word.partition("=")[0] not in known]
    return f"no option {unknown[0]}" if unknown else ""
