"""Answers: an input of which nothing is known has no classes, whatever the head."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch
from support.head_table import TABLE, Row

from widehead.jobs.judging import ranked_rows
from widehead.models import BagEncoder, WideNetwork

# Rows: known; nothing; known, but only of an input whose row of the encoder is zero; a value of 0; known.
INPUTS = scipy.sparse.csr_matrix(
    (np.array([1, 2, 1, 0, 1], dtype=np.float32), [0, 1, 3, 1, 2], [0, 2, 2, 3, 4, 5]), shape=(5, 4)
)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("hidden", [(), (6,)])
def test_nothing_known_no_classes(row: Row, bias: bool, hidden: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    encoder = BagEncoder(4, 8, hidden=hidden, activation="none")
    with torch.no_grad():
        encoder.embeddings.weight[3] = 0.0
    network = WideNetwork(encoder, row.make(8, 20, torch.float32, bias))
    rows, classes, scores = zip(*ranked_rows(network, INPUTS, 3, exclude_inputs=False), strict=True)
    assert rows == (0, 1, 2, 3, 4)
    # The bias of a layer in between says nothing of the input, but its row of zeros is the encoder's own.
    assert [len(found) for found in classes] == [3, 0, 3 if hidden else 0, 0, 3]
    assert [len(found) for found in scores] == [len(found) for found in classes]


def test_excluded_classes_are_not_named() -> None:
    torch.manual_seed(0)
    network = WideNetwork(BagEncoder(4, 8), TABLE[0].make(8, 4, torch.float32, False))
    found = list(ranked_rows(network, INPUTS, 4, exclude_inputs=True))
    assert [sorted(classes) for _, classes, _ in found] == [[2, 3], [], [0, 1, 2], [], [0, 1, 3]]
