"""Lines and blocks of text files, and every way a file can be wrong."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.packing import PACK

from widehead.data.files import first_filled, open_text, text_blocks
from widehead.errors import DataError

TEXT = "first line\nsecond ü line\n\nlast, without an end"
LINES = ["first line", "second ü line", "", "last, without an end"]
COMPRESSED = [kind for kind in PACK if kind != "plain"]


def write(folder: Path, data: bytes, name: str = "file.txt") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def lines_of(path: Path) -> list[str]:
    with open_text(path) as lines:
        return list(lines)


def refusal(path: Path | str) -> str:
    with pytest.raises(DataError) as caught, open_text(path) as lines:
        list(lines)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", PACK)
def test_lines_whatever_the_compression_and_the_name(tmp_path: Path, kind: str) -> None:
    for name in ("file.txt", "file.gz", "file.zst", "file"):
        assert lines_of(write(tmp_path, PACK[kind](TEXT.encode()), name)) == LINES


@pytest.mark.parametrize("kind", COMPRESSED)
def test_files_packed_in_several_parts(tmp_path: Path, kind: str) -> None:
    parts = [PACK[kind](part.encode()) for part in ("one\ntw", "o\n", "", "three\n")]
    assert lines_of(write(tmp_path, b"".join(parts))) == ["one", "two", "three"]


def test_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    data = "\ufeffa\r\nb\u2028c\x85d\x0be\r\n\n".encode()
    assert lines_of(write(tmp_path, data)) == ["a", "b\u2028c\x85d\x0be", ""]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
@pytest.mark.parametrize("chunk", [1, 2, 3, 1 << 20])
def test_every_line_end_wherever_a_chunk_ends(
    tmp_path: Path, end: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, end.join(["ann fox", "", "bob\tü", "eve"]).encode())
    monkeypatch.setattr("widehead.data.files._BLOCK", chunk)
    for text in ("", end):
        path.write_bytes(path.read_bytes() + text.encode())
        assert lines_of(path) == ["ann fox", "", "bob\tü", "eve"]


def test_lines_are_counted_by_every_end(tmp_path: Path) -> None:
    assert "line 3: expected UTF-8 text" in refusal(write(tmp_path, b"a\rb\r\n\xff\r"))
    assert "line 2: expected a text file" in refusal(write(tmp_path, b"a\rb\0\r"))


def test_pipes_and_devices_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # nobody writes to it: opening it would hang
    assert "expected a file. Found a pipe; save what it gives to a file first" in refusal(tmp_path / "pipe")
    assert "expected a file. Found a device" in refusal("/dev/null")
    place = socket.socket(socket.AF_UNIX)
    place.bind(str(tmp_path / "s"))
    place.close()
    assert "Found a socket" in refusal(tmp_path / "s")


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"BZh91AY&SY" + bytes(9), "bzip2"),
        (b"PK\x03\x04" + bytes(9), "a zip archive"),
        (b"%PDF-1.7\n1 0 obj\n", "a PDF document"),
        (b"\x93NUMPY\x01\x00", "binary data of another program"),
        (b"\x80\x04\x95", "binary data of another program"),
        (b"7z\xbc\xaf'\x1c", "an archive"),
    ],
)
def test_packed_and_binary_files_are_named(tmp_path: Path, data: bytes, what: str) -> None:
    assert f"expected text, plain or packed by gzip, xz or zstd. Found {what}" in refusal(write(tmp_path, data))


def test_blocks_end_at_lines_and_lose_nothing(tmp_path: Path) -> None:
    text = "".join(f"line {i} ü\n" for i in range(200_000)) + "end"
    blocks = list(text_blocks(write(tmp_path, text.encode())))
    assert len(blocks) > 2
    assert "".join(blocks) == text
    assert all(block.endswith("\n") for block in blocks[:-1])


def test_one_line_longer_than_a_block(tmp_path: Path) -> None:
    long = "ab" * 1_500_000
    assert lines_of(write(tmp_path, f"{long}\nx\n".encode())) == [long, "x"]


def test_a_reader_that_stops_early_leaves_the_file_closed(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    with open_text(write(tmp_path, TEXT.encode())) as lines:
        assert next(lines) == "first line"
    assert list(lines) == []
    assert not recwarn.list


def test_first_filled() -> None:
    assert first_filled(iter(["", "  ", "x", "y"])) == (2, "x")
    assert first_filled(iter(["", ""])) == (2, "")


def test_what_is_no_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.txt").endswith("none.txt: there is no such file.")
    assert refusal(tmp_path).endswith("expected a file. Found a folder.")
    assert "cannot be the name of a file" in refusal("a\0b")
    assert "cannot be read" in refusal(write(tmp_path, b"x") / "below.txt")
    assert "cannot be read" in refusal("x" * 5000)


def test_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path, b"x")
    monkeypatch.setattr(Path, "open", refuse)
    assert refusal(path).endswith("the file cannot be read (Permission denied).")


@pytest.mark.parametrize("kind", PACK)
def test_an_empty_file(tmp_path: Path, kind: str) -> None:
    for nothing in (b"", b"\xef\xbb\xbf"):  # a byte-order mark is no text
        assert refusal(write(tmp_path, PACK[kind](nothing))).endswith("the file is empty.")


def test_binary_and_undecodable_files_name_the_line(tmp_path: Path) -> None:
    assert "line 2: expected a text file. Found a zero byte" in refusal(write(tmp_path, b"a\nb\0c\n"))
    assert "line 3: expected UTF-8 text. Found byte 0xff" in refusal(write(tmp_path, b"a\n\nb\xff\n"))
    assert "Found UTF-16" in refusal(write(tmp_path, "abc".encode("utf-16")))
    late = b"fine\n" * 500_000 + b"\xe9t\xe9\n"
    assert "line 500001: expected UTF-8 text. Found byte 0xe9" in refusal(write(tmp_path, late))
    late = b"fine\n" * 500_000 + b"\0\n"
    assert "line 500001: expected a text file" in refusal(write(tmp_path, late))


@pytest.mark.parametrize("kind", COMPRESSED)
def test_truncated_data_are_refused(tmp_path: Path, kind: str) -> None:
    packed = PACK[kind]("".join(f"line {i * i}\n" for i in range(30_000)).encode())
    for length in (7, len(packed) // 2, len(packed) - 3):
        message = refusal(write(tmp_path, packed[:length]))
        assert f"the {kind} data are truncated" in message or f"the {kind} data are corrupt" in message


@pytest.mark.parametrize("kind", COMPRESSED)
def test_corrupt_data_are_refused(tmp_path: Path, kind: str) -> None:
    packed = bytearray(PACK[kind](bytes(range(1, 128)) * 900))
    packed[len(packed) // 2 :] = b"\xa5" * (len(packed) - len(packed) // 2)
    message = refusal(write(tmp_path, bytes(packed)))
    assert f"the {kind} data are corrupt" in message or f"the {kind} data are truncated" in message


def test_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    packed = bytearray(PACK["gzip"](TEXT.encode()))
    packed[-6] ^= 1
    assert "the gzip data are corrupt (CRC check failed" in refusal(write(tmp_path, bytes(packed)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@given(data=st.binary(max_size=200), start=st.sampled_from([b"", b"\x1f\x8b", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"]))
def test_any_bytes_give_lines_or_a_refusal(folder: Path, data: bytes, start: bytes) -> None:
    path = write(folder, start + data)
    try:
        lines = lines_of(path)
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:
        whole = (start + data).replace(b"\r\r\n", b"\n").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        assert "\n".join(lines).encode() in whole
