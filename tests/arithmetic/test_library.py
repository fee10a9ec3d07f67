"""Compiling and loading the kernels: once, whole, and where it fails with a word about it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from widehead.arithmetic import find_compiled

STEP = """
import warnings, torch, widehead as wh
from widehead.arithmetic import find_compiled
with warnings.catch_warnings(record=True) as heard:
    warnings.simplefilter("always")
    torch.manual_seed(0)
    head = wh.ExactHead(8, 50, wh.losses.SquaredError())
    optimizer = wh.optim.SGD(head, lr=0.1)
    for _ in range(3):
        head(torch.ones(4, 8), [[1], [2], [3], []]).backward()
        optimizer.step()
print(find_compiled() is not None, round(float(head.weight().norm()), 5), len(heard))
for one in heard:
    print(one.category.__name__, one.message)
"""
needs_compiler = pytest.mark.skipif(find_compiled() is None, reason="needs a C compiler, and Linux")


def run(cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    given: Mapping[str, str] = {**os.environ, "XDG_CACHE_HOME": str(cache), **environment}
    return subprocess.run([sys.executable, "-c", STEP], capture_output=True, text=True, env=given, timeout=120)


@pytest.fixture(scope="module")
def expected() -> str:
    """What the twins make of it."""
    with tempfile.TemporaryDirectory() as folder:
        return run(Path(folder), WIDEHEAD_KERNELS="0").stdout.split()[1]


@needs_compiler
def test_it_is_compiled_once_and_kept(tmp_path: Path, expected: str) -> None:
    first = run(tmp_path)
    assert first.stdout.split() == ["True", expected, "0"], first.stderr
    kept = list((tmp_path / "widehead").iterdir())
    assert [path.suffix for path in kept] == [".so"], "nothing but the library should stay"
    time = kept[0].stat().st_mtime_ns
    assert run(tmp_path, CC="").stdout.startswith("True")
    assert kept[0].stat().st_mtime_ns == time


@needs_compiler
def test_processes_that_compile_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    given = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    started = [
        subprocess.Popen([sys.executable, "-c", STEP], stdout=subprocess.PIPE, text=True, env=given) for _ in range(3)
    ]
    assert {process.communicate(timeout=120)[0].split()[0] for process in started} == {"True"}
    assert len(list((tmp_path / "widehead").iterdir())) == 1


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    found = run(tmp_path, WIDEHEAD_KERNELS="0").stdout.split()
    assert (found[0], found[2]) == ("False", "0")
    assert not (tmp_path / "widehead").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there are no kernels, and no word about it")
@pytest.mark.parametrize(
    ("environment", "word"),
    [({"PATH": ""}, "no C compiler"), ({"CC": "no-such-compiler"}, "does not run"), ({"CC": "false"}, "failed")],
)
def test_without_a_compiler_steps_are_the_same_and_one_warning_says_why(
    tmp_path: Path, environment: dict[str, str], word: str, expected: str
) -> None:
    lines = run(tmp_path, **environment).stdout.splitlines()
    assert lines[0].split() == ["False", expected, "1"]
    assert lines[1].startswith("KernelWarning")
    assert word in lines[1]
    assert "WIDEHEAD_KERNELS=0" in lines[1]


@needs_compiler
def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, expected: str) -> None:
    (tmp_path / "widehead").write_text("in the way")
    lines = run(tmp_path).stdout.splitlines()
    assert lines[0].split() == ["False", expected, "1"]
    assert str(tmp_path) in lines[1]


@needs_compiler
def test_a_damaged_library_is_named(tmp_path: Path, expected: str) -> None:
    run(tmp_path)
    (kept,) = (tmp_path / "widehead").iterdir()
    kept.write_bytes(b"\x7fELF and nothing")
    lines = run(tmp_path).stdout.splitlines()
    assert lines[0].split() == ["False", expected, "1"]
    assert "do not fit" in lines[1]
