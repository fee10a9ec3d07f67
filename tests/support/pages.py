"""The pages of docs/ as their blocks of code."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
PAGES = sorted((PROJECT / "docs").rglob("*.md"))
_FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language ("" where none is named), its text, the line of the page it begins in.

    ``packages`` are those that its title says to install, by the names that they are imported by.
    """

    language: str
    text: str
    line: int
    packages: tuple[str, ...] = ()


def name_of(page: Path) -> str:
    return str(page.relative_to(PROJECT))


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(m[1], m[3], text[: m.start(3)].count("\n") + 1, _packages(m[2])) for m in _FENCE.finditer(text)]


def _packages(rest_of_fence: str) -> tuple[str, ...]:
    found = re.search(r'title="pip install ([^"]*)"', rest_of_fence)
    return tuple(name.removesuffix("-skinny") for name in found[1].split()) if found else ()


def commands(text: str) -> list[list[str]]:
    """The words of every ``widehead …`` line, with or without "$ " or a pipe before it; "\\" goes on with the next."""
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    found = [re.search(r"(?:^|^\$ |\| )widehead ((?:[a-z]|--).*)", line.strip()) for line in lines]
    return [shlex.split(match[1], comments=True) for match in found if match]


def inline_commands(page: Path) -> list[list[str]]:
    """Commands in `widehead …` within the text, which may go on in the next line."""
    prose = _FENCE.sub("", page.read_text(encoding="utf-8"))
    found = re.findall(r"`widehead ([a-z][^`]*)`", prose)
    return [shlex.split(text.replace("\n", " ")) for text in found]
