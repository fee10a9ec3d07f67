"""Checkpoint files: whatever goes in comes back; whatever is not a whole checkpoint of this library is refused."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from widehead.errors import CheckpointError
from widehead.training import checkpoint as checkpoint_file
from widehead.training import folder
from widehead.training.checkpoint import load_checkpoint, save_checkpoint

TREE: dict[str, Any] = {
    "weights": {"a": torch.arange(12.0).reshape(3, 4), "b.c": torch.tensor(2.5, dtype=torch.float64)},
    "state": {0: {"step": torch.tensor(3), "betas": (0.9, 0.999)}, 7: [None, True, "text", float("inf")]},
    "empty": torch.zeros(0, 5, dtype=torch.int32),
    "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "flags": torch.tensor([True, False]),
}


def assert_equal(a: Any, b: Any) -> None:
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert type(a) is type(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    else:
        assert a == b


def test_a_tree_comes_back(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", TREE)
    assert_equal(load_checkpoint(tmp_path / "c"), TREE)
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


NUMBERS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
LEAVES = NUMBERS | st.lists(st.floats(width=32, allow_nan=False), max_size=4).map(torch.tensor)
KEYS = st.integers(0, 99) | st.text(alphabet="abé.", min_size=1, max_size=3).filter(lambda s: "." not in s)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(KEYS, st.recursive(LEAVES, lambda t: st.lists(t) | st.dictionaries(KEYS, t), max_leaves=8)))
def test_any_tree_comes_back(tmp_path_factory: pytest.TempPathFactory, tree: dict[Any, Any]) -> None:
    path = tmp_path_factory.mktemp("tree") / "c"
    save_checkpoint(path, tree)
    assert_equal(load_checkpoint(path), tree)


def test_the_file_is_what_the_safetensors_package_reads(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", TREE)
    tensors = safetensors.torch.load_file(tmp_path / "c")
    assert torch.equal(tensors["weights.a"], TREE["weights"]["a"])
    assert set(tensors) == {"weights.a", "weights.b.c", "state.0.step", "empty", "half", "flags"}


def test_tensors_that_are_not_contiguous_are_saved_row_major_in_pieces(tmp_path: Path) -> None:
    large, parameter = torch.arange(1_000_003.0)[:1_000_000], torch.nn.Parameter(torch.ones(3))  # two pieces
    tree = {"t": large.reshape(1000, 1000).T, "s": torch.arange(1_000_000)[::3], "p": parameter}
    save_checkpoint(tmp_path / "c", tree)
    loaded = load_checkpoint(tmp_path / "c")
    assert all(torch.equal(loaded[name], tree[name]) for name in tree)


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", torch.zeros(2, dtype=torch.complex64), torch.eye(2).to_sparse()])
def test_what_cannot_be_saved_is_refused_and_nothing_is_written(tmp_path: Path, value: Any) -> None:
    with pytest.raises(TypeError, match=r"x\.y"):
        save_checkpoint(tmp_path / "c", {"x": {"y": value}})
    assert list(tmp_path.iterdir()) == []


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", TREE)
    whole = (tmp_path / "c").read_bytes()
    for length in [*range(0, 60), len(whole) // 2, len(whole) - 1]:
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="cut"):
            load_checkpoint(tmp_path / "cut")


def test_every_changed_byte_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", TREE)
    whole = bytearray((tmp_path / "c").read_bytes())
    for at in [*range(60), *range(60, len(whole), 7)]:
        changed = whole.copy()
        changed[at] ^= 4
        (tmp_path / "changed").write_bytes(changed)
        with pytest.raises(CheckpointError, match="changed"):
            load_checkpoint(tmp_path / "changed")


def test_other_files_are_refused(tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.ones(3)}, tmp_path / "foreign")
    torch.save({"a": torch.ones(3)}, tmp_path / "pickle")
    (tmp_path / "text").write_text("hello, this is a text of some length")
    (tmp_path / "folder").mkdir()
    for name in ("foreign", "pickle", "text"):
        with pytest.raises(CheckpointError, match=f"{name} should be a checkpoint of widehead"):
            load_checkpoint(tmp_path / name)
    with pytest.raises(CheckpointError, match="folder"):
        load_checkpoint(tmp_path / "folder")
    with pytest.raises(CheckpointError, match=r"no checkpoint .*missing"):
        load_checkpoint(tmp_path / "missing")


@pytest.mark.parametrize("written", [0, 1, 300, 1200])
def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int) -> None:
    save_checkpoint(tmp_path / "c", TREE)

    class FullDisk:
        """A file on a disk with room for so many bytes."""

        def __init__(self, file: Any) -> None:
            self.file, self.room = file, written

        def write(self, data: Any) -> int:
            self.room -= len(bytes(data))
            if self.room < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return int(self.file.write(data))

    original = checkpoint_file._write
    monkeypatch.setattr(checkpoint_file, "_write", lambda file, *rest: original(FullDisk(file), *rest))
    with pytest.raises(CheckpointError, match=r"could not be written: No space left on device.*still valid"):
        save_checkpoint(tmp_path / "c", {"other": torch.ones(1000)})
    assert [p.name for p in tmp_path.iterdir()] == ["c"]
    assert_equal(load_checkpoint(tmp_path / "c"), TREE)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full, a device that is always full, is not here")
def test_a_really_full_device_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The temporary file is /dev/full here, so the system itself refuses the bytes."""
    save_checkpoint(tmp_path / "c", TREE)
    monkeypatch.setattr(folder, "new_file", lambda path: Path("/dev/full").open("wb"))  # noqa: SIM115
    with pytest.raises(CheckpointError, match="No space left on device"):
        save_checkpoint(tmp_path / "c", {"other": torch.ones(100_000)})
    assert_equal(load_checkpoint(tmp_path / "c"), TREE)


def test_a_failure_while_renaming_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path / "c", TREE)

    def refuse(*_: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(CheckpointError, match="Input/output error"):
        save_checkpoint(tmp_path / "c", {"x": 1})
    assert [p.name for p in tmp_path.iterdir()] == ["c"]
    assert_equal(load_checkpoint(tmp_path / "c"), TREE)


def test_a_checkpoint_that_is_replaced_while_it_is_read_is_the_one_that_was_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path / "c", {"step": 1, "weights": torch.ones(1_000)})
    original = checkpoint_file._verified_header

    def slow(*arguments: Any) -> Any:
        found = original(*arguments)
        save_checkpoint(tmp_path / "c", {"step": 2, "weights": torch.full((1_000,), 2.0)})
        return found

    monkeypatch.setattr(checkpoint_file, "_verified_header", slow)
    loaded = load_checkpoint(tmp_path / "c")
    assert loaded["step"] == 1
    assert bool((loaded["weights"] == 1).all())


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    """The reader knows JSON and safetensors only; pickle's opcodes are bytes of some other file to it."""
    source = Path(checkpoint_file.__file__).read_text()
    assert "import pickle" not in source
    assert "torch.load" not in source
