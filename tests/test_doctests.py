"""Examples in docstrings say what they print."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import widehead

MODULES = [module.name for module in pkgutil.walk_packages(widehead.__path__, "widehead.")]


@pytest.mark.parametrize("name", ["widehead", *MODULES])
def test_examples_in_docstrings(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
