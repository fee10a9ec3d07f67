"""Data dealt out to processes: together they hold what one process reads, each row in one of them."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import polars
import pytest
import scipy.sparse
import torch
from split import shares
from support.several import Several

from widehead.data import read_interactions, read_multilabel, split_rows

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


@pytest.mark.parametrize("size", [2, 3, 4])
def test_rows_in_turn(several: Several, size: int) -> None:
    for chunk in (7, 1_000):
        for values, _, pieces in several.run(size, shares.gathered, 6, chunk):
            assert torch.equal(values, torch.arange(len(values)))
            assert (pieces > 1) == (chunk == 7)
