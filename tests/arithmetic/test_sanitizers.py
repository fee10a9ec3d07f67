"""What `make test-sanitized` rests on: C that leaves its arrays, or overflows, ends the process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    "-fsanitize" not in os.environ.get("WIDEHEAD_KERNEL_FLAGS", ""), reason="needs the sanitizers: make test-sanitized"
)
CALL = """
import torch
from widehead.arithmetic.library import library
ids, rows = torch.tensor([0, {last}]), torch.ones(2, 3)
table, versions = torch.zeros(2, 3), torch.zeros(3, dtype=torch.uint8)
given, changed = (ids.data_ptr(), rows.data_ptr(), 0, None), (table.data_ptr(), versions.data_ptr())
print(library().widehead_write(1, 3, 3, 2, *given, *changed), library().widehead_correct_work({d}))
"""


def call(last: int, d: int) -> subprocess.CompletedProcess[str]:
    """C is told of a table of three rows, and given one of two."""
    code = CALL.format(last=last, d=d)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)


def test_what_stays_in_its_arrays_is_left_alone() -> None:
    found = call(last=1, d=4)
    assert found.returncode == 0, found.stderr
    assert found.stdout.split()[0] == "0"


def test_a_row_written_past_the_end_is_seen() -> None:
    found = call(last=2, d=4)
    assert found.returncode != 0
    assert "heap-buffer-overflow" in found.stderr
    assert "widehead_write" in found.stderr


def test_a_number_that_overflows_is_seen() -> None:
    found = call(last=1, d=2**62)
    assert found.returncode != 0
    assert "signed integer overflow" in found.stderr
