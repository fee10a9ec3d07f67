"""The classifier in memory: labels in every form, and probabilities that say how often labels are true."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
import scipy.sparse
from support.memory_data import DATA, fitted, made

import widehead as wh
from widehead.errors import DataError

TEXTS, LABELS = DATA[wh.MultiLabel]


def numbers(m: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(m, 10) features of 6 groups, with noise, and their groups."""
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 6, m)
    return np.abs(np.eye(6, 10)[groups] + 0.3 * rng.standard_normal((m, 10))), groups


def test_texts_and_lists_of_labels() -> None:
    model = fitted(wh.MultiLabel)
    ids, scores = model.predict(["t3x1 t3x2 t3x3", "unheard"], 2)
    assert set(ids[0]) == {"L3", "M1"}
    assert ids[1].tolist() == [None, None]
    assert scores[1].tolist() == [-np.inf, -np.inf]
    assert set(model.classes_) == {f"L{g}" for g in range(12)} | {f"M{g}" for g in range(6)}
    assert model.score(TEXTS, LABELS) > 0.95
    assert [set(row) for row in model.predict(["t3x1 t3x2 t3x3", "t8x0 t8x4 t8x2"])] == [{"L3", "M1"}, {"L8", "M4"}]
    assert model.predict(np.array(TEXTS[:3], dtype=object), 1)[0].shape == (3, 1)


@pytest.mark.parametrize("form", ["csr", "array", "lists", "texts", "numbers", "column", "table"])
def test_labels_in_every_form(form: str) -> None:
    X, groups = numbers()
    dense = np.eye(6, dtype=int)[groups]
    Y: Any = {
        "csr": scipy.sparse.csr_matrix(dense),
        "array": dense,
        "lists": [[f"g{g}"] for g in groups],
        "texts": [f"g{g}" for g in groups],
        "numbers": groups + 10,
        "column": (groups + 10)[:, None],
        "table": polars.DataFrame(dense, schema=[f"g{g}" for g in range(6)]),
    }[form]
    model = made(wh.MultiLabel).fit(X, Y)
    found = model.predict(X)
    names = {"csr": range(6), "array": range(6), "table": range(6), "numbers": range(10, 16), "column": range(10, 16)}
    assert sorted(model.classes_) == list(names.get(form, [f"g{g}" for g in range(6)]))
    assert model.score(X, Y) > 0.9
    if form == "csr":
        assert scipy.sparse.issparse(found)
        assert (found.toarray() == dense).mean() > 0.95
    elif form in ("array", "table"):
        assert (found == dense).mean() > 0.95
    elif form == "lists":
        assert np.mean([row == list(known) for row, known in zip(found, Y, strict=True)]) > 0.8
    else:
        assert (found == np.ravel(Y)).mean() > 0.9
    proba = model.predict_proba(X)
    best = model.classes_[proba.argmax(axis=1)]
    assert (best == model.predict(X, 1)[0][:, 0]).all()
    assert (proba.sum(axis=1) == pytest.approx(1.0)) == (form in ("texts", "numbers", "column"))


@pytest.mark.parametrize("kind", ["csr", "array", "lists", "polars", "float32"])
def test_features_in_every_form(kind: str) -> None:
    X, groups = numbers()
    forms: Any = {"csr": scipy.sparse.csr_matrix, "lists": np.ndarray.tolist, "float32": np.float32}
    given = polars.DataFrame(X) if kind == "polars" else forms.get(kind, np.asarray)(X)
    model = made(wh.MultiLabel).fit(given, groups)
    np.testing.assert_allclose(
        model.predict_proba(given), made(wh.MultiLabel).fit(X, groups).predict_proba(X), atol=1e-5
    )
    assert model.n_features_in_ == 10


