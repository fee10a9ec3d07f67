"""Ranking metrics against those of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score, precision_score, recall_score

from widehead.metrics import mean_over_examples, ndcg_at_k, precision_at_k, recall_at_k
from widehead.targets import SparseTargets

CLASSES = 7
# Equal scores are frequent; an example may have no relevant class.
SCORES = st.lists(st.integers(0, 3), min_size=CLASSES, max_size=CLASSES)
EXAMPLES = st.lists(st.tuples(SCORES, st.sets(st.integers(0, CLASSES - 1))), min_size=1, max_size=6)


def indicators(rows: list[list[int]]) -> np.ndarray:
    """(m, D) ones at the classes of each row."""
    found = np.zeros((len(rows), CLASSES), dtype=np.int64)
    for row, classes in zip(found, rows, strict=True):
        row[classes] = 1
    return found


@given(examples=EXAMPLES, k=st.integers(1, CLASSES))
def test_metrics_are_those_of_scikit_learn(examples: list[tuple[list[int], set[int]]], k: int) -> None:
    ranked = torch.tensor([scores for scores, _ in examples]).argsort(dim=1, descending=True, stable=True)
    lists = [sorted(classes) for _, classes in examples]
    relevant, filled = SparseTargets.from_lists(lists), [i for i, classes in enumerate(lists) if classes]
    values = [metric(ranked, relevant, k) for metric in (recall_at_k, precision_at_k, ndcg_at_k)]
    assert all(
        torch.equal(value.isnan().logical_not().nonzero()[:, 0], torch.tensor(filled).long()) for value in values
    )
    if not filled:
        assert all(np.isnan(mean_over_examples(value)) for value in values)
        return
    truth, top = (indicators(rows)[filled] for rows in (lists, ranked[:, :k].tolist()))
    # The places decide, as scikit-learn averages over the orders of equal scores.
    places = CLASSES - ranked.argsort(dim=1)[filled].double()
    expected = [
        recall_score(truth, top, average="samples"),
        precision_score(truth, top, average="samples"),
        ndcg_score(truth, places.numpy(), k=k),
    ]
    assert [mean_over_examples(value) for value in values] == pytest.approx(expected)
