"""Data dealt out to processes: together they hold what one process reads, each row in one of them."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars
import pytest
import scipy.sparse
import torch
from split import shares
from support.chosen import rooms
from support.several import Several

from widehead.data import (
    Vocabulary,
    cooccurrences,
    information,
    read_interactions,
    read_multilabel,
    read_sequences,
    split_rows,
)
from widehead.jobs import configure
from widehead.jobs.judging import WordTest
from widehead.jobs.language_model import LanguageModel
from widehead.jobs.probe import some_users
from widehead.jobs.user_votes import hidden_pairs
from widehead.jobs.word_embeddings import WordEmbeddings
from widehead.models import positive_eigenpairs
from widehead.training.checkpoint import load_checkpoint

pytestmark = pytest.mark.long


def written(kind: str, path: Path) -> Path:
    """Pairs of users and items, some of them twice, in files that are read in different ways."""
    chance = random.Random(4)
    pairs = [(f"u{chance.randrange(30)}", f"i{chance.randrange(40) ** 2}", chance.random()) for _ in range(400)]
    if kind == "parquet":
        polars.DataFrame(pairs, schema=["user", "item", "rating"], orient="row").write_parquet(path)
    elif kind == "lists":
        path.write_text("\n".join(f"{user} {item} {item}x" for user, item, _ in pairs))
    elif kind == "numbers":
        path.write_text("\n".join(f"{user[1:]}\t{item[1:]}" for user, item, _ in pairs))
    else:
        named = '"{}""",{},{}' if kind == "lines" else "{},{},{}"  # a cell with a quote in it is read line by line
        path.write_text("user,item,rating\n" + "\n".join(named.format(*pair) for pair in pairs))
    return path


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("kind", ["csv", "lines", "lists", "numbers", "parquet"])
def test_pairs(several: Several, tmp_path: Path, kind: str, size: int) -> None:
    path = written(kind, tmp_path / "pairs")
    whole = read_interactions(path)
    expected = [whole.matrix, *split_rows(whole.matrix, 0.4, 3)]
    found = several.run(size, shares.interactions, path)
    for place, matrix in enumerate(expected):
        for rank in range(size):
            difference = found[rank][place] - matrix[rank::size]
            assert abs(difference).sum() == 0.0
            assert found[rank][place].nnz == matrix[rank::size].nnz
    for answer in found:
        assert answer[3:6] == (whole.users, whole.items.names, whole.has_ratings)
        np.testing.assert_array_equal(answer[7], np.diff(whole.matrix.indptr))
    assert sum(answer[6] for answer in found) == whole.repeats > 0


def test_pairs_in_memory(several: Several, tmp_path: Path) -> None:
    pairs = polars.read_csv(written("csv", tmp_path / "pairs"))
    whole = read_interactions(pairs)
    found = several.run(3, shares.in_memory, pairs)
    for rank, part in enumerate(found):
        assert abs(part.matrix - whole.matrix[rank::3]).sum() == 0.0
    assert sum(part.repeats for part in found) == whole.repeats > 0


def test_pairs_of_items_without_a_column(several: Several, tmp_path: Path) -> None:
    path = written("csv", tmp_path / "pairs")
    items = [f"i{number**2}" for number in range(20)]
    whole = read_interactions(path, items=Vocabulary(items))
    assert whole.unreachable.any()
    for rank, part in enumerate(several.run(3, shares.of_known_items, path, items)):
        assert abs(part.matrix - whole.matrix[rank::3]).sum() == 0.0
        assert part.unreachable.tolist() == whole.unreachable[rank::3].tolist()


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("kind", ["xc", "text"])
def test_documents(several: Several, tmp_path: Path, kind: str, size: int) -> None:
    chance, path = random.Random(5), tmp_path / "documents"
    rows = [([chance.randrange(9) for _ in range(n % 4)], [chance.randrange(30) for _ in range(6)]) for n in range(50)]
    if kind == "xc":
        lines = [",".join(map(str, labels)) + "".join(f" {f}:{f + 0.5}" for f in words) for labels, words in rows]
        path.write_text("\n".join(["50 30 9", *lines]))
    else:
        path.write_text("\n".join(" ".join(f"l{i}" for i in a) + "\t" + " ".join(f"w{i}" for i in b) for a, b in rows))
    whole = read_multilabel(path)
    found = several.run(size, shares.documents, path)
    for rank, part in enumerate(found):
        assert part.schema.to_dict() == whole.schema.to_dict()
        assert part.total == 50
        for name in ("features", "labels"):
            own: scipy.sparse.csr_matrix = getattr(whole, name)[rank::size]
            assert abs(getattr(part, name) - own).sum() == 0.0
    assert found[0].told(sum(part.labels.nnz for part in found)) == str(whole)