def noisy(m: int, seed: int, classes: int = 40) -> tuple[Any, Any, np.ndarray]:
    """(m, 40) documents of some topics, whose labels are true with a probability that the features give; and that."""
    rng = np.random.default_rng(seed)
    topics = np.random.default_rng(9).standard_normal((12, classes))
    X = np.abs(rng.standard_normal((m, 12))) * (rng.random((m, 12)) < 0.4)
    p = 1.0 / (1.0 + np.exp(3.0 - 1.6 * X @ topics))
    return scipy.sparse.csr_matrix(X), scipy.sparse.csr_matrix((rng.random((m, classes)) < p).astype(int)), p


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"encoder_lr": 0.02, "head": "full", "epochs": 3},
        {"encoder_lr": 0.02, "loss": "spherical-softmax", "epochs": 3},
    ],
)
def test_probabilities_say_how_often_labels_are_true(options: dict[str, Any]) -> None:
    """Of new documents: in the large, in every decile of the probabilities, and the order is that of the scores."""
    X, Y, _ = noisy(1500, 0)
    model = made(wh.MultiLabel, width=12, holdout=0.3, **options).fit(X, Y)
    X, Y, _ = noisy(3000, 1)
    found, true = model.predict_proba(X), Y.toarray()
    kept = np.diff(X.indptr) > 0
    found, true = found[kept], true[kept]
    assert found.mean() == pytest.approx(true.mean(), rel=0.08)
    order = np.argsort(found.ravel())
    for part in np.array_split(order, 10):
        assert found.ravel()[part].mean() == pytest.approx(true.ravel()[part].mean(), abs=0.03)
    prior = true.mean() * (1 - true.mean())
    assert ((found - true) ** 2).mean() < 0.9 * prior
    best = model.predict(X, 5)[0][kept]
    assert (np.take_along_axis(found, best, axis=1)[:, :-1] >= np.take_along_axis(found, best, axis=1)[:, 1:]).all()


def test_scores_alone_are_no_probabilities() -> None:
    """What is tested above can fail: a logistic function of scores does not say how often."""
    X, Y, _ = noisy(1500, 0)
    model = made(wh.MultiLabel, width=12, holdout=0.3, encoder_lr=0.02, head="full", epochs=3).fit(X, Y)
    X, Y, _ = noisy(500, 1)
    network = model.run_.network
    given = model.run_.job.given(X)
    scores = np.concatenate([network.head.scores(network.hidden(bags)).detach().numpy() for bags, _ in given.batches()])
    assert abs((1.0 / (1.0 + np.exp(-scores))).mean() - Y.toarray().mean()) > 0.1


def test_single_labels_have_the_probabilities_of_their_loss() -> None:
    X, groups = numbers()
    model = made(wh.MultiLabel, loss="spherical-softmax", holdout=0.0).fit(X, groups)
    network = model.run_.network
    bags, _ = next(model.run_.job.given(X[:5]).batches())
    hidden = network.hidden(bags)
    expected = np.exp(network.head.log_prob(hidden, np_ids(5)).detach().numpy())
    np.testing.assert_allclose(model.predict_proba(X[:5]), expected, rtol=1e-4)


def np_ids(m: int) -> Any:
    import torch

    return torch.arange(6).expand(m, 6)


def test_of_nothing_the_labels_are_as_frequent_as_ever() -> None:
    X, Y, _ = noisy(300, 0)
    model = made(wh.MultiLabel, holdout=0.0).fit(X, Y)
    with pytest.raises(ValueError, match=r"documents held out.*MultiLabel\(holdout=0.1\)"):
        model.predict_proba(X)
    with pytest.raises(ValueError, match="held out"):
        model.predict(X)
    model = made(wh.MultiLabel).fit(X, Y)
    nothing = scipy.sparse.csr_matrix((1, 12))
    counts = model.run_.job.counts / model.run_.job.num_documents
    np.testing.assert_allclose(model.predict_proba(nothing)[0], counts)
    _, groups = numbers()
    single = made(wh.MultiLabel).fit(numbers()[0], np.where(groups < 4, 0, groups))
    assert single.predict(np.zeros((1, 10))).tolist() == [0]
    assert single.predict_proba(np.zeros((1, 10))).sum() == pytest.approx(1.0)


def test_few_documents_all_train() -> None:
    model = made(wh.MultiLabel).fit(["a b", "c d", "a c", "d d"], [["x"], ["y"], ["x", "y"], ["y"]])
    assert model.run_.config.holdout == 0.0
    assert model.predict_proba(["a b"]).shape == (1, 2)
    assert made(wh.MultiLabel, holdout=0.25).fit(["a b", "c d", "a c", "d d"], ["x", "y", "x", "y"]).run_.config.holdout


def test_however_many_labels_are_likely() -> None:
    groups = np.arange(200) % 2
    Y = np.where(groups[:, None] == 0, np.arange(100) < 80, np.arange(100) >= 80).astype(int)
    model = made(wh.MultiLabel, width=2).fit(np.eye(2)[groups], Y)
    assert np.array_equal(model.predict(np.eye(2)), Y[:2])


