"""Text to words and to ids."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from widehead.data import END, UNKNOWN, Vocabulary, count_words, encode, read_words, subsample
from widehead.data.text import words_of
from widehead.errors import DataError

TEXT = """<doc id="12" url="http://x" title="A > B">
A title

The cat's 2 CATS; naïve_Ωmega!
...
</doc>
<doc>
<documents> stay
</doc>"""


def write(folder: Path, text: str) -> Path:
    path = folder / "text"
    path.write_bytes(text.encode())
    return path


def test_words_of_lines_without_markers(tmp_path: Path) -> None:
    path = write(tmp_path, TEXT)
    cat = ["the", "cat", "s", "2", "cats", "naïve", "ωmega"]
    assert list(read_words(path)) == [[], ["a", "title"], [], cat, [], [], [], ["documents", "stay"], []]
    upper = list(read_words(path, lowercase=False))
    assert upper[3] == ["The", "cat", "s", "2", "CATS", "naïve", "Ωmega"]
    assert list(read_words(path, "whitespace"))[2:] == [
        [],
        ["The", "cat's", "2", "CATS;", "naïve_Ωmega!"],
        ["..."],
        [],
        [],
        ["<documents>", "stay"],
        [],
    ]


def test_counts_and_sentence_ends(tmp_path: Path) -> None:
    path = write(tmp_path, "a b\n\n--\nB\n")
    assert count_words(path) == {"a": 1, "b": 2, END: 2}
    assert count_words(path, lowercase=False) == {"a": 1, "b": 1, "B": 1, END: 2}
    assert count_words(path, sentence_ends=False) == {"a": 1, "b": 2}
    assert count_words(path, "whitespace") == {"a": 1, "b": 1, "--": 1, "B": 1, END: 4}


def test_encoding(tmp_path: Path) -> None:
    path = write(tmp_path, "a b x\n\n!\r\nb a")
    words = Vocabulary([END, "a", "b"])
    assert encode(path, words).tolist() == [1, 2, 0, 2, 1, 0]
    assert encode(path, words, sentence_ends=False).tolist() == [1, 2, 2, 1]
    known = Vocabulary([END, "a", "b", UNKNOWN], unknown=UNKNOWN)
    assert encode(path, known).tolist() == [1, 2, 3, 0, 2, 1, 0]
    assert encode(path, known, "whitespace").tolist() == [1, 2, 3, 0, 0, 3, 0, 2, 1, 0]
    assert encode(path, known).dtype == np.int32


def test_a_text_of_many_blocks_is_encoded_like_one(tmp_path: Path) -> None:
    lines = [f"Word{i % 977} and {'x' * (i % 5)} {i % 13}!" for i in range(120_000)]
    path = write(tmp_path, "\n".join(["<doc a>", *lines, "</doc>"]))
    counts = count_words(path)
    expected = [w for line in lines for w in [*re.findall(r"[a-z0-9]+", line.lower()), END]]
    assert counts == Counter(expected)
    vocabulary = Vocabulary.from_counts(counts, minimum=200, unknown=UNKNOWN)
    assert [vocabulary[i] for i in encode(path, vocabulary)] == [w if w in vocabulary else UNKNOWN for w in expected]


@given(text=st.text(alphabet="aB1 \n\r.<>/doc_é\u2028", max_size=60))
def test_counts_lines_and_encoding_agree(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = write(tmp_path_factory.getbasetemp(), text + "\nword\n")
    lines = [line for line in read_words(path) if line]
    counts = count_words(path)
    assert counts == Counter([w for line in lines for w in [*line, END]])
    vocabulary = Vocabulary.from_counts(counts)
    assert [vocabulary[i] for i in encode(path, vocabulary)] == [w for line in lines for w in [*line, END]]
    plain = encode(path, vocabulary, sentence_ends=False)
    assert [vocabulary[i] for i in plain] == [w for line in lines for w in line]


def test_texts_without_words_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "--\n<doc x>\n\n")
    with pytest.raises(DataError, match=r"text: expected words\. Found none"):
        count_words(path)
    with pytest.raises(DataError, match=r"text: expected words of the vocabulary\. Found none"):
        encode(path, Vocabulary([END, "a"]))
    with pytest.raises(DataError, match="the file is empty"):
        list(read_words(write(tmp_path, "")))
    with pytest.raises(DataError, match=r"there is no such file"):
        count_words(tmp_path / "none")


def test_wrong_arguments(tmp_path: Path) -> None:
    path = write(tmp_path, "a")
    for call in (
        lambda: list(read_words(path, "chars")),
        lambda: count_words(path, "chars"),
        lambda: words_of("", "x"),
    ):
        with pytest.raises(ValueError, match="`tokens` should be 'words' or 'whitespace'"):
            call()
    with pytest.raises(ValueError, match="`vocabulary` should hold '</s>'"):
        encode(path, Vocabulary(["a"]))
    with pytest.raises(ValueError, match="`threshold` should be positive"):
        subsample(np.array([1]), 0.0, 0)


def test_subsampling_thins_frequent_words_alone() -> None:
    ids = np.repeat([0, 1], [90_000, 10_000]).astype(np.int32)
    kept = subsample(ids, 0.1, seed=3)
    share = np.bincount(kept) / [90_000, 10_000]
    assert share[0] == pytest.approx((0.1 / 0.9) ** 0.5, rel=0.03)
    assert share[1] == 1.0
    assert np.array_equal(kept, subsample(ids, 0.1, seed=3))
    assert kept.dtype == np.int32
    assert len(subsample(ids[:0], 0.1, seed=3)) == 0
