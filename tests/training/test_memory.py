"""Memory that stays with the process: a large block that was freed costs nothing the second time."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

GIVEN_BACK = """
import torch
from widehead.training.memory import give_back_freed_memory, keep_freed_memory, told
keep_freed_memory()
blocks = [torch.ones(3_000_000) for _ in range(20)]
del blocks[:-1]  # the last one is the end of the heap
before = told("VmRSS")
assert give_back_freed_memory()
print(before - told("VmRSS"))
"""

CODE = """
import resource, torch
from widehead.training.memory import keep_freed_memory
if {keep}:
    assert keep_freed_memory()
faults = []
for _ in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(12_000_000).fill_(1.0)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(faults[-1])
"""


def faults(keep: bool) -> int:
    code = CODE.format(keep=keep)
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked to keep freed memory")
def test_a_freed_block_is_used_again() -> None:
    assert faults(keep=True) < 100 < faults(keep=False)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked to give freed memory back")
def test_freed_blocks_can_be_given_back() -> None:
    given = subprocess.run([sys.executable, "-c", GIVEN_BACK], capture_output=True, text=True, check=True).stdout
    assert int(given) > 0.9 * 19 * 12_000_000
