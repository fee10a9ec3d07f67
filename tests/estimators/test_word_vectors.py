"""Vectors of words in memory, as gensim's users ask for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
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


def test_pairs_that_people_judged(words: Any, tmp_path: Path) -> None:
    path = tmp_path / "pairs.txt"
    pairs = [("w1", "w2", 3.0), ("W3", "w4", 1.0), ("w5", "w9", 3.0), ("w7", "w8", 9.0)]
    path.write_text("".join(f"{a} {b} {n}\n" for a, b, n in [*pairs, ("w1", "nowhere", 2.0)]))
    cosines = [words.similarity(a.lower(), b) for a, b, _ in pairs]
    expected = spearmanr(cosines, [n for *_, n in pairs])[0]
    found = words.evaluate_word_pairs(path)
    assert found == {"rank_correlation": pytest.approx(expected), "pairs": 4, "unknown": 1}
    path.write_text("w1 w2 3\nw1 nowhere 3\n")
    with pytest.raises(DataError, match=r"two pairs or more whose words are known\. Found 1"):
        words.evaluate_word_pairs(path)


def test_analogies_of_a_file(words: Any, tmp_path: Path) -> None:
    path = tmp_path / "questions.txt"
    best = words.analogy("w1", "w2", "w5", 2)
    right, wrong = f"w1 W2 w5 {best[0][0]}\n", f"w1 w2 w5 {best[1][0]}\n"
    path.write_text(f": one\n{right}{wrong}w1 nowhere w5 w6\n: two\nw1 w2 nowhere w3\n: three\n{right}")
    share, sections = words.evaluate_word_analogies(path)
    assert share == pytest.approx(2 / 3)
    assert sections == {"one": (1, 2), "two": (0, 0), "three": (1, 1)}
    names = [word for word in words.index_to_key if word.startswith("w")][:7]
    every = [(a, b, c) for a in names for b in names for c in names if len({a, b, c}) == 3]
    path.write_text("".join(f"{a} {b} {c} {words.analogy(a, b, c, 1)[0][0]}\n" for a, b, c in every))
    assert words.evaluate_word_analogies(path) == (1.0, {"": (len(every), len(every))})
    path.write_text("w1 w2 w3 nowhere\n")
    with pytest.raises(DataError, match=r"an analogy whose words are known\. Found none"):
        words.evaluate_word_analogies(path)
