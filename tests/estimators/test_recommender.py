"""The recommender in memory: what it recommends, to whom, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
import scipy.sparse
import torch
from support.memory_data import DATA, fitted, made
from torch.nn.functional import normalize

import widehead as wh
from widehead.errors import DataError

LIKES = DATA[wh.Recommender][0]


def matrix() -> Any:
    return scipy.sparse.csr_matrix(
        (np.ones(700), ([u for u in range(100) for _ in range(7)], [int(i[1:]) for row in LIKES for i in row])),
        (100, 60),
    )


@pytest.fixture(scope="module")
def by_number() -> Any:
    return made(wh.Recommender).fit(matrix())


def test_what_is_recommended_is_what_the_group_has(by_number: Any) -> None:
    rows = matrix()
    ids, scores = by_number.recommend(rows, 5)
    assert (ids.shape, ids.dtype.kind, scores.dtype) == ((100, 5), "i", np.float64)
    assert (ids // 12 == (np.arange(100) % 5)[:, None]).mean() > 0.95
    assert not any(rows[u, i] for u in range(100) for i in ids[u])
    assert (np.diff(scores, axis=1) <= 0).all()
    both, _ = by_number.recommend(rows, 12, exclude=False)
    assert any(rows[u, i] for u in range(100) for i in both[u])


def test_users_are_rows_numbers_names_or_all(by_number: Any) -> None:
    rows = matrix()
    ids, scores = by_number.recommend(rows[[3, 7]], 4)
    for users in ([3, 7], np.array([3, 7]), ["3", "7"], [likes_of(3), likes_of(7)], rows[[3, 7]].toarray()):
        found = by_number.recommend(users, 4)
        assert found[0].tolist() == ids.tolist()
        np.testing.assert_allclose(found[1], scores)
    assert by_number.recommend(3, 4)[0].tolist() == ids[0].tolist()
    assert by_number.recommend(n=4)[0][[3, 7]].tolist() == ids.tolist()
    table = polars.DataFrame({"user": ["a"] * 7, "item": likes_of(3)})
    assert by_number.recommend(table, 4)[0].tolist() == ids[:1].tolist()
    for wrong in (100, -1, "100"):
        with pytest.raises(DataError, match="100"):
            by_number.recommend(wrong)


def likes_of(user: int) -> list[int]:
    return [int(item[1:]) for item in LIKES[user]]


def test_names_are_those_of_the_data(by_number: Any) -> None:
    named = fitted(wh.Recommender)
    ids, _ = named.recommend([["i0", "i1"], ["unheard"], []], 3)
    assert set(ids[0]) <= {f"i{i}" for i in range(2, 12)}
    assert ids[1:].tolist() == [[None] * 3] * 2
    assert sorted(named.items_) == sorted(f"i{i}" for i in range(60))
    assert by_number.items_.tolist() == list(range(60))
    numbers = made(wh.Recommender).fit(polars.DataFrame({"user": [1, 1, 2, 2] * 4, "item": [70, 80, 70, 90] * 4}), None)
    assert set(numbers.recommend([[70]], 3)[0][0]) == {80, 90, -1}


def test_places_that_no_item_takes(by_number: Any) -> None:
    ids, scores = by_number.recommend([list(range(57)), []], 1000)
    assert (ids.shape, scores.shape) == ((2, 1000), (2, 1000))
    assert sorted(ids[0, :3]) == [57, 58, 59]
    assert (ids[0, 3:] == -1).all()
    assert (scores[0, 3:] == -np.inf).all()
    assert (ids[1] == -1).all()
    assert by_number.recommend([], 3)[0].shape == (0, 3)


def test_near_items(by_number: Any) -> None:
    ids, scores = by_number.similar([3, 40], 4)
    assert (ids // 12).tolist() == [[0] * 4, [3] * 4]
    weight = normalize(by_number.run_.network.head.weight())
    np.testing.assert_allclose(scores[0], (weight[ids[0]] @ weight[3]).numpy(), rtol=1e-5)
    assert by_number.similar(3, 4)[0].tolist() == ids[0].tolist()
    assert fitted(wh.Recommender).similar("i3", 1)[0].shape == (1,)
    assert (by_number.similar(3, 100)[0] == -1).sum() == 41
    with pytest.raises(DataError, match=r"60 items. Found 'i99'; near it are"):
        fitted(wh.Recommender).similar("i99")


@pytest.mark.parametrize("options", [{}, {"head_bias": True}, {"encoder_lr": 0.01, "epochs": 2}, {"ratings": True}])
def test_contributions_are_the_score(options: dict[str, Any]) -> None:
    rows = matrix()
    rows.data[:] = np.random.default_rng(0).integers(1, 6, rows.nnz)
    model = made(wh.Recommender, **options).fit(rows)
    why = model.explain(5, 17)
    assert sorted(why.items) == sorted(likes_of(5))
    assert why.contributions.sum() + why.bias == pytest.approx(why.score, abs=1e-5)
    assert (np.diff(why.contributions) <= 0).all()
    ids, scores = model.recommend([5], 60, exclude=False)
    assert why.score == pytest.approx(scores[0, ids[0].tolist().index(17)], abs=1e-5)
    # Without an item the sum of the others is what is left, but for the norm of the row.
    values = rows[5].toarray()[0] if options.get("ratings") else (rows[5].toarray()[0] > 0) * 1.0
    first = int(why.items[0])
    rest = values.copy()
    rest[first] = 0.0
    norm, left = np.linalg.norm(values), np.linalg.norm(rest)
    without = model.explain(rest[None], 17)
    expected = (without.score - without.bias) * left / norm
    assert why.score - why.bias - why.contributions[0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": (6,), "encoder_lr": 0.01}, "linear encoder"),
        ({"activation": "tanh", "encoder_lr": 0.01}, "linear encoder"),
        ({"loss": "spherical-softmax"}, "whose scores are linear.*spherical-softmax"),
        ({"head": "hierarchical"}, "whose scores are linear.*hierarchical"),
    ],
)
def test_what_is_no_sum_is_told(options: dict[str, Any], message: str) -> None:
    model = made(wh.Recommender, **options, epochs=1).fit(matrix())
    with pytest.raises(ValueError, match=message):
        model.explain(5, 17)


def test_whose_item_and_which_item(by_number: Any) -> None:
    with pytest.raises(DataError, match=r"60 items. Found '60'"):
        by_number.explain(5, 60)
    with pytest.raises(DataError, match=r"Expected one user. Found 2"):
        by_number.explain(matrix()[:2], 5)


def test_scores_find_what_was_hidden(by_number: Any) -> None:
    assert by_number.score(matrix()) > 0.9
    shuffled = matrix()[:, np.random.default_rng(0).permutation(60)]
    assert by_number.score(shuffled) < 0.6
    rest = scipy.sparse.csr_matrix(np.kron(np.ones((20, 1)), np.kron(np.eye(5), np.ones((1, 12)))))
    assert by_number.score(matrix(), rest - matrix()) > 0.9
    with pytest.raises(DataError, match="items to judge by"):
        by_number.score(np.eye(60))


def test_ratings_count_if_they_should() -> None:
    rows = matrix()
    rows.data[:] = np.random.default_rng(0).integers(1, 6, rows.nnz)
    plain, rated = (made(wh.Recommender, ratings=on).fit(rows).run_.network.head.weight() for on in (False, True))
    assert torch.equal(plain, made(wh.Recommender).fit(matrix()).run_.network.head.weight())
    assert not torch.allclose(plain, rated)


def test_evaluate_is_of_the_training_users(by_number: Any, tmp_path: Path) -> None:
    rest = scipy.sparse.csr_matrix(np.kron(np.ones((20, 1)), np.kron(np.eye(5), np.ones((1, 12)))))
    found = by_number.evaluate(rest, (5,))
    assert found["recall@5"] > 0.95
    lines = "".join(f"{u} {' '.join(map(str, rest[u].indices))}\n" for u in range(100))
    (tmp_path / "test.txt").write_text(lines)
    assert by_number.evaluate(tmp_path / "test.txt", (5,)) == found
    with pytest.raises(DataError, match=r"Expected 100 users. Found a matrix with 99 rows"):
        by_number.evaluate(rest[:99])


@pytest.mark.parametrize("names", [range(1, 101), [f"anna{u}" for u in range(100)], [1000 - u for u in range(100)]])
def test_users_of_a_table_are_called_as_there(names: Any) -> None:
    """Numbers too: the user 1 of a table is not its second row."""
    pairs = [(name, item) for name, row in zip(names, LIKES, strict=True) for item in row]
    model = made(wh.Recommender).fit(polars.DataFrame(pairs, schema=["user", "item"], orient="row"))
    assert model.users_.tolist() == list(names)
    everyone = model.recommend(n=3)[0]
    assert model.recommend([names[7], names[1]], 3)[0].tolist() == everyone[[7, 1]].tolist()
    assert model.recommend(names[5], 3)[0].tolist() == everyone[5].tolist()
    assert set(everyone[7]).isdisjoint(LIKES[7])
    with pytest.raises(DataError, match=r"of the run's 100 users. Found '0'"):
        model.recommend(0)


def test_a_dense_row_is_no_list_of_users(by_number: Any) -> None:
    row = matrix()[3].toarray()[0]
    for wrong in (row, row.tolist(), row > 0):
        with pytest.raises(DataError, match="users"):
            by_number.recommend(wrong)
    for wrong in (matrix().toarray().astype(int).tolist(), [[0, 1, 0, 1]], [[True, True]]):
        with pytest.raises(DataError, match=r"lists of zeros and ones; do numpy\.array"):
            by_number.recommend(wrong)
        with pytest.raises(DataError, match=r"lists of zeros and ones; do numpy\.array"):
            made(wh.Recommender).fit(wrong)
    assert (by_number.recommend([[1, 0], [0, 1]], 2)[0] >= 0).all()


def test_lists_to_evaluate_by_are_of_all_training_users() -> None:
    """As rows of a matrix are: nobody knows whose a shorter list is."""
    model = fitted(wh.Recommender)
    rest = [[f"i{12 * (u % 5) + i}" for i in range(12) if f"i{12 * (u % 5) + i}" not in LIKES[u]] for u in range(100)]
    assert model.evaluate(rest, (5,))["recall@5"] > 0.9
    with pytest.raises(DataError, match=r"Expected lists of 100 users. Found 60 lists"):
        model.evaluate(rest[40:], (5,))
    names = [1000 - u for u in range(100)]
    pairs = [(name, item) for name, row in zip(names, LIKES, strict=True) for item in row]
    table = made(wh.Recommender).fit(polars.DataFrame(pairs, schema=["user", "item"], orient="row"))
    assert table.evaluate(rest, (5,)) == model.evaluate(rest, (5,))


def test_scores_by_what_should_be_recommended() -> None:
    """In each form, by name if there are names; what users have is left out, and what nobody knows is missed."""
    model = fitted(wh.Recommender)
    rows = [["i0", "i1", "i2"], ["i12", "i13"], ["i24", "i25"]]
    rest = [["i3", "i4"], ["i14", "i15"], ["i26"]]
    users = ["a", "b", "c"]
    tables = [
        polars.DataFrame({"user": np.repeat(users, [len(r) for r in part]), "item": [i for r in part for i in r]})
        for part in (rows, rest)
    ]
    expected = model.score(rows, rest)
    assert model.score(*tables) == expected
    assert model.score(tables[0], tables[1].reverse()) == expected
    assert model.score(rows, [one + two for one, two in zip(rows, rest, strict=True)]) == expected
    missed = model.score(rows, [[*row, "unheard"] for row in rest])
    assert missed == pytest.approx(expected * (2 / 3 + 2 / 3 + 1 / 2) / 3)
    with pytest.raises(DataError, match=r"Expected lists of 3 users. Found 2 lists"):
        model.score(rows, rest[:2])
    assert model.score(rows, [0, 1, 2]) == model.score(rows)


def test_items_of_numbers_with_a_point_are_found_again() -> None:
    pairs = {"user": [1.0, 1.0, 2.0, 2.0] * 4, "item": [0.5, 3.0, 0.5, 7.0] * 4}
    model = made(wh.Recommender).fit(polars.DataFrame(pairs))
    assert set(model.recommend([[0.5]], 2)[0][0]) == {3.0, 7.0}
    assert model.similar(model.items_, 1)[0].shape == (3, 1)
    assert model.explain(1, 7.0).items.tolist() == [0.5, 3.0] or model.explain(1, 7.0).items.tolist() == [3.0, 0.5]
