"""An extension of Griffe: examples in docstrings are shown as code.

Griffe wants them below the heading "Examples:"; in this project they stand anywhere, as doctest finds them.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

import griffe

__all__ = ["Doctests", "headed"]


class Doctests(griffe.Extension):
    """Puts the heading above each example before the docstring is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = headed(obj.docstring.value)


def headed(docstring: str) -> str:
    """The docstring with each paragraph that begins with >>> indented below "Examples:"; others as they are."""
    paragraphs = [list(lines) for _, lines in groupby(docstring.splitlines(), key=lambda line: not line.strip())]
    return "\n".join(line for paragraph in paragraphs for line in _below_heading(paragraph))


def _below_heading(paragraph: list[str]) -> list[str]:
    if not paragraph[0].startswith(">>>"):
        return paragraph
    return ["Examples:", *(f"    {line}" for line in paragraph)]
