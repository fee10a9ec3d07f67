"""What features count in votes of neighbours: judged as by a dense twin, and chosen if it is worth it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

from widehead.data import RowExamples
from widehead.jobs.candidates import NONE
from widehead.jobs.neighbours import Neighbours, best_power
from widehead.metrics import Propensities
from widehead.models.classifiers import LinearClassifiers


def topics(values: float) -> RowExamples:
    """400 documents of one of eight frequent features, which is the label, and of five rare ones of some value."""
    rng = np.random.default_rng(6)
    topic = rng.integers(0, 8, 400)
    features = np.zeros((400, 408))
    for document in range(400):
        features[document, 8 + rng.choice(400, 5, replace=False)] = values
    features[np.arange(400), topic] = 1.0
    return RowExamples(*(scipy.sparse.csr_matrix(part.astype(np.float32)) for part in (features, np.eye(8)[topic])))


@pytest.mark.parametrize("block", [7, 500])
def test_votes_of_documents_for_one_another_are_judged_as_by_a_dense_twin(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents, some = topics(3.0), np.arange(3, 400, 9)
    monkeypatch.setattr("widehead.jobs.neighbours._BLOCK", block)
    found = Neighbours(documents.inputs, documents.targets, 3, choice=replace(NONE, power=0.5))
    dense, labels = documents.inputs.toarray(), documents.targets.toarray()
    dense = dense / (1 + np.log(401 / (1 + (dense != 0).sum(axis=0)))) ** 0.5
    dense /= np.linalg.norm(dense, axis=1, keepdims=True)
    cosines = dense @ dense.T
    np.fill_diagonal(cosines, 0.0)
    near = np.sort(cosines, axis=1)[:, -3:-2]
    votes = np.where(cosines >= near, cosines, 0.0) ** 3 @ labels
    right = (votes.argmax(axis=1) == labels.argmax(axis=1))[some].mean()
    propensities = Propensities.from_counts(torch.ones(8, dtype=torch.int64), 400)
    assert found.judged(some, ["precision@1"], propensities)["precision@1"] == pytest.approx(right, abs=0.03)
    assert 0.2 < right < 0.95


def test_what_features_count_is_what_votes_do_best_with() -> None:
    """Rare features of large values hide the frequent ones that tell; of small values they hide nothing."""
    propensities = Propensities.from_counts(torch.ones(8, dtype=torch.int64), 400)
    assert best_power(topics(2.0), 3, ["precision@1"], propensities) == 1.0
    assert best_power(topics(0.1), 3, ["precision@1"], propensities) == 0.0
    unlabelled = RowExamples(topics(3.0).inputs, scipy.sparse.csr_matrix((400, 8), dtype=np.float32))
    assert best_power(unlabelled, 3, ["precision@1"], propensities) == 0.0


@pytest.mark.parametrize("power", [1.0, -1.0])
def test_features_of_0_are_as_features_that_are_not_there(power: float) -> None:
    """As a file may have them."""
    documents = topics(2.0)
    features = documents.inputs.copy()
    features.data[np.random.default_rng(7).random(features.nnz) < 0.3] = 0.0
    without = features.copy()
    without.eliminate_zeros()
    made, expected = (
        Neighbours(part, documents.targets, 3, choice=replace(NONE, power=power)) for part in (features, without)
    )
    found = made.votes(made._nearest(made._known)).toarray()
    np.testing.assert_allclose(found, expected.votes(expected._nearest(expected._known)).toarray(), atol=1e-6)


def test_what_each_power_is_judged_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents with labels alone, 1,000 at most, and the mean of the metrics."""
    labels = scipy.sparse.csr_matrix(np.eye(8, dtype=np.float32)[np.arange(3_000) % 8])
    labels = (scipy.sparse.diags_array((np.arange(3_000) % 2).astype(np.float32)) @ labels).tocsr()
    labels.eliminate_zeros()
    documents = RowExamples(scipy.sparse.csr_matrix(np.ones((3_000, 2), dtype=np.float32)), labels)
    metrics = {0.0: (0.5, 0.5), -1.0: (0.6, 0.3), -0.5: (0.55, 0.53), 0.5: (0.5, 0.5), 1.0: (0.4, 0.4)}

    def judged(self: Neighbours, some: np.ndarray, *_: Any) -> dict[str, float]:
        assert (len(np.unique(some)), (some % 2).min()) == (1_000, 1)
        return dict(zip("ab", metrics[self.choice.power], strict=True))

    monkeypatch.setattr(Neighbours, "judged", judged)
    propensities = Propensities.from_counts(torch.ones(8, dtype=torch.int64), 3_000)
    assert best_power(documents, 3, ["a", "b"], propensities) == -0.5


def test_classifiers_learn_from_what_is_voted_for_beside_labels() -> None:
    documents, power = topics(2.0), 1.0
    made = Neighbours(documents.inputs, documents.targets, 3, choice=replace(NONE, power=power))
    voted = made.voted(np.arange(len(documents)))
    found, expected = made.learn(voted), LinearClassifiers.of(made._known, documents.targets, voted)
    assert (found.weights != expected.weights).nnz == 0
    assert np.array_equal(found.biases, expected.biases)
    assert made.classifiers is found


def test_a_power_must_be_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics of a power that are better by 5 % or less, than those of the power 0, are noise."""
    documents, propensities = topics(2.0), Propensities.from_counts(torch.ones(8, dtype=torch.int64), 400)
    for better, power in ((1.03, 0.0), (1.07, -0.5)):
        metrics = {0.0: 0.5, -1.0: 0.2, -0.5: 0.5 * better, 0.5: 0.5, 1.0: 0.4}
        monkeypatch.setattr(Neighbours, "judged", lambda self, *_, metrics=metrics: {"a": metrics[self.choice.power]})
        assert best_power(documents, 3, ["a"], propensities) == power


@pytest.mark.parametrize(("meetings", "told"), [(4_000, 1.0), (20, 1.0), (19, 0.0), (1, 0.0)])
def test_frequent_features_are_left_out_only_where_they_cost_too_much(
    meetings: int, told: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("widehead.jobs.neighbours._MEETINGS", meetings)
    monkeypatch.setattr("widehead.jobs.neighbours._FREE", 10)
    features = scipy.sparse.csr_matrix(np.eye(2, dtype=np.float32)[np.arange(40) % 2])
    made = Neighbours(features, features, 3)
    found = made.judged(np.arange(40), ["precision@1"], Propensities.from_counts(torch.ones(2).long(), 40))
    assert found["precision@1"] == told
