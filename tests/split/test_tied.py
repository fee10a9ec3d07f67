"""Embeddings that are the rows of a split head: what one process makes of them."""

from __future__ import annotations

import pytest
from split import tied
from split.test_split_head import check
from support.several import Several

pytestmark = pytest.mark.long


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize(
    ("head", "kind", "optimizer"),
    [
        ("full", "gru", "adam"),
        ("full", "transformer", "sgd"),
        ("sampled", "gru", "adam"),
        ("sampled", "bag", "adagrad"),
        ("sampled, dense", "bag", "adam"),
        ("in-batch", "lstm", "sgd"),
        ("retrieved", "bag", "adagrad"),
    ],
)
def test_tied_embeddings(several: Several, head: str, kind: str, optimizer: str, size: int) -> None:
    """Sparse gradients and dense ones, by optimisers of both; some processes have no sequence now and then."""
    check(several.run(size, tied.trained, head, kind, optimizer, 12), 1e-11)