def sequence_file(kind: str, path: Path) -> Path:
    """Sequences of none to six items, in files that are read in different ways."""
    chance = random.Random(6)
    rows = [[f"i{chance.randrange(30) ** 2}" for _ in range(chance.randrange(7))] for _ in range(40)]
    table = [(f"u{user}", item, chance.randrange(500)) for user, row in enumerate(rows) for item in row]
    chance.shuffle(table)
    if kind == "lists":
        path.write_text("\n".join(map(" ".join, rows)))
    elif kind == "parquet":
        polars.DataFrame(table, schema=["user", "item", "time"], orient="row").write_parquet(path)
    else:
        path.write_text("\n".join(",".join(map(str, row if kind == "times" else row[:2])) for row in table))
    return path


@pytest.mark.parametrize("items", [None, ["i4", "i9", "i16"]])
@pytest.mark.parametrize("kind", ["lists", "table", "times", "parquet"])
def test_sequences(several: Several, tmp_path: Path, kind: str, items: list[str] | None) -> None:
    path = sequence_file(kind, tmp_path / "sequences")
    whole = read_sequences(path, None if items is None else Vocabulary(items))
    lists = np.split(whole.ids, whole.offsets[1:-1])
    for rank, (part, text, places) in enumerate(several.run(3, shares.sequences, path, items)):
        assert [ids.tolist() for ids in np.split(part.ids, part.offsets[1:-1])] == [i.tolist() for i in lists[rank::3]]
        for name in ("order", "lengths", "first"):
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name))
        assert (text, part.items, part.names) == (str(whole), whole.items, None)
        own = whole.order[whole.order % 3 == rank]
        assert [part.ids[slice(*part.offsets[place : place + 2])].tolist() for place in places] == [
            lists[row].tolist() for row in own
        ]


def random_text(path: Path, words: int, seed: int) -> Path:
    """So many of twelve words, on lines."""
    chance = random.Random(seed)
    path.write_text("".join(f"w{chance.randrange(12)}" + " \n"[chance.random() < 0.2] for _ in range(words)))
    return path


@pytest.mark.parametrize("words", [1, 2, 50, 403])
@pytest.mark.parametrize("encoder", ["ngram", "gru"])
def test_texts(several: Several, tmp_path: Path, encoder: str, words: int) -> None:
    """Each example of the text is with one process, whole; more processes than examples among them."""
    path = random_text(tmp_path / "text", words, 7)
    options = {"encoder": encoder, "context": 5, "holdout": 0.4, "minimum_count": 1}
    config = configure("language-model", train=str(path), out="none", **options)
    whole = LanguageModel.of(config, str(path))
    assert isinstance(whole.test, WordTest)
    found = several.run(3, shares.text_examples, path, options)
    for place, examples in enumerate((whole.examples, whole.test.examples)):
        assert len({answer[place][0] for answer in found}) == 1  # as often as the one that has most
        expected = [tuple(map(shares.told, examples.batch(np.array([i])))) for i in range(len(examples))]
        parts = [row for answer in found for row in answer[place][1]]
        assert [row[1:] for row in sorted(parts)] == expected
        assert [row[0] for row in sorted(parts)] == list(range(len(examples)))
    assert {answer[2][0] for answer in found} == {whole.reading}


@pytest.mark.parametrize("words", [2, 30, 403])
@pytest.mark.parametrize("start", ["svd", "random"])
def test_words_and_places_beside_them(several: Several, tmp_path: Path, start: str, words: int) -> None:
    """Each example is with the process of its word; more processes than words among them."""
    path = random_text(tmp_path / "text", words, 8)
    options = {"encoder_init": start, "holdout": 0.4, "minimum_count": 1, "subsample": 0.05}
    config = configure("word-embeddings", train=str(path), out="none", **options)
    whole = WordEmbeddings.of(config, str(path))
    assert isinstance(whole.test, WordTest)
    found = several.run(3, shares.embedding_examples, path, options)
    for place, examples in enumerate((whole.examples, whole.test.examples)):
        parts = [[row[0] for row in answer[place][1]] for answer in found]
        size = len(whole.job.class_names)
        assert all(row % size % 3 == rank for rank, rows in enumerate(parts) for row in rows)
        rows = sorted(row for answer in found for row in answer[place][1])
        assert [row[0] for row in rows] == list(range(len(examples)))
        assert [row[1:] for row in rows] == [tuple(map(shares.told, examples.batch(np.array([i])))) for i, *_ in rows]


@pytest.mark.parametrize("size", [2, 40])
def test_words_near_one_another(several: Several, size: int) -> None:
    """More processes than words among them; sums are the same to the last bit."""
    ids = np.random.default_rng(9).integers(0, size, 2_000).astype(np.int32)
    counts = cooccurrences(ids, size, 3, end=0, without=[1])
    for rank, answer in enumerate(several.run(3, shares.mutual_information, ids, size)):
        for part, whole in zip(answer, (counts, information(counts)), strict=True):
            assert part.shape == (len(range(rank, size, 3)), size)
            assert (part != whole[rank::3]).nnz == 0
    assert size == 2 or counts.nnz > 1_000


