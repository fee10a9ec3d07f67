"""Vectors of words in memory, as gensim's users ask for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.memory_data import DATA, SMALL, fitted

import widehead as wh
from widehead.data import END, UNKNOWN
from widehead.errors import DataError

SENTENCES = DATA[wh.WordVectors][0]


@pytest.fixture(scope="module")
def words() -> Any:
    return fitted(wh.WordVectors)


def test_sentences_in_the_constructor_are_learnt(words: Any) -> None:
    again = wh.WordVectors(SENTENCES, **SMALL, subsample=1.0)
    texts = wh.WordVectors([" ".join(s) for s in SENTENCES], **SMALL, subsample=1.0)
    generated = wh.WordVectors((s for s in SENTENCES), **SMALL, subsample=1.0)
    for other in (again, texts, generated):
        assert other.most_similar("w3", 5) == words.most_similar("w3", 5)
    assert "sentences" not in again.get_params()


def unit(words: Any) -> tuple[list[str], np.ndarray]:
    vectors = words.vectors.astype(np.float64)
    return words.index_to_key, vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-30)


def ranked(words: Any, plus: list[str], minus: list[str]) -> list[tuple[str, float]]:
    """By a dense twin."""
    names, rows = unit(words)
    query = sum(rows[names.index(w)] for w in plus) - sum(rows[names.index(w)] for w in minus)
    cosines = rows @ (query / np.linalg.norm(query))
    left = [i for i, name in enumerate(names) if name not in {*plus, *minus, END, UNKNOWN}]
    return sorted(((names[i], float(cosines[i])) for i in left), key=lambda pair: -pair[1])


@pytest.mark.parametrize(
    ("plus", "minus"), [(["w3"], []), (["w3", "w9"], []), (["w3", "w9", "w1"], ["w4"]), ([], ["w2"])]
)
def test_near_words_are_those_of_all_cosines(words: Any, plus: list[str], minus: list[str]) -> None:
    found, expected = words.most_similar(plus, 6, minus), ranked(words, plus, minus)[:6]
    np.testing.assert_allclose([s for _, s in found], [s for _, s in expected], rtol=1e-4, atol=1e-6)
    assert len({name for name, _ in found} & {name for name, _ in expected}) >= 5


def test_single_words_and_analogies(words: Any) -> None:
    assert words.most_similar("w3", topn=4) == words.most_similar(["w3"], 4)
    assert words.analogy("w1", "w2", "w5", 3) == words.most_similar(["w2", "w5"], 3, ["w1"])
    assert len(words.most_similar("w3", 1000)) == 19
    assert words.similarity("w3", "w4") == pytest.approx(dict(words.most_similar("w3", 30))["w4"], rel=1e-5)


def test_vectors(words: Any) -> None:
    names = words.index_to_key
    assert words.vectors.shape == (len(names), 8)
    asked = ["w19", "w0", "w19", "w7"]
    assert np.array_equal(words[asked], words.vectors[[names.index(w) for w in asked]])
    assert np.array_equal(words["w7"], words.vectors[names.index("w7")])
    assert "w7" in words
    assert "w77" not in words
    assert 7 not in words


def test_unknown_words_are_told(words: Any) -> None:
    with pytest.raises(DataError, match=r"22 words. Found 'w33'; near it are"):
        words.most_similar("w33")
    with pytest.raises(DataError, match="Found 'W3'; near it is 'w3'"):
        words["W3"]
    with pytest.raises(ValueError, match="at least one word"):
        words.most_similar([])
    with pytest.raises(ValueError, match="`topn`"):
        words.most_similar("w3", 0)