@pytest.mark.parametrize(
    ("X", "Y", "message"),
    [
        (TEXTS[:4], LABELS[:3], "labels of 4 documents. Found those of 3"),
        (TEXTS[:4], None, "requires y"),
        (TEXTS[:2], [0.5, 1.5], "continuous value 0.5"),
        (np.ones((0, 3)), [], "documents with features"),
        (TEXTS[:2], np.array([[2, 0], [0, 1]]), "zeros and ones"),
        ([["a", "b"]], [["x"]], "matrix of numbers"),
        (7, [["x"]], "list of texts"),
    ],
)
def test_what_does_not_fit_is_told(X: Any, Y: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        made(wh.MultiLabel).fit(X, Y)


def test_other_documents_than_those_of_training_are_told() -> None:
    model = made(wh.MultiLabel).fit(*numbers())
    with pytest.raises(DataError, match=r"Expected 10 features of a document. Found a matrix with 9 columns"):
        model.predict(np.ones((2, 9)))
    with pytest.raises(ValueError, match="`k`"):
        model.predict(np.ones((2, 10)), 0)
    with pytest.raises(DataError, match="matrix of 6 labels"):
        made(wh.MultiLabel).fit(numbers()[0], np.eye(6, dtype=int)[numbers()[1]]).score(numbers()[0], numbers()[1])


def columns(X: np.ndarray, order: list[int]) -> Any:
    return polars.DataFrame(X[:, order], schema=[f"f{i}" for i in order])


def test_columns_of_a_table_stand_as_for_training() -> None:
    X, groups = numbers()
    first, other = list(range(10)), [1, 0, *range(2, 10)]
    model = made(wh.MultiLabel).fit(columns(X, first), groups)
    assert model.feature_names_in_.tolist() == [f"f{i}" for i in range(10)]
    again = pickle.loads(pickle.dumps(model))  # noqa: S301
    assert (again.predict(columns(X, first)) == model.predict(X)).all()
    asks = (again.predict, again.predict_proba, lambda x: again.score(x, groups), lambda x: again.evaluate((x, groups)))
    for ask in (model.predict, *asks):
        with pytest.raises(DataError, match=r"the 10 columns of the training documents.*'f1' in the place of 'f0'"):
            ask(columns(X, other))
    with pytest.raises(DataError, match="Found 9 columns"):
        model.predict(columns(X, first[:9]))
    model.fit(X, groups)
    assert not hasattr(model, "feature_names_in_")
    assert (model.predict(columns(X, other)) == model.predict(X[:, other])).all()


def test_probabilities_are_of_the_weights_that_they_are_calibrated_for(tmp_path: Path) -> None:
    options = {"encoder_lr": 0.02, "epochs": 3, "schedule": "constant", "evaluate_every": "1 epoch"}
    model = made(wh.MultiLabel, **options).fit(TEXTS, LABELS)
    folder = model.save(tmp_path / "run")
    assert wh.MultiLabel.load(folder).predict_proba(TEXTS[:1]).shape == (1, 18)
    wh.Run.open(folder, data=(TEXTS, LABELS)).train(quiet=True, epochs=4)
    more = wh.MultiLabel.load(folder)
    assert more.predict(TEXTS[:1], 2)[0].shape == (1, 2)
    for ask in (more.predict, more.predict_proba):
        with pytest.raises(ValueError, match=r"weights of step 51, which .* calibrated for. Found those of step 68"):
            ask(TEXTS[:1])


def test_what_is_likely_of_nothing_is_what_is_frequent() -> None:
    """`predict` without k is `predict_proba` of at least a half, of documents of which nothing is known too."""
    X, groups = numbers()
    Y = np.stack([groups < 4, groups == 5, groups >= 0], axis=1).astype(int)
    model = made(wh.MultiLabel).fit(X, Y)
    asked = np.concatenate([X[:20], np.zeros((1, 10))])
    assert np.array_equal(model.predict(asked), model.predict_proba(asked) >= 0.5)
    assert model.predict(asked)[-1].tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("Y", "message"),
    [
        ([["x"], ["y", None]], "a name or whole number for each label. Found an empty one, None"),
        (["x", ""], "Found an empty one, ''"),
        ([1.0, float("nan")], "Found an empty one, nan"),
        (np.array([0.5, 2.0], dtype=np.float32), "continuous value 0.5"),
        ([[0, 1], [1, 1]], r"lists of zeros and ones; do numpy\.array"),
        ([[0, 1], [1, 0]], r"Found 0 and 1 on each; do numpy\.array"),
    ],
)
def test_labels_that_are_none_are_refused(Y: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        made(wh.MultiLabel).fit(["a b", "b c"], Y)


def test_whole_numbers_are_labels_however_they_are_written() -> None:
    X, groups = numbers()
    model = made(wh.MultiLabel).fit(X, groups.astype(np.float32))
    assert model.classes_.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert model.score(X, groups) == model.score(X, groups.astype(float)) > 0.9


def test_a_pair_is_asked_for() -> None:
    with pytest.raises(DataError, match="Expected a pair, documents and their labels"):
        fitted(wh.MultiLabel).evaluate([TEXTS, LABELS, TEXTS])
