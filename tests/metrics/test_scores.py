"""Perplexity and mean rank: twins, edge cases, refusals."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from widehead.metrics import mean_rank, perplexity, target_ranks
from widehead.targets import SparseTargets

NAN, INFINITY = float("nan"), float("inf")


@given(pairs=st.lists(st.tuples(st.floats(-50, 0), st.floats(0, 10)), min_size=1, max_size=8))
def test_perplexity_equals_its_twin(pairs: list[tuple[float, float]]) -> None:
    log_probs, weights = (torch.tensor(column, dtype=torch.float64) for column in zip(*pairs, strict=True))
    total = sum(w for _, w in pairs)
    expected = math.exp(-sum(lp * w for lp, w in pairs) / total) if total > 0 else NAN
    assert perplexity(log_probs, weights) == pytest.approx(expected, nan_ok=True)
    assert perplexity(log_probs) == pytest.approx(math.exp(-sum(lp for lp, _ in pairs) / len(pairs)))


def test_perplexity_at_its_edges() -> None:
    assert perplexity(torch.log(torch.full((4,), 1 / 793_471))) == pytest.approx(793_471, rel=1e-5)
    assert perplexity(torch.tensor([0.0, -INFINITY])) == INFINITY
    assert perplexity(torch.tensor([0.0, -INFINITY]), torch.tensor([1.0, 0.0])) == 1.0
    assert perplexity(torch.tensor([-1000.0])) == INFINITY
    assert math.isnan(perplexity(torch.tensor([])))
    assert math.isnan(perplexity(torch.tensor([-1.0]), torch.tensor([0.0])))


@pytest.mark.parametrize(
    ("log_probs", "weights", "words"),
    [
        ([-1.0, NAN], None, "Found NaN at 1"),
        ([-1.0], [1.0, 1.0], "Found shape (2,)"),
        ([-1.0], [-1.0], "out of range"),
        ([-1.0], [INFINITY], "out of range"),
        ([-1.0], [NAN], "out of range"),
    ],
)
def test_perplexity_refuses(log_probs: list[float], weights: list[float] | None, words: str) -> None:
    with pytest.raises(ValueError, match="should hold") as caught:
        perplexity(torch.tensor(log_probs), None if weights is None else torch.tensor(weights))
    assert words in str(caught.value)


SCORES = st.sampled_from([-INFINITY, -1.0, 0.0, 0.5, 2.0, INFINITY])
EXAMPLE = st.tuples(st.lists(SCORES, min_size=5, max_size=5), st.lists(st.integers(0, 4), max_size=6))


def rank_twin(scores: list[float], target: int) -> float:
    higher = sum(s > scores[target] for s in scores)
    ties = sum(s == scores[target] for s in scores) - 1
    return 1 + higher + ties / 2


@given(examples=st.lists(EXAMPLE, max_size=5))
def test_ranks_equal_their_twin(examples: list[tuple[list[float], list[int]]]) -> None:
    scores = torch.tensor([s for s, _ in examples]).reshape(-1, 5)
    targets = SparseTargets.from_lists([t for _, t in examples])
    ranks = [[rank_twin(s, c) for c in t] for s, t in examples]
    assert target_ranks(scores, targets).tolist() == [r for row in ranks for r in row]
    means = [sum(row) / len(row) if row else NAN for row in ranks]
    assert mean_rank(scores, targets).tolist() == pytest.approx(means, nan_ok=True)


def test_a_model_that_knows_nothing_has_the_middle_rank() -> None:
    assert mean_rank(torch.zeros(2, 101), SparseTargets.from_ids([0, 100])).tolist() == [51.0, 51.0]


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (torch.zeros(3), "should have shape (1, D). Found (3,)"),
        (torch.zeros(2, 3), "should have shape (1, D). Found (2, 3)"),
        (torch.zeros(1, 2), "in [0, 2). Found class_ids[0] = 2 in example 0"),
        (torch.tensor([[0.0, NAN, 0.0]]), "Found one in example 0, class 1"),
    ],
)
def test_ranks_refuse(scores: torch.Tensor, words: str) -> None:
    with pytest.raises(ValueError, match="should") as caught:
        target_ranks(scores, SparseTargets.from_lists([[2]]))
    assert words in str(caught.value)
