"""Every reader on random bytes and on mangled valid files: a result that holds together, or a DataError."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.packing import PACK

from widehead.data import (
    END,
    Vocabulary,
    count_words,
    encode,
    read_interactions,
    read_multilabel,
    read_sequences,
    read_thesaurus,
)
from widehead.errors import DataError

SOUND = [
    b"u1 i1 i2\nu2\nu3 i1\n",
    b"user,item,rating\nu,a,1\nv,b,2.5\n",
    b'u,"a, b"\nv,c\n',
    b"session,item,time\nu,a,2026-01-02\nu,b,2026-01-01T10:00:00Z\n",
    b"u\ta\t3\nv\tb\t4\n",
    b"3 5 4\n0,2 1:0.5 4:2\n 3:1.5\n3\n",
    b"red blue\tThe cat sat\nblue\tA dog sat\n\tthe dog\n",
    "<doc id=1>\nSome naïve words, 42 of them.\n</doc>\n".encode(),
]
ALPHABET = b"0123456789,:\t \n\r\"'.-+eEnaifuser_item<doc>\x00\xff\xc3\xa9"
MANGLED = st.builds(
    lambda start, cut, more, rest: start[: cut % (len(start) + 1)] + more + start[rest % (len(start) + 1) :],
    st.sampled_from(SOUND),
    st.integers(0, 60),
    st.binary(max_size=4) | st.lists(st.sampled_from(ALPHABET), max_size=12).map(bytes),
    st.integers(0, 60),
)
ANY = st.binary(max_size=80) | st.lists(st.sampled_from(ALPHABET), max_size=60).map(bytes) | MANGLED


def check_interactions(path: Path) -> None:
    found = read_interactions(path)
    assert found.matrix.shape == (len(found.users), len(found.items))
    assert found.matrix.nnz > 0
    assert bool(np.isfinite(found.matrix.data).all())


def check_multilabel(path: Path) -> None:
    found = read_multilabel(path)
    rows = found.labels.shape[0]
    assert rows == found.features.shape[0] == len(found.unreachable) > 0
    assert found.features.shape[1] == found.schema.num_features > 0
    assert found.labels.shape[1] == found.schema.num_labels > 0
    assert bool(np.isfinite(found.features.data).all())
    again = read_multilabel(path, schema=found.schema)
    assert np.array_equal(again.labels.indices, found.labels.indices)


def check_text(path: Path) -> None:
    for tokens in ("words", "whitespace"):
        counts = count_words(path, tokens)  # type: ignore[arg-type]
        vocabulary = Vocabulary.from_counts(counts, keep=[END])
        assert len(encode(path, vocabulary, tokens)) == sum(counts.values())  # type: ignore[arg-type]


def check_sequences(path: Path) -> None:
    found = read_sequences(path)
    assert found.offsets[0] == 0
    assert found.offsets[-1] == len(found.ids)
    assert bool((np.diff(found.offsets) >= 0).all())
    assert sorted(found.order.tolist()) == list(range(len(found)))
    assert np.array_equal(np.unique(found.ids), np.arange(len(found.items)))
    again = read_sequences(path, found.items)
    assert np.array_equal(again.ids, found.ids)
    assert again.names is not None
    assert len(again.names) == len(found)


def check_names(path: Path) -> None:
    assert len(Vocabulary.load(path)) > 0


def check_thesaurus(path: Path) -> None:
    assert read_thesaurus(path).matrix.nnz > 0


READERS: dict[str, Callable[[Path], None]] = {
    "interactions": check_interactions,
    "sequences": check_sequences,
    "multilabel": check_multilabel,
    "text": check_text,
    "vocabulary": check_names,
    "thesaurus": check_thesaurus,
}


def run(reader: str, path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        READERS[reader](path)
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017
        assert str(path) in str(error)  # noqa: PT017


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "file"


@pytest.mark.parametrize("reader", READERS)
@given(data=ANY)
@settings(max_examples=100)
def test_any_bytes(path: Path, reader: str, data: bytes) -> None:
    run(reader, path, data)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("packing", [kind for kind in PACK if kind != "plain"])
@given(start=st.sampled_from(SOUND), at=st.integers(0, 400), flip=st.integers(0, 255), cut=st.booleans())
@settings(max_examples=40)
def test_damaged_packing(path: Path, reader: str, packing: str, start: bytes, at: int, flip: int, cut: bool) -> None:
    data = bytearray(PACK[packing](start))
    at %= len(data)
    data[at] ^= flip
    run(reader, path, bytes(data[:at] if cut else data))


@pytest.fixture(scope="module")
def parquet(path: Path) -> bytes:
    columns: dict[str, Any] = {"user": ["u", "v", "w"], "item": [1, 2, 3], "rating": [1.0, 2.0, 3.0], "time": [3, 1, 2]}
    polars.DataFrame(columns).write_parquet(path)
    return path.read_bytes()


@given(at=st.integers(4, 10_000), piece=st.binary(min_size=1, max_size=3), cut=st.booleans())
# The same examples each time: polars itself crashes at rare ones, which takes the whole process with it.
@settings(max_examples=150, derandomize=True)
def test_damaged_parquet(path: Path, parquet: bytes, at: int, piece: bytes, cut: bool) -> None:
    at = 4 + at % (len(parquet) - 4)
    damaged = parquet[:at] if cut else parquet[:at] + piece + parquet[at + len(piece) :]
    for reader in ("interactions", "sequences"):
        run(reader, path, damaged)


@pytest.mark.parametrize("reader", ["interactions", "sequences"])
def test_parquet_whose_text_is_no_utf8_is_refused(reader: str, path: Path) -> None:
    columns: dict[str, Any] = {"user": ["u", "vvv", "w"], "item": [1, 2, 3], "rating": [1.0, 2.0, 3.0]}
    polars.DataFrame(columns).write_parquet(path, compression="uncompressed", statistics=False)
    whole = path.read_bytes()
    assert whole.count(b"vvv") == 1
    path.write_bytes(whole.replace(b"vvv", b"\xe8vv"))
    with pytest.raises(DataError, match="the Parquet data cannot be read"):
        {"interactions": read_interactions, "sequences": read_sequences}[reader](path)
