"""Sentences of the code: "where" is for places, if and when are for conditions."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from support.pages import PROJECT

PACKAGE = PROJECT / "src" / "widehead"
MOST = 2.0  # "where" in a thousand words
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def prose(source: str) -> Iterator[str]:
    """The docstrings of a file, those below attributes included, and its comments."""
    for node in ast.walk(ast.parse(source)):
        for statement in node.body if isinstance(node, _DOCUMENTED) else []:
            value = statement.value if isinstance(statement, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield value.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def words(source: str) -> list[str]:
    """Names with a dot, such as torch.where, are one word each."""
    return [word.lower() for text in prose(source) for word in re.findall(r"[^\W\d_][\w'’.]*\w|\w", text)]


def rate(files: list[Path]) -> float:
    """ "where" in a thousand words of these files."""
    found = [word for file in files for word in words(file.read_text(encoding="utf-8"))]
    return 1000.0 * found.count("where") / max(1, len(found))


def rates() -> dict[str, float]:
    """By room, the worst first: python tests/test_words.py."""
    rooms = {path.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*.py")}
    by_room = {room: rate(sorted((PACKAGE / room).rglob("*.py")) or [PACKAGE / room]) for room in rooms}
    return dict(sorted(by_room.items(), key=lambda entry: -entry[1]))


def test_where_is_rare() -> None:
    assert rate(sorted(PACKAGE.rglob("*.py"))) < MOST, rates()


def test_docstrings_and_comments_are_counted_and_nothing_else() -> None:
    source = '''"""Where it is."""
x = "where"  # where torch.where goes
class A:
    y = 1
    """where"""
    def f(self):
        """Where."""
        return where
'''
    assert words(source).count("where") == 4
    assert "torch.where" in words(source)


if __name__ == "__main__":
    for room, found in rates().items():
        print(f"{found:5.1f}  {room}")
