"""The readers on real data, against the numbers that are known of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from widehead.data import END, UNKNOWN, Vocabulary, count_words, encode, pair, read_interactions, read_multilabel


def test_gowalla(data_folder: Path) -> None:
    train = read_interactions(data_folder / "recommender/gowalla/train.txt")
    both = pair(train, read_interactions(data_folder / "recommender/gowalla/test.txt"))
    assert train.matrix.shape == (29_858, 40_981)
    assert (train.matrix.nnz, both.test.matrix.nnz) == (810_128, 217_242)
    assert train.items.names == [str(i) for i in range(40_981)]
    assert both.repeated == 0
    assert not both.test.unknown_users
    assert int(both.test.unreachable.sum()) == 0


def test_epinions(data_folder: Path) -> None:
    ratings = read_interactions(data_folder / "recommender/epinions.tsv.gz").matrix
    assert ratings.shape == (22_164, 296_277)
    assert ratings.nnz == 912_441
    assert set(np.unique(ratings.data)) == {1.0, 2.0, 3.0, 4.0, 5.0}


def test_citeulike(data_folder: Path) -> None:
    folder = data_folder / "multilabel/citeulike-t"
    train = read_multilabel(folder / "train.txt.gz", labels_path=folder / "labels.txt")
    test = read_multilabel(folder / "test.txt.gz", schema=train.schema)
    assert train.labels.shape == (20_780, 52_946)
    assert test.labels.shape == (5_195, 52_946)
    assert train.features.shape[1] == test.features.shape[1] == 20_000
    assert train.schema.name(0) == "webimages"


def test_wikitext(data_folder: Path) -> None:
    folder = data_folder / "text/wikitext-2"
    counts = count_words(folder / "train.txt.gz", "whitespace")
    words = Vocabulary.from_counts(counts, unknown=UNKNOWN)
    assert len(words) == 33_278
    assert sum(counts.values()) == 2_088_628
    assert len(encode(folder / "valid.txt.gz", words, "whitespace")) == 217_646
    test = encode(folder / "test.txt.gz", words, "whitespace")
    assert len(test) == 245_569
    assert int((test == words.id(END)).sum()) == 4_358


@pytest.mark.slow
def test_titles_and_abstracts(data_folder: Path) -> None:
    folder = data_folder / "multilabel/yso-finna-en"
    train = read_multilabel(folder / "train.tsv.gz", labels_path=folder / "labels.txt")
    test = read_multilabel(folder / "test.tsv.gz", schema=train.schema)
    assert train.labels.shape[0] + test.labels.shape[0] == 653_682
    assert train.schema.num_labels <= 25_147
    assert train.schema.name(0).startswith("http://www.yso.fi/onto/yso/")


@pytest.mark.slow
def test_wikipedia(data_folder: Path) -> None:
    path = data_folder / "text/enwiki-100m.txt.xz"
    counts = count_words(path)
    assert len(counts) > 200_000
    assert counts.most_common(1)[0][0] == "the"
    words = Vocabulary.from_counts(counts, minimum=5, unknown=UNKNOWN)
    ids = encode(path, words)
    assert len(ids) == sum(counts.values())
    assert np.array_equal(np.bincount(ids)[:3], [counts[words[i]] for i in range(3)])
