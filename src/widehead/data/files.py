"""Text files as lines or blocks, decompressed on the fly; whatever is wrong with a file becomes one DataError.

Compression is detected by the first bytes of the file (gzip, xz, zstd), so its name does not matter.
"""

import gzip
import lzma
import math
import os
import re
import shutil
import stat
import tempfile
import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from io import BufferedReader
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import BinaryIO, TypeAlias

from widehead.errors import DataError
from widehead.progress import Work

FilePath: TypeAlias = str | PathLike[str]

_GZIP, _XZ, _ZSTD = b"\x1f\x8b", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"
_BLOCK = 1 << 20
_LONGEST_LINE = 1 << 30  # bytes; a few kilobytes of compressed data may unpack to more than memory holds
# Small, because zstd may expand zeros by a factor of 30,000: 32 MB from one piece.
_ZSTD_INPUT = 1 << 10
_PLAIN = re.compile(r"[^\s,;'\"]{1,60}")
_NO_FILES = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
# Packed and binary files of other kinds by their first 8 bytes, and what to do with them.
_FOREIGN = {
    rb"BZh[1-9]1AY&": "bzip2 data; unpack them with bunzip2",
    rb"PK\x03\x04": "a zip archive (.zip, .xlsx, .npz); unpack it, or save its table as CSV",
    rb"7z\xbc\xaf|Rar!\x1a": "an archive; unpack it",
    rb"\x04\x22M\x18": "lz4 data; unpack them with lz4",
    rb"%PDF-": "a PDF document; take its text out, as with pdftotext",
    rb"PAR1": "Parquet, which only a recommender reads; write it as text",
    rb"\x89HDF|\x93NUMPY|\x80[\x02-\x05]|SQLite f|ARROW1|Obj\x01": "binary data of another program; write them as text",
}


@contextmanager
def open_text(path: FilePath) -> Iterator[Iterator[str]]:
    """Open a UTF-8 text file, plain or compressed, as an iterator of its lines without their line ends.

    A line ends at a line feed, a carriage return, or one before the other; a byte-order mark is dropped.

    Raises:
        DataError: the file is missing, a folder, a pipe or a device, unreadable, empty, binary, not UTF-8, or its
            compressed data are truncated or corrupt. The message names the file and, if it applies, the line.
    """
    with closing(text_blocks(path)) as blocks, closing(_lines(blocks)) as lines:
        yield lines


def is_file(data: object) -> bool:
    """Whether data are the path of a file, and not in memory."""
    return isinstance(data, str | PathLike)


def named(data: object) -> str:
    """What errors call some data: the path of a file, or that they are in memory."""
    return str(data) if is_file(data) else "data in memory"


@contextmanager
def whole_file(path: FilePath) -> Iterator[Path]:
    """The file itself or, for a pipe, a temporary one with all that comes through it."""
    if not is_pipe(path):
        yield Path(path)
        return
    with Path(path).open("rb") as pipe, copied(pipe, str(path)) as copy:
        yield copy


