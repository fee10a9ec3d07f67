"""The best of scores that come in blocks, beside a full and stable sort of all of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from widehead.search.exhaustive import streaming_top_k
from widehead.targets import SparseTargets


def sorted_twin(scores: Tensor, k: int, exclude: SparseTargets | None) -> Tensor:
    """(m, k) the largest scores of each row, by sorting all."""
    scores = scores.clone()
    for row, ids in enumerate([] if exclude is None else exclude.to_lists()):
        scores[row, ids] = -torch.inf
    return scores.sort(dim=1, descending=True).values[:, :k]


def drawn(kind: str, m: int, n: int) -> Tensor:
    scores = torch.randn(m, n)
    if kind == "ties":
        return scores.mul_(2.0).round_()
    if kind == "alike":
        return torch.zeros(m, n)
    return scores.sort(dim=1).values if kind == "rising" else scores


@pytest.mark.parametrize("kind", ["plain", "ties", "alike", "rising"])
@pytest.mark.parametrize(("n", "k"), [(1000, 1), (1000, 20), (1003, 5), (640, 20), (639, 20), (50, 50), (1000, 990)])
@pytest.mark.parametrize("block", [1 << 14, 700, 64])
def test_the_best_of_blocks_are_those_of_a_full_sort(kind: str, n: int, k: int, block: int) -> None:
    torch.manual_seed(0)
    scores = drawn(kind, 6, n)
    exclude = SparseTargets.from_lists([[0, 1], [], list(range(0, n, 2)), [n - 1], list(range(n)), [5, 5]])
    expected = sorted_twin(scores, k, exclude)
    blocks = ((start, scores[:, start : start + block].clone()) for start in range(0, n, block))
    found, ids = streaming_top_k(blocks, k, exclude)
    assert torch.equal(found, expected)
    there = found > -torch.inf
    assert not found.isnan().any()
    assert torch.equal(scores.gather(1, ids)[there], found[there])  # each is a class of that score
    for row, mine, banned in zip(ids, there, exclude.to_lists(), strict=True):
        assert len(set(row[mine].tolist())) == int(mine.sum())
        assert not set(row[mine].tolist()) & set(banned)


def test_more_than_there_are_and_a_score_that_is_no_number() -> None:
    scores = torch.randn(3, 400)
    assert streaming_top_k([(7, scores.clone())], 1000)[1].sort(dim=1).values.tolist() == [list(range(7, 407))] * 3
    scores[1, 123] = torch.nan
    found, ids = streaming_top_k([(0, scores.clone())], 3)
    assert found[1, 0].isnan()
    assert ids[1, 0] == 123
    assert not found[[0, 2]].isnan().any()
