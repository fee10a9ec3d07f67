"""Tensors whose memory is a file: the system reads pages in and writes them out as they are needed."""

import math
import mmap
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from weakref import WeakValueDictionary

import torch
from torch import Tensor

# Every map that lives, by its first address, so that `leave` touches no other memory than theirs.
_MAPS: WeakValueDictionary[int, mmap.mmap] = WeakValueDictionary()
_PAGEOUT = 21  # MADV_PAGEOUT of Linux: pages leave memory and lose nothing
_ZEROS = 1 << 20
#: bytes before the numbers: whose the file is
PAGE = 4096
_OURS = b"widehead keeps rows of an output layer here, for as long as it trains. Whose: "
_ADVICE = hasattr(mmap, "MADV_NORMAL")  # whether the system takes any


def create(path: Path, dtype: torch.dtype, shape: Sequence[int], owner: str = "") -> Tensor:
    """A tensor of zeros whose memory is a new file at ``path``, which stays when the tensor is gone.

    The file begins with a page that says that it is ours and whose, before anything else is in it. The space is
    reserved at once, so that a full disk is an error here and not a crash (SIGBUS) at some later write.
    Reads are taken to be scattered; `expect` says when they are not.

    Raises:
        FileExistsError: there is something at ``path``; nobody's data are overwritten.
        OSError: the file cannot be made, as on a full disk; then nothing is left of it.
    """
    size = PAGE + math.prod(shape) * dtype.itemsize
    try:
        file = path.open("x+b", buffering=0)
    except FileExistsError as error:
        raise FileExistsError(
            f"There should be no file {path} yet. Found one: delete it if nobody needs it, or choose another path."
        ) from error
    with file:
        try:
            file.write(_page(owner))
            _reserve(file.fileno(), size)
            made = _kept(mmap.mmap(file.fileno(), size))
        except OSError as error:
            path.unlink()
            reason = error.strerror or str(error)
            raise OSError(error.errno, f"{size:,} bytes for {path} could not be reserved: {reason}.") from error
    if _ADVICE:  # rows are read here and there: each would bring 128 KiB with it otherwise
        made.memory.madvise(mmap.MADV_RANDOM)
    return made.tensor(dtype, shape, PAGE)


def remove(path: Path, owner: str) -> None:
    """Remove a file that `create` made for ``owner``, if there is one.

    Raises:
        FileExistsError: there is something else, which stays.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise FileExistsError(f"{path} should be a file of {owner}. Found a link, or no file.")
        with path.open("rb") as file:
            found = file.read(PAGE)
        if found != _page(owner):
            whose = found.removeprefix(_OURS).rstrip(b"\0").decode(errors="replace")
            what = f"one of {whose or 'no run'}" if found.startswith(_OURS) else "somebody's file"
            raise FileExistsError(f"{path} should be a file of {owner}. Found {what}.")
        path.unlink()


def _page(owner: str) -> bytes:
    """The first page of a file."""
    return (_OURS + os.fsencode(owner)).ljust(PAGE, b"\0")[:PAGE]


def _reserve(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    for start in range(PAGE, size, _ZEROS):
        os.write(descriptor, bytes(min(_ZEROS, size - start)))


@dataclass(frozen=True)
class Map:
    """A file in memory, which lives as long as a tensor of it."""

    memory: mmap.mmap

    def tensor(self, dtype: torch.dtype, shape: Sequence[int], offset: int = 0) -> Tensor:
        """The tensor whose bytes begin at ``offset``; each has a storage of its own, so that copies copy it alone."""
        count = math.prod(shape)
        if count == 0:
            return torch.empty(tuple(shape), dtype=dtype)
        return torch.frombuffer(self.memory, dtype=dtype, count=count, offset=offset).view(tuple(shape))


def open_private(file: BinaryIO) -> Map:
    """A file opened for reading; what is written to its tensors stays in memory and never reaches the file."""
    return _kept(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))


def _kept(memory: mmap.mmap) -> Map:
    _MAPS[torch.frombuffer(memory, dtype=torch.uint8).data_ptr()] = memory
    return Map(memory)


def leave(tensor: Tensor) -> None:
    """Say that ``tensor`` will not be read soon: if it lies in a map, its pages leave memory, and lose nothing.

    A file that is read once, from its beginning to its end, would otherwise stay in memory as long as its map. Does
    nothing for other tensors, nor if the system knows no such advice.
    """
    for memory, begin, end in _place(tensor):
        start = begin // mmap.PAGESIZE * mmap.PAGESIZE
        with suppress(OSError):  # Linux before 5.4: they stay until the memory is needed
            memory.madvise(_PAGEOUT, start, end - start)


def expect(tensor: Tensor) -> None:
    """Say that all of ``tensor``, which is contiguous, will be read next: the system begins to fetch it."""
    for memory, begin, end in _place(tensor):
        start = begin // mmap.PAGESIZE * mmap.PAGESIZE
        memory.madvise(mmap.MADV_WILLNEED, start, end - start)


def expect_rows(tensor: Tensor, ids: Tensor) -> None:
    """Say that the rows ``ids`` (n,) of a contiguous ``tensor`` (D, c) will be read next: they come side by side."""
    size = tensor.shape[1] * tensor.element_size()
    for memory, begin, _ in _place(tensor):
        for row in ids.tolist():
            at = begin + row * size
            start = at // mmap.PAGESIZE * mmap.PAGESIZE
            memory.madvise(mmap.MADV_WILLNEED, start, at + size - start)


def _place(tensor: Tensor) -> Iterator[tuple[mmap.mmap, int, int]]:
    """The map that ``tensor`` lies in and its first byte and last + 1 there; nothing if it lies in none."""
    if tensor.device.type != "cpu" or not _ADVICE:
        return
    begin, end = tensor.data_ptr(), tensor.data_ptr() + tensor.numel() * tensor.element_size()
    for first, memory in list(_MAPS.items()):
        if first <= begin < end <= first + len(memory):
            yield memory, begin - first, end - first