def is_pipe(path: FilePath) -> bool:
    """Whether it is a pipe: named, of a shell's ``<(command)``, or standard input at the end of one."""
    try:
        return stat.S_ISFIFO(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return False


@contextmanager
def copied(source: BinaryIO, name: str) -> Iterator[Path]:
    """A temporary file with all that a stream holds; errors call it by the name of the stream."""
    with tempfile.TemporaryDirectory(prefix="widehead-") as folder:
        copy = Path(folder) / "copy"
        with copy.open("wb") as file:
            shutil.copyfileobj(source, file)
        try:
            yield copy
        except DataError as error:
            raise DataError(str(error).replace(str(copy), name)) from error


def text_blocks(path: FilePath) -> Generator[str, None, None]:
    """The text of a file in blocks of about a megabyte, each ending at the end of a line. Raises as ``open_text``.

    Every end of a line is a line feed here.
    """
    line, kept = 1, [b""]
    for chunk in _line_feeds(byte_chunks(path)):
        _refuse_binary(path, chunk, line)
        end = chunk.rfind(b"\n") + 1
        if end == 0:
            kept.append(chunk)
            if sum(map(len, kept)) > _LONGEST_LINE:
                raise DataError(f"{path}, line {line}: expected lines of at most {_LONGEST_LINE:,} bytes. Found more.")
            continue
        block = b"".join([*kept, chunk[:end]])
        yield _decode(path, block, line)
        line += block.count(b"\n")
        kept = [chunk[end:]]
    rest = _decode(path, b"".join(kept), line)
    if rest:
        yield rest
    elif line == 1:
        raise DataError(f"{path}: the file is empty.")


def _line_feeds(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks with a line feed for every end of a line, be it of Windows (written twice, too) or of old Macs."""
    held = b""
    for chunk in chunks:
        chunk = held + chunk
        held = chunk[-2:] if chunk.endswith(b"\r\r") else chunk[-1:] if chunk.endswith(b"\r") else b""
        yield _unix(chunk[: len(chunk) - len(held)])
    yield _unix(held)


def _unix(text: bytes) -> bytes:
    return text.replace(b"\r\r\n", b"\n").replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def first_bytes(path: FilePath) -> bytes:
    """The first bytes (up to 8) of a file as it lies on the disk. Raises DataError if it cannot be read."""
    with _open(path) as file:
        return file.peek(8)[:8]


def first_filled(lines: Iterator[str]) -> tuple[int, str]:
    """How many blank lines come first, and the line after them ("" if there is none); both are consumed."""
    skipped = 0
    for line in lines:
        if line.strip():
            return skipped, line
        skipped += 1
    return skipped, ""


def first_lines(path: FilePath, most: int = 200) -> list[tuple[int, str]]:
    """The first lines that are not blank, up to ``most`` and about a megabyte, with their numbers from 1.

    Raises as ``open_text``.
    """
    found, size = [], 0
    with open_text(path) as lines:
        for number, line in islice(((n, line) for n, line in enumerate(lines, 1) if line.strip()), most):
            found.append((number, line))
            size += len(line)
            if size > _BLOCK:
                break
    return found


def listed(names: Iterable[str]) -> str:
    """The first three names as a sentence shows them: what could be misread, or be none for a terminal, in quotes."""
    return ", ".join(n if _PLAIN.fullmatch(n) and n.isprintable() else shortened(n) for n in islice(names, 3))


def shortened(value: object) -> str:
    """A value as messages show it."""
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:60] + "…"


def finite(text: str, most: float, expected: str) -> float:
    """The number that a text shows; ValueError, saying what was expected, if it is none in [-most, most]."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= most:
        raise ValueError(f"expected {expected}. Found {shortened(text)}")
    return value


def _lines(blocks: Iterator[str]) -> Generator[str, None, None]:
    for block in blocks:
        lines = block.split("\n")
        if lines[-1] == "":
            lines.pop()
        yield from lines


def _decode(path: FilePath, block: bytes, line: int) -> str:
    try:
        text = block.decode("utf-8")
    except UnicodeDecodeError as error:
        at = line + block.count(b"\n", 0, error.start)
        raise DataError(
            f"{path}, line {at}: expected UTF-8 text. Found byte 0x{block[error.start]:02x}, which is not UTF-8."
        ) from error
    return text.removeprefix("\ufeff") if line == 1 else text


def _refuse_binary(path: FilePath, chunk: bytes, line: int) -> None:
    if line == 1 and chunk.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: expected UTF-8 text. Found UTF-16; save the file as UTF-8.")
    at = chunk.find(b"\0")
    if at >= 0:
        number = line + chunk.count(b"\n", 0, at)
        raise DataError(f"{path}, line {number}: expected a text file. Found a zero byte, so this is a binary file.")


@contextmanager
def _open(path: FilePath) -> Iterator[BufferedReader]:
    """Open a file for reading bytes; errors of the file system become DataError."""
    place = Path(path)
    try:
        kind = stat.S_IFMT(place.stat().st_mode)
        if kind == stat.S_IFDIR:
            raise DataError(f"{path}: expected a file. Found a folder.")
        if kind in _NO_FILES:  # readers read twice, which only files allow
            raise DataError(f"{path}: expected a file. Found {_NO_FILES[kind]}; save what it gives to a file first.")
        with place.open("rb") as file:
            yield file
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file.") from error
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read ({error.strerror or error}).") from error
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{str(path)!r}: this cannot be the name of a file.") from error


def byte_chunks(path: FilePath) -> Iterator[bytes]:
    """The decompressed bytes of a file in chunks of about a megabyte. Raises DataError."""
    with _open(path) as file:
        work = Work(f"reading {Path(path).name}", os.fstat(file.fileno()).st_size)
        for chunk in _chunks(path, file):
            work.at(file.tell())
            yield chunk


def _chunks(path: FilePath, file: BufferedReader) -> Iterator[bytes]:
    start = file.peek(8)
    for magic, what in _FOREIGN.items():
        if re.match(magic, start):
            raise DataError(f"{path}: expected text, plain or packed by gzip, xz or zstd. Found {what}.")
    if start.startswith(_GZIP):
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield from _unpacked(path, "gzip", unpacked)
    elif start.startswith(_XZ):
        with lzma.LZMAFile(file) as unpacked_xz:
            yield from _unpacked(path, "xz", unpacked_xz)
    elif start.startswith(_ZSTD):
        yield from _unzstd(path, file)
    else:
        yield from iter(lambda: file.read(_BLOCK), b"")


def _unpacked(path: FilePath, kind: str, file: gzip.GzipFile | lzma.LZMAFile) -> Iterator[bytes]:
    while True:
        try:
            chunk = file.read(_BLOCK)
        except EOFError as error:
            raise DataError(f"{path}: the {kind} data are truncated.") from error
        except (gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
            raise DataError(f"{path}: the {kind} data are corrupt ({error}).") from error
        except MemoryError as error:  # an xz header may ask for 4 GiB
            raise DataError(f"{path}: unpacking the {kind} data needs more memory than there is.") from error
        if not chunk:
            return
        yield chunk


def _unzstd(path: FilePath, file: BufferedReader) -> Iterator[bytes]:
    """Frame after frame. (``stream_reader`` of the package would not notice a truncated last frame.)"""
    import zstandard

    frame = zstandard.ZstdDecompressor().decompressobj()
    rest = b""
    try:
        while piece := rest or file.read(_ZSTD_INPUT):
            if frame.eof:
                frame = zstandard.ZstdDecompressor().decompressobj()
            if chunk := frame.decompress(piece):
                yield chunk
            rest = frame.unused_data if frame.eof else b""
    except zstandard.ZstdError as error:
        raise DataError(f"{path}: the zstd data are corrupt ({error}).") from error
    if not frame.eof:
        raise DataError(f"{path}: the zstd data are truncated.")
