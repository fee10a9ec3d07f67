"""Compiling and loading the kernels: once, whole, and where it fails with a word about it."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from widehead.arithmetic import build, find_compiled, library
from widehead.errors import KernelWarning

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
        found = run(Path(folder), WIDEHEAD_KERNELS="0").stdout.split()
        assert (found[0], found[2]) == ("False", "0"), "it should be possible to switch it off"
        assert list(Path(folder).iterdir()) == []
    return found[1]


@pytest.mark.long
@needs_compiler
def test_it_is_compiled_once_and_kept_also_by_processes_at_once(tmp_path: Path, expected: str) -> None:
    given = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    started = [
        subprocess.Popen([sys.executable, "-c", STEP], stdout=subprocess.PIPE, text=True, env=given) for _ in range(2)
    ]
    for process in started:
        assert process.communicate(timeout=120)[0].split() == ["True", expected, "0"]
    kept = list((tmp_path / "widehead").iterdir())
    assert [path.suffix for path in kept] == [".so"], "nothing but the library should stay"
    time = kept[0].stat().st_mtime_ns
    assert run(tmp_path, CC="").stdout.startswith("True")
    assert kept[0].stat().st_mtime_ns == time


needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there are no kernels, and no word about it")


@needs_linux
def test_without_a_compiler_steps_are_the_same_and_one_warning_says_why(tmp_path: Path, expected: str) -> None:
    lines = run(tmp_path, PATH="").stdout.splitlines()
    assert lines[0].split() == ["False", expected, "1"]
    assert lines[1].startswith("KernelWarning")
    assert "no C compiler" in lines[1]
    assert "WIDEHEAD_KERNELS=0" in lines[1]


@needs_linux
@pytest.mark.parametrize(("compiler", "word"), [("no-such-compiler", "does not run"), ("false", "failed")])
def test_a_compiler_that_does_not_work(
    compiler: str, word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", compiler)
    with pytest.warns(KernelWarning, match=rf"{word}.*WIDEHEAD_KERNELS=0") as heard:
        assert library._made() is None
    assert len(heard) == 1


# -- the cache: in this process, with a library that was compiled once ------------------------------------------------


class Cache:
    """An empty cache folder, and what looking for the library there comes to."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch, library: bytes) -> None:
        self.home, self.folder, self.compiled = home, home / "widehead", 0
        self._library = library
        monkeypatch.setenv("XDG_CACHE_HOME", str(home))
        monkeypatch.setattr(build, "compiled", self._compile)

    def _compile(self, command: list[str]) -> bytes:
        self.compiled += 1
        return self._library

    def find(self) -> tuple[bool, list[str]]:
        """Whether there are kernels, and what was said."""
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            found = library._made()
        assert all(one.category is KernelWarning for one in heard)
        return found is not None, [str(one.message) for one in heard]

    def filled(self) -> Path:
        """The file of the library, once it is there."""
        assert self.find() == (True, [])
        (path,) = self.folder.iterdir()
        self.compiled = 0
        return path


@pytest.fixture(scope="module")
def compiled() -> bytes:
    return build.compiled(build.command())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: bytes) -> Cache:
    return Cache(tmp_path / "cache", monkeypatch, compiled)


@pytest.fixture(scope="module")
def spying(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], bytes]:
    """A library that leaves a file when it is loaded."""

    def make(trace: Path) -> bytes:
        folder = tmp_path_factory.mktemp("spy")
        (folder / "spy.c").write_text(
            f'#include <stdio.h>\n__attribute__((constructor)) void f(void) {{ fclose(fopen("{trace}", "w")); }}'
        )
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", folder / "spy.so", folder / "spy.c"], check=True)
        return (folder / "spy.so").read_bytes()

    return make


def summed(content: bytes) -> bytes:
    """As `kept.put` would write it."""
    return content + hashlib.sha256(content).digest()


@needs_compiler
def test_what_was_kept_is_used_and_can_be_written_by_nobody_else(cache: Cache) -> None:
    path = cache.filled()
    assert cache.find() == (True, [])
    assert cache.compiled == 0
    assert [p.stat().st_mode & 0o077 for p in (path, cache.folder)] == [0, 0]


def rewritten(path: Path, content: bytes) -> None:
    """Another file: the one that was there is memory of this process."""
    path.unlink()
    path.write_bytes(content)
    path.chmod(0o600)


def cut(size: int) -> Callable[[Path], object]:
    return lambda path: rewritten(path, path.read_bytes()[:size])


def flipped(at: float) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        whole = bytearray(path.read_bytes())
        whole[int(at * (len(whole) - 1))] ^= 16
        rewritten(path, whole)

    return change


