"""scikit-learn's own checks and tools."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator
from support.memory_data import DATA, made

import widehead as wh

_WORDS = "refused with ValueError, in our words and not in those that the check looks for"
NOT_APPLICABLE: dict[Any, dict[str, str]] = {
    wh.Recommender: {
        "check_complex_data": _WORDS,
        "check_dtype_object": "a cell that is no number is refused with DataError, a ValueError, not with TypeError",
        "check_estimators_empty_data_messages": _WORDS,
        "check_n_features_in_after_fitting": _WORDS,
    },
    wh.MultiLabel: {
        "check_complex_data": _WORDS,
        "check_dtype_object": "a cell that is no number is refused with DataError, a ValueError, not with TypeError",
        "check_estimators_empty_data_messages": _WORDS,
        "check_fit2d_predict1d": _WORDS,
        "check_n_features_in_after_fitting": _WORDS,
        "check_classifiers_multilabel_representation_invariance": "lists are labels, not rows of zeros and ones",
    },
    wh.WordVectors: {},  # it takes texts, which no check gives
    wh.NextItem: {},  # nor sequences
}


@pytest.mark.parametrize("kind", NOT_APPLICABLE)
def test_its_checks(kind: Any) -> None:
    results = check_estimator(
        kind(width=2, batch_size=64, quiet=True),
        expected_failed_checks=NOT_APPLICABLE[kind],
        on_skip=None,
        on_fail=None,
    )
    failed = {row["check_name"]: str(row["exception"]) for row in results if row["status"] == "failed"}
    assert not failed
    expected = {row["check_name"] for row in results if row["status"] == "xfail"}
    assert expected == set(NOT_APPLICABLE[kind]), "a check that passes is applicable"


@pytest.mark.parametrize("kind", DATA)
def test_clones_are_not_fitted(kind: Any) -> None:
    model = made(kind, at=(1,), on_log=print).fit(*DATA[kind])
    again = clone(model)
    assert again.get_params() == model.get_params()
    with pytest.raises(NotFittedError, match="should be fitted first"):
        again.evaluate([])


def test_a_grid_of_recommenders() -> None:
    """Its folds are of users, who are new to the model: the score hides some of what they have."""
    rows = scipy.sparse.csr_matrix(np.kron(np.ones((20, 1)), np.kron(np.eye(5), np.ones((1, 12)))))
    search = GridSearchCV(made(wh.Recommender, at=(5,)), {"width": np.array([1, 8])}, cv=3).fit(rows)
    assert search.best_params_ == {"width": 8}
    assert search.best_score_ > 0.9


def test_a_pipeline_of_texts_and_a_grid() -> None:
    texts, labels = DATA[wh.MultiLabel]
    single = [row[1] for row in labels]
    model = make_pipeline(TfidfVectorizer(), made(wh.MultiLabel))
    search = GridSearchCV(model, {"multilabel__width": [1, 18]}, cv=3).fit(texts, single)
    assert search.best_params_ == {"multilabel__width": 18}
    assert search.predict(texts[:5]).tolist() == single[:5]
    assert is_classifier(model)
    several = cross_val_score(made(wh.MultiLabel), np.array(texts, dtype=object), labels, cv=KFold(3))
    assert several.min() > 0.9
