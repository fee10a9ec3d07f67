"""The compiler that makes the kernels, what their name in the cache depends on, and the switch."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from widehead.arithmetic import build, find_compiled, library
from widehead.errors import KernelWarning

needs_compiler = pytest.mark.skipif(find_compiled() is None, reason="needs a C compiler, and Linux")


def compiler(folder: Path, text: str) -> str:
    """The path of a program of the shell."""
    (folder / "cc").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "cc").chmod(0o700)
    return str(folder / "cc")


NO_TEXT = r"printf 'caf\351 \377\376\n'"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there are no kernels, and no word about it")
@pytest.mark.parametrize(
    ("variable", "given", "word"),
    [
        ("CC", "gcc '", "CC should be words"),
        ("CC", 'gcc "-O2', "CC should be words"),
        ("CC", "gcc \\", "CC should be words"),
        ("CC", " ", "CC should be words"),
        ("CC", "''", "CC should be words"),
        ("WIDEHEAD_KERNEL_FLAGS", "-O2 '", "WIDEHEAD_KERNEL_FLAGS should be words"),
        ("WIDEHEAD_KERNEL_FLAGS", "\t", "WIDEHEAD_KERNEL_FLAGS should be words"),
        ("WIDEHEAD_KERNEL_FLAGS", "--no-such-flag", "failed"),
        ("CC", "/", "does not run"),
        ("CC", "true", "made no library"),
        ("CC", f"{NO_TEXT} >&2; exit 1", "failed: caf"),
        ("CC", f"{NO_TEXT}; exit 1", "failed"),
        ("CC", f"{NO_TEXT}; exit 0", "made no library"),
        ("CC", "cat", "failed"),
    ],
)
def test_a_compiler_that_is_none_is_named_and_steps_are_torchs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, given: str, word: str
) -> None:
    given = compiler(tmp_path, given) if given.startswith("printf") else given
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(variable, given)
    with pytest.warns(KernelWarning, match=word) as heard:
        assert library._made() is None
    assert len(heard) == 1
    assert "WIDEHEAD_KERNELS=0" in str(heard[0].message)


@pytest.mark.parametrize("said", ["0", "no", "false", "off", "No", "FALSE", " off "])
def test_kernels_are_switched_off_by_words(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_found", [])
    monkeypatch.setattr(library, "_made", lambda: pytest.fail("they should not be looked for"))
    monkeypatch.setenv("WIDEHEAD_KERNELS", said)
    assert library.library() is None


@pytest.mark.parametrize("said", ["1", "yes", "true", "on", "ON", ""])
def test_kernels_are_switched_on_by_words(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_found", [])
    monkeypatch.setattr(library, "_made", lambda: "made")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("WIDEHEAD_KERNELS", said)
    assert library.library() == "made"


@pytest.mark.parametrize("said", ["2", "nope", "disable", "-1", "0x0", "none"])
def test_other_words_are_refused_every_time(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_found", [])
    monkeypatch.setenv("WIDEHEAD_KERNELS", said)
    for _ in range(2):
        with pytest.raises(ValueError, match=f"WIDEHEAD_KERNELS should be .*false.* Found '{said}'"):
            library.library()


CPUINFO = {
    "x86": b"processor\t: 0\nmodel name\t: Some CPU\ncpu MHz\t\t: 1.0\nflags\t\t: fpu sse2 avx2\n",
    "x86, another feature": b"processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu sse2 avx2 avx512f\n",
    "x86, another model": b"processor\t: 0\nmodel name\t: Another CPU\nflags\t\t: fpu sse2 avx2\n",
    "Arm": b"processor\t: 0\nFeatures\t: fp asimd\nCPU part\t: 0xd0c\n",
    "Arm, another feature": b"processor\t: 0\nFeatures\t: fp asimd sve\nCPU part\t: 0xd0c\n",
    "Arm, another maker": b"processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n",
    "RISC-V": b"processor\t: 0\nisa\t\t: rv64imafdc\n",
    "RISC-V, vectors": b"processor\t: 0\nisa\t\t: rv64imafdcv\n",
    "POWER": b"processor\t: 0\ncpu\t\t: POWER9\nclock\t\t: 1 MHz\n",
    "no text": b"processor\t: 0\nmodel name\t: \xff\xfe\n",
    "nothing": b"",
}


@needs_compiler
def test_machines_with_other_processors_have_libraries_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    command, said = build.command(), b""
    monkeypatch.setattr(Path, "read_bytes", lambda path: said if path.name == "cpuinfo" else b"")
    keys = {}
    for name, said in CPUINFO.items():
        keys[name] = build.key(command)
        said = said.replace(b"MHz", b"MHz 9")
        assert build.key(command) == keys[name], "how fast it runs at the moment is no feature"
    assert len(set(keys.values())) == len(CPUINFO)
    monkeypatch.setattr("platform.node", lambda: "another machine")
    assert build.key(command) != keys["nothing"], "one that says nothing has the machine's name"


@needs_compiler
def test_other_flags_and_other_systems_have_libraries_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    key = build.key(build.command())
    monkeypatch.setenv("WIDEHEAD_KERNEL_FLAGS", "-g")
    assert build.key(build.command()) != key
    monkeypatch.delenv("WIDEHEAD_KERNEL_FLAGS")
    assert build.key(build.command()) == key
    monkeypatch.setattr("platform.libc_ver", lambda: ("glibc", "2.0"))
    assert build.key(build.command()) != key


def disassembled(library_: bytes, folder: Path) -> str:
    tool = shutil.which("objdump")
    if tool is None:
        pytest.skip("needs objdump")
    (folder / "made.so").write_bytes(library_)
    return subprocess.run([tool, "-d", str(folder / "made.so")], capture_output=True, text=True, check=True).stdout


@needs_compiler
@pytest.mark.long
@pytest.mark.skipif(platform.machine() != "x86_64", reason="AVX is x86's")
def test_machines_with_avx_512_have_code_of_their_own_in_a_home_that_they_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is compiled for one has instructions that another lacks, so it has another name."""
    sections, keys = {}, set()
    for level in ("x86-64-v3", "x86-64-v4"):
        monkeypatch.setenv("WIDEHEAD_KERNEL_FLAGS", f"-march={level} -mprefer-vector-width=512")
        command = build.command()
        keys.add(build.key(command))
        sections[level] = disassembled(build.compiled(command), tmp_path)
    assert len(keys) == 2
    assert "%ymm" in sections["x86-64-v3"]
    assert "%zmm" not in sections["x86-64-v3"]
    assert "%zmm" in sections["x86-64-v4"]