def instead(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        path.rename(path.parent.parent / "aside")
        make(path)

    return change


DAMAGE: dict[str, Callable[[Path], object]] = {
    **{f"cut to {size}": cut(size) for size in (0, 1, 31, 32, 64, 4_096, 8_192, 20_000, 35_292, -1)},
    **{f"a bit at {at}": flipped(at) for at in (0.0, 0.02, 0.1, 0.3, 0.5, 0.9, 1.0)},
    "zeros": lambda path: rewritten(path, bytes(path.stat().st_size)),
    "more behind": lambda path: rewritten(path, path.read_bytes() + b"\0"),
    "a symbolic link": instead(lambda path: path.symlink_to(path.parent.parent / "aside")),
    "a link to nothing": instead(lambda path: path.symlink_to("nowhere")),
    "a pipe": instead(os.mkfifo),
    "others may write it": lambda path: path.chmod(0o622),
    "a group may write it": lambda path: path.chmod(0o660),
    "no function": lambda path: rewritten(path, summed(path.read_bytes()[:-32].replace(b"head_step", b"head_stop"))),
}


@needs_compiler
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_library_that_is_not_what_was_kept_is_compiled_anew(cache: Cache, damage: str) -> None:
    path = cache.filled()
    DAMAGE[damage](path)
    found, (warning,) = cache.find()
    assert found
    assert cache.compiled == 1
    assert str(path) in warning
    assert "compiled anew" in warning
    assert cache.find() == (True, [])
    assert cache.compiled == 1
    assert [p.name for p in cache.folder.iterdir()] == [path.name]


@needs_compiler
def test_a_library_of_another_build_is_compiled_anew(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.filled()
    expected = library.handshake()
    answers = iter([[*expected[:-1], expected[-1] + 8], expected])
    monkeypatch.setattr(library, "handshake", lambda: next(answers))
    found, (warning,) = cache.find()
    assert found
    assert "another build" in warning


def _of_others(folder: Path) -> None:
    folder.chmod(0o777)


def _linked(folder: Path) -> None:
    folder.rename(folder.parent / "elsewhere")
    folder.symlink_to(folder.parent / "elsewhere")


def _a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("in the way")


def _linked_to_nothing(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to("nowhere")


def _given_away(folder: Path) -> None:
    os.chown(folder, 12_345, -1)


FOLDERS: dict[str, Callable[[Path], object]] = {
    "others may write it": _of_others,
    "a group may write it": lambda folder: folder.chmod(0o770),
    "a symbolic link": _linked,
    "a link to nothing": _linked_to_nothing,
    "a file": _a_file,
    "another user's": _given_away,
}


@needs_compiler
@pytest.mark.parametrize("what", FOLDERS)
def test_nothing_of_a_folder_that_others_may_have_written_is_loaded(
    cache: Cache, what: str, spying: Callable[[Path], bytes], tmp_path: Path
) -> None:
    if what == "another user's" and os.geteuid() != 0:
        pytest.skip("only the superuser can give a folder away")
    path = cache.filled()
    rewritten(path, summed(spying(tmp_path / "trace")))
    FOLDERS[what](cache.folder)
    before = sorted(tmp_path.rglob("*"))
    found, (warning,) = cache.find()
    assert found
    assert str(cache.folder) in warning
    assert "XDG_CACHE_HOME" in warning
    assert sorted(tmp_path.rglob("*")) == before, "nothing should be loaded from there, nor written"


@needs_compiler
def test_a_library_of_another_user_is_not_loaded(cache: Cache, spying: Callable[[Path], bytes], tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only the superuser can give a file away")
    path = cache.filled()
    rewritten(path, summed(spying(tmp_path / "trace")))
    os.chown(path, 12_345, -1)
    found, (warning,) = cache.find()
    assert found
    assert "another user" in warning
    assert not (tmp_path / "trace").exists()


@needs_compiler
@pytest.mark.parametrize("given", ["relative", "./relative", "~/relative", "", " "])
def test_a_cache_that_is_not_absolute_is_ignored(
    cache: Cache, given: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", given)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.find() == (True, [])
    assert [p.name for p in tmp_path.iterdir()] == ["home"]
    assert len(list((tmp_path / "home" / ".cache" / "widehead").iterdir())) == 1


def _no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


@needs_compiler
@pytest.mark.parametrize("home", [_no_home, lambda: Path("relative")], ids=["none", "relative"])
def test_without_a_home_every_process_compiles(
    cache: Cache, home: Callable[[], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", home)
    found, (warning,) = cache.find()
    assert found
    assert "no home" in warning
    assert list(tmp_path.iterdir()) == []


@needs_compiler
def test_a_full_disk_leaves_nothing_half_written(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = os.replace

    def full(source: str, target: str, **places: int) -> None:
        if not (cache.folder / source).exists():
            return replace(source, target, **places)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    found, (warning,) = cache.find()
    assert found
    assert "No space left" in warning
    assert list(cache.folder.iterdir()) == []


def compiler(folder: Path, text: str) -> str:
    """The path of a program of the shell."""
    (folder / "cc").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "cc").chmod(0o700)
    return str(folder / "cc")


NO_TEXT = r"printf 'caf\351 \377\376\n'"


@needs_compiler
def test_what_a_compiler_prints_need_not_be_text(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", compiler(tmp_path, f'{NO_TEXT}; {NO_TEXT} >&2; exec gcc "$@"'))
    assert cache.find() == (True, [])
