"""Checkpoints: one safetensors file each, whole or not there, never pickle.

A checkpoint is a tree of dicts, lists, numbers, texts and tensors. Its tensors are the file's tensors, under the
names of their paths in the tree ("encoder.embeddings.weight"); the rest is JSON in the file's metadata:

    8 bytes          length of the header
    header           {"__metadata__": {"crc32": ..., "widehead": JSON of the tree}, NAME: {dtype, shape, offsets}, ...}
    payload          the tensors, one after the other

The file is written here rather than by the safetensors package, because the check sum (over all of it) and the sync to
disk belong to it; tensors go to the file from where they lie, without a copy. It is read here because tensors of a
file larger than memory are to leave memory again while they are copied (`widehead.mapped.leave`).
"""

import itertools
import json
import math
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, distributed

from widehead import mapped
from widehead.errors import CheckpointError
from widehead.split import InTurn, is_split, telling
from widehead.training.folder import atomic_write, expecting

__all__ = ["load_checkpoint", "save_checkpoint"]

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_TYPES = {name: dtype for dtype, name in _DTYPES.items()}
_CHUNK = 1 << 21
_PREFIX = b'{"__metadata__":{"crc32":"'
_NO_SUM = b"00000000"


def save_checkpoint(path: Path, tree: dict[str, Any]) -> None:
    """Write ``tree`` to ``path``, in the place of what was there.

    If rows of a tensor are split over processes (DTensor, `Shard(0)`) or dealt out (`InTurn`), all of them call this.
    The first one writes, what one process would: it has a block of others' rows at a time. If it cannot, the others
    have given theirs all the same and wait for nothing; it alone raises.

    Raises:
        CheckpointError: the file cannot be written, as on a full disk; what was at ``path`` is still there, whole.
        TypeError: the tree holds something else than dicts, lists, tuples, tensors, numbers, texts and None.
    """
    tensors: dict[str, Any] = {}
    structure = _pack(tree, "", tensors)
    # The widest numbers first, so that each lies at a multiple of its size.
    tensors = dict(sorted(tensors.items(), key=lambda item: -item[1].element_size()))
    ranks = [rank for tensor in tensors.values() if (rank := _rank(tensor)) is not None]
    if any(ranks):
        _hear(itertools.chain.from_iterable(_bytes_of(part) for part in tensors.values() if _rank(part) is not None))
        return
    pieces = itertools.chain.from_iterable(map(_bytes_of, tensors.values()))
    try:
        with atomic_write(path) as file:
            _write(file, _header(tensors, json.dumps(structure, separators=(",", ":"))), pieces)
    except CheckpointError:
        if ranks:
            _hear(pieces)
        raise


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The tree that ``save_checkpoint`` wrote; its tensors are views of the file until they are written to.

    Raises:
        CheckpointError: names the file and whether it is missing, no checkpoint of this library, or damaged.
    """
    try:
        with path.open("rb") as file:
            start, header = _verified_header(path, file)
            # Of the file that was verified: another process may put a new one in its place at any time.
            return _tree(path, file, start, header)
    except FileNotFoundError as error:
        raise CheckpointError(f"There is no checkpoint {path}.") from error
    except OSError as error:
        raise CheckpointError(f"Checkpoint {path} cannot be read: {error}.") from error


def _hear(pieces: Iterator[memoryview]) -> None:
    """Take part in what processes tell one another of the pieces, and keep nothing of it."""
    for _ in pieces:
        pass


def _write(file: BinaryIO, header: bytes, pieces: Iterator[memoryview]) -> None:
    start = len(header).to_bytes(8, "little") + header
    file.write(start)
    total = zlib.crc32(start)
    for piece in pieces:
        file.write(piece)
        total = zlib.crc32(piece, total)
    # The sum covers the whole file with zeros in the sum's own place.
    file.seek(8 + len(_PREFIX))
    file.write(f"{total:08x}".encode())


def _header(tensors: dict[str, Any], structure: str) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"crc32": _NO_SUM.decode(), "widehead": structure}}
    offset = 0
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES or tensor.layout != torch.strided:
            raise TypeError(f"Tensor {name} cannot be saved: dtype {tensor.dtype}, layout {tensor.layout}.")
        end = offset + tensor.numel() * tensor.element_size()
        entries[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    header = json.dumps(entries, separators=(",", ":")).encode()
    return header + b" " * (-len(header) % 8)


def _rank(tensor: Any) -> int | None:
    """Of this process among those that have parts of it; None if it is all here."""
    if isinstance(tensor, InTurn):
        return tensor.rank
    rank: int | None = tensor.device_mesh.get_local_rank() if is_split(tensor) else None
    return rank


def _bytes_of(tensor: Any) -> Iterator[memoryview]:
    """The bytes of a tensor, row-major; all processes that have parts of it ask together."""
    if isinstance(tensor, InTurn):
        return (piece for part in tensor.pieces() for piece in _pieces(part))
    return _split_pieces(tensor) if is_split(tensor) else _pieces(tensor)


def _split_pieces(tensor: Any) -> Iterator[memoryview]:
    """The bytes of the rows that all processes have, in the first one; the others send it theirs."""
    group, rank = tensor.device_mesh.get_group(), tensor.device_mesh.get_local_rank()
    here, size = tensor.to_local().detach(), tensor.device_mesh.size()
    most = -(-tensor.shape[0] // size)
    step = max(1, _CHUNK // max(1, math.prod(tensor.shape[1:]) * tensor.element_size()))
    for owner in range(size):
        count = max(0, min(most, tensor.shape[0] - owner * most))
        for start in range(0, count, step):
            shape = (min(step, count - start), *tensor.shape[1:])
            block = here[start : start + shape[0]] if rank == owner else here.new_empty(shape if rank == 0 else 0)
            with telling():
                if owner > 0 and rank == owner:
                    distributed.send(block.contiguous(), group=group, group_dst=0)
                elif owner > 0 and rank == 0:
                    distributed.recv(block, group=group, group_src=owner)
            if rank == 0:
                yield from _pieces(block)


def _pieces(tensor: Tensor) -> Iterator[memoryview]:
    """The bytes of a tensor, row-major, a bounded number at a time."""
    flat = tensor.detach().contiguous().reshape(-1)
    step = max(1, _CHUNK // max(1, tensor.element_size()))
    for start in range(0, flat.numel(), step):
        yield flat[start : start + step].cpu().view(torch.uint8).numpy().data


def _verified_header(path: Path, file: BinaryIO) -> tuple[int, bytes]:
    """Where the payload begins, and the header, once the file has proved to be a checkpoint of ours and undamaged."""
    size = file.read(8)
    start = file.read(len(_PREFIX))
    if start != _PREFIX:
        what = "something else" if size else "an empty file"
        raise CheckpointError(f"{path} should be a checkpoint of widehead. Found {what}.")
    found = file.read(len(_NO_SUM))
    rest = min(int.from_bytes(size, "little"), os.fstat(file.fileno()).st_size) - len(_PREFIX) - len(_NO_SUM)
    header = _PREFIX + _NO_SUM + file.read(max(0, rest))
    total = zlib.crc32(size + header)
    while piece := file.read(_CHUNK):
        total = zlib.crc32(piece, total)
    if f"{total:08x}".encode() != found:
        raise CheckpointError(f"Checkpoint {path} is damaged: its check sum is wrong. It was cut short or changed.")
    return len(size) + len(header), header


def _tree(path: Path, file: BinaryIO, start: int, header: bytes) -> dict[str, Any]:
    """The tree of a file whose payload begins at ``start``; its check sum says nothing of who wrote it."""
    with expecting(path, "what this version of widehead writes; its check sum is right"):
        entries = json.loads(header)
        structure = json.loads(entries.pop("__metadata__")["widehead"])
        size = os.fstat(file.fileno()).st_size
        file_map = mapped.open_private(file)
        tree = _unpack(structure, {k: _view(file_map, start, size, entry) for k, entry in entries.items()})
        if not isinstance(tree, dict):
            raise TypeError(f"a tree that is a {type(tree).__name__}")
        return tree


def _view(file_map: mapped.Map, start: int, size: int, entry: dict[str, Any]) -> Tensor:
    """The tensor of an entry of the header, where it lies in a file of ``size``; the payload begins at ``start``."""
    dtype, shape, (begin, end) = _TYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    count = math.prod(shape)
    if min(shape, default=0) < 0 or not 0 <= begin <= end <= size - start or end - begin != count * dtype.itemsize:
        raise ValueError(f"a tensor of shape {shape} in bytes {begin} to {end} of {size - start}")
    return file_map.tensor(dtype, shape, start + begin)


def _pack(node: Any, path: str, tensors: dict[str, Any]) -> Any:
    """``node`` as JSON, its tensors moved to ``tensors``. Dicts become lists of pairs, which keeps integer keys."""
    if isinstance(node, Tensor | InTurn):
        tensors[path] = node
        return {"tensor": path}
    if isinstance(node, dict):
        return {"dict": [[k, _pack(v, f"{path}.{k}" if path else str(k), tensors)] for k, v in node.items()]}
    if isinstance(node, list | tuple):
        kind = "list" if isinstance(node, list) else "tuple"
        return {kind: [_pack(v, f"{path}.{i}", tensors) for i, v in enumerate(node)]}
    if node is None or isinstance(node, bool | int | float | str):
        return node
    raise TypeError(f"{path} cannot be saved in a checkpoint: {type(node).__name__}.")


def _unpack(node: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of ``_pack``."""
    if not isinstance(node, dict):
        return node
    ((kind, value),) = node.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {k: _unpack(v, tensors) for k, v in value}
    items = [_unpack(v, tensors) for v in value]
    return items if kind == "list" else tuple(items)