@pytest.mark.parametrize("size", [2, 100, 400])
def test_eigenvalues(several: Several, size: int) -> None:
    """By dense linear algebra the same bits; by products those of one process, vectors but for their signs."""
    matrix = scipy.sparse.random(size, size, 0.2, "csr", np.float32, np.random.default_rng(10)) * np.float32(1e4)
    values, vectors = positive_eigenpairs(matrix, 4, basis=128, seed=0)
    for found, turned in several.run(3, shares.eigenpairs, matrix, 4, 128):
        if size < 400:
            assert torch.equal(found, values)
            assert torch.equal(turned, vectors)
        torch.testing.assert_close(found, values, rtol=1e-5, atol=0.0)
        dots = (turned[:, 0] @ vectors[:, 0]).abs()
        assert size == 2 or float(dots) > 1.0 - 1e-5


def test_products_with_a_symmetric_part(several: Several) -> None:
    """Of their own, as eigenvalues that products get wrong are found by dense linear algebra."""
    matrix = scipy.sparse.random(50, 50, 0.2, "csr", np.float32, np.random.default_rng(10)) * np.float32(1e4)
    block = torch.from_numpy(np.random.default_rng(11).standard_normal((50, 7)).astype(np.float32))
    dense = torch.from_numpy(matrix.toarray()).double()
    expected = (dense + dense.T) @ block.double() / (2 * dense.abs().max())
    for found in several.run(3, shares.symmetric_product, matrix, block):
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_eigenvalues_of_no_numbers_are_refused(several: Several) -> None:
    matrix = scipy.sparse.csr_matrix(np.array([[1.0, np.nan], [0.0, 2.0]], dtype=np.float32))
    assert set(several.run(2, shares.eigenpairs_refused, matrix)) == {
        "The matrix should hold finite numbers. Found NaN or infinity."
    }


@pytest.mark.parametrize("size", [2, 3, 4])
def test_rows_in_turn(several: Several, size: int) -> None:
    for chunk in (7, 1_000):
        for values, _, pieces in several.run(size, shares.gathered, 6, chunk):
            assert torch.equal(values, torch.arange(len(values)))
            assert (pieces > 1) == (chunk == 7)


@pytest.mark.parametrize(("part", "fewest", "filled"), [(0.3, 1, 0.1), (1.0, 1, 0.1), (0.1, 30, 0.1), (0.5, 1, 0.0)])
def test_some_rows_are_those_that_one_process_takes(several: Several, part: float, fewest: int, filled: float) -> None:
    """With their values, among rows of nothing and columns that these rows do not have."""
    matrix = scipy.sparse.random(60, 40, filled, format="csr", dtype=np.float32, random_state=np.random.default_rng(3))
    expected = some_users(matrix, part, fewest, 5)
    for size in (2, 3):
        for found in several.run(size, shares.brought, matrix, part, fewest):
            assert found.shape == expected.shape
            for name in ("data", "indices", "indptr"):
                assert np.array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize(("part", "most"), [(0.5, 100), (1.0, 7), (0.01, 100)])
def test_pairs_are_hidden_as_by_one_process(several: Several, part: float, most: int) -> None:
    matrix = scipy.sparse.random(60, 40, 0.06, format="csr", dtype=np.float32, random_state=np.random.default_rng(3))
    kept, users, hidden = hidden_pairs(matrix, 5, part, most)
    assert kept.nnz + hidden.nnz == matrix.nnz
    for size in (2, 3):
        for rank, (here, *of_all) in enumerate(several.run(size, shares.hidden, matrix, part, most)):
            assert (here != kept[rank::size]).nnz == 0
            assert here.nnz == kept[rank::size].nnz
            assert np.array_equal(of_all[0], users)
            assert (of_all[1] != hidden).nnz == 0


def test_what_is_tried_by_a_part_of_the_users_is_what_one_process_finds(several: Several, tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("".join(f"u{u} {' '.join(row)}\n" for u, row in enumerate(rooms(1_500, 200))))
    few = tmp_path / "train.txt", 2e5, 100
    probe, trial, users = shares.settled(None, *few)
    assert users == 1_500
    assert 100 < trial.users < 500
    assert 100 < probe.users < 500
    for found, tried, here in several.run(2, shares.settled, *few):
        assert here == 750
        assert replace(found, before={}, after={}) == replace(probe, before={}, after={})
        assert found.after == pytest.approx(probe.after)
        assert replace(tried, race=[]) == replace(trial, race=[])
        assert np.array(tried.race) == pytest.approx(np.array(trial.race), abs=1e-6)


@pytest.mark.parametrize("room", [0, 1_000, 3_000_000, None])
def test_a_disk_that_is_full_is_told_by_all(several: Several, tmp_path: Path, room: int | None) -> None:
    """Before the first piece, within the rows that are dealt out, and within those that are split."""
    path = tmp_path / "rows.safetensors"
    (first, *others), sums = zip(*several.run(3, shares.written, path, room), strict=True)
    assert sums == (3.0,) * 3
    if room is None:
        assert (first, *others) == ("",) * 3
        assert all(torch.equal(part, torch.arange(300_000)) for part in load_checkpoint(path).values())
        return
    assert not list(tmp_path.iterdir())
    assert first.startswith(f"CheckpointError: {path} could not be written: File too large")
    assert others == [first.replace("CheckpointError: ", "ProcessesError: Rank 0: ")] * 2
