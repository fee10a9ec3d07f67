"""Ranking metrics against slow obvious twins in plain Python, and their edge cases by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from widehead.metrics import (
    Propensities,
    best_psp_at_k,
    hits,
    mean_over_examples,
    mrr_at_k,
    ndcg_at_k,
    precision_at_k,
    psp_at_k,
    recall_at_k,
)
from widehead.targets import SparseTargets

NAN = float("nan")
CLASSES = 9
PROPENSITIES = Propensities.from_counts(torch.tensor([0, 1, 1, 2, 3, 5, 8, 40, 41]), 50)


def recall_twin(ranked: list[int], relevant: set[int], k: int, unreachable: int) -> float:
    return sum(c in relevant for c in ranked[:k]) / (len(relevant) + unreachable)


def precision_twin(ranked: list[int], relevant: set[int], k: int, unreachable: int) -> float:
    return sum(c in relevant for c in ranked[:k]) / k


def ndcg_twin(ranked: list[int], relevant: set[int], k: int, unreachable: int) -> float:
    gain = sum(1 / math.log2(place + 1) for place, c in enumerate(ranked[:k], 1) if c in relevant)
    return gain / sum(1 / math.log2(place + 1) for place in range(1, min(k, len(relevant) + unreachable) + 1))


def mrr_twin(ranked: list[int], relevant: set[int], k: int, unreachable: int) -> float:
    return next((1 / place for place, c in enumerate(ranked[:k], 1) if c in relevant), 0.0)


def psp_twin(ranked: list[int], relevant: set[int], k: int, unreachable: int) -> float:
    return sum(float(PROPENSITIES.inverse[c]) for c in ranked[:k] if c in relevant) / k


def best_psp_twin(ranked: list[int], relevant: set[int], k: int, unreachable: int) -> float:
    gains = [float(PROPENSITIES.inverse[c]) for c in relevant] + [PROPENSITIES.unseen] * unreachable
    return sum(sorted(gains, reverse=True)[:k]) / k


METRICS = {
    "recall": (recall_at_k, recall_twin),
    "precision": (precision_at_k, precision_twin),
    "ndcg": (ndcg_at_k, ndcg_twin),
    "mrr": (mrr_at_k, mrr_twin),
    "psp": (lambda *a: psp_at_k(*a[:3], PROPENSITIES, a[3]), psp_twin),
    "best psp": (lambda *a: best_psp_at_k(*a[1:3], PROPENSITIES, a[3]), best_psp_twin),
}
EXAMPLE = st.tuples(
    st.permutations(range(CLASSES)), st.lists(st.integers(0, CLASSES - 1), max_size=8), st.integers(0, 4)
)


@pytest.mark.parametrize("metric", METRICS)
@given(examples=st.lists(EXAMPLE, max_size=5), k=st.integers(1, CLASSES), width=st.integers(0, CLASSES))
def test_metrics_equal_their_twins(metric: str, examples: list, k: int, width: int) -> None:
    fast, twin = METRICS[metric]
    ranked = torch.tensor([e[0] for e in examples], dtype=torch.int64).reshape(-1, CLASSES)[:, : max(k, width)]
    unreachable = torch.tensor([e[2] for e in examples], dtype=torch.int64)
    found = fast(ranked, SparseTargets.from_lists([e[1] for e in examples]), k, unreachable)
    expected = [twin(r, set(c), k, u) if c or u else NAN for r, c, u in examples]
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("metric", METRICS)
def test_an_example_without_relevant_classes_is_nan_unless_one_is_unreachable(metric: str) -> None:
    fast, _ = METRICS[metric]
    ranked, relevant = torch.tensor([[1, 2], [1, 2]]), SparseTargets.from_lists([[], [2]])
    alone, missed = fast(ranked, relevant, 2, None), fast(ranked, relevant, 2, torch.tensor([1, 0]))
    assert alone.isnan().tolist() == [True, False]
    assert missed.isnan().tolist() == [False, False]
    if metric != "best psp":
        assert missed[0] == 0.0


def test_the_rules_of_the_divisors() -> None:
    ranked = torch.tensor([[5, 6, 7]])
    many = SparseTargets.from_lists([[5, 6, 7, 8]])
    assert recall_at_k(ranked, many, 3).tolist() == [0.75]  # never 1, as only 3 of 4 can be named
    assert ndcg_at_k(ranked, many, 3).tolist() == [1.0]
    one = SparseTargets.from_lists([[6, 6]])  # named twice, counts once
    assert recall_at_k(ranked, one, 3).tolist() == [1.0]
    assert precision_at_k(ranked, one, 3).tolist() == pytest.approx([1 / 3])
    assert ndcg_at_k(ranked, one, 3).tolist() == pytest.approx([1 / math.log2(3)])


def test_values_of_targets_do_not_count() -> None:
    valued = SparseTargets([1, 2], [0, 2], [0.0, -3.0])
    assert recall_at_k(torch.tensor([[2, 1]]), valued, 2).tolist() == [1.0]


def test_empty_places_are_never_hits() -> None:
    ranked = torch.tensor([[3, -1, -1], [-1, -1, -1]], dtype=torch.int32)
    relevant = SparseTargets.from_lists([[3], [0]])
    assert hits(ranked, relevant, 3).tolist() == [[True, False, False], [False, False, False]]
    # A class of another example, shifted by the number of classes, is no hit either.
    assert not hits(torch.tensor([[4], [0]]), SparseTargets.from_lists([[0], [3]]), 1).any()


def test_very_large_class_ids() -> None:
    large = 10**8 - 1
    ranked = torch.tensor([[large, 0]] * 1000)
    assert hits(ranked, SparseTargets.from_lists([[large]] * 1000), 2).tolist() == [[True, False]] * 1000


@pytest.mark.parametrize(
    ("ranked", "relevant", "k", "error", "words"),
    [
        (torch.tensor([[1.0]]), [[1]], 1, TypeError, "integer class ids. Found dtype torch.float32"),
        (torch.tensor([[True]]), [[1]], 1, TypeError, "Found dtype torch.bool"),
        (torch.tensor([1]), [[1]], 1, ValueError, "shape (1, k)"),
        (
            torch.tensor([[1]]),
            [[1], [2]],
            1,
            ValueError,
            "shape (2, k), a row for each example of `relevant`. Found (1, 1)",
        ),
        (torch.tensor([[1, 2]]), [[1]], 3, ValueError, "`k` should be in [1, 2], the ranked classes. Found 3"),
        (torch.tensor([[1, 2]]), [[1]], 0, ValueError, "Found 0"),
        (torch.tensor([[1, 2, 3], [4, 6, 4]]), [[1], [1]], 3, ValueError, "Found class 4 twice in row 1"),
    ],
)
def test_rankings_that_are_none_are_refused(
    ranked: torch.Tensor, relevant: list, k: int, error: type, words: str
) -> None:
    for fast, _ in list(METRICS.values())[:4]:
        with pytest.raises(error) as caught:
            fast(ranked, SparseTargets.from_lists(relevant), k, None)
        assert words in str(caught.value)


@pytest.mark.parametrize("unreachable", [torch.tensor([1, 2]), torch.tensor([-1]), torch.tensor(1)])
def test_unreachable_numbers_that_do_not_fit_are_refused(unreachable: torch.Tensor) -> None:
    for fast, _ in METRICS.values():
        with pytest.raises(ValueError, match="`unreachable` should hold a number"):
            fast(torch.tensor([[1]]), SparseTargets.from_lists([[1]]), 1, unreachable)


def test_places_past_the_kth_are_of_no_account() -> None:
    relevant = SparseTargets.from_lists([[1], [7]])
    for fast, _ in list(METRICS.values())[:4]:
        short, long = torch.tensor([[1, 2], [3, 4]]), torch.tensor([[1, 2, 2, 1], [3, 4, 7, 7]])
        assert torch.equal(fast(long, relevant, 2, None), fast(short, relevant, 2, None))


def test_the_mean_leaves_out_nan() -> None:
    assert mean_over_examples(torch.tensor([0.25, NAN, 0.75])) == 0.5
    assert math.isnan(mean_over_examples(torch.tensor([NAN, NAN])))
    assert math.isnan(mean_over_examples(torch.tensor([])))


def test_propensities_are_those_of_the_paper() -> None:
    n, count, a, b = 1000, 7, 0.55, 1.5
    c = (math.log(n) - 1) * (b + 1) ** a
    made = Propensities.from_counts(torch.tensor([count, 0]), n)
    assert made.inverse.tolist() == pytest.approx([1 + c * math.exp(-a * math.log(count + b)), made.unseen])
    assert made.inverse[0] < made.inverse[1]


def test_propensities_of_tiny_data_and_wrong_arguments() -> None:
    assert Propensities.from_counts(torch.tensor([0, 1]), 1).inverse.tolist() == [1.0, 1.0]
    assert Propensities.from_counts(torch.tensor([0]), 0).unseen == 1.0
    for counts, n, a, b in (([-1], 5, 0.5, 1.5), ([1], -1, 0.5, 1.5), ([1], 5, -0.1, 1.5), ([1], 5, 0.5, 0.0)):
        with pytest.raises(ValueError, match="at least 0"):
            Propensities.from_counts(torch.tensor(counts), n, a=a, b=b)


def test_a_label_without_propensity_is_refused() -> None:
    relevant = SparseTargets.from_lists([[CLASSES]])
    with pytest.raises(ValueError, match=rf"in \[0, {CLASSES}\). Found class_ids\[0\] = {CLASSES}"):
        psp_at_k(torch.tensor([[1]]), relevant, 1, PROPENSITIES)
    with pytest.raises(ValueError, match="`k` should be at least 1"):
        best_psp_at_k(SparseTargets.from_lists([[1]]), 0, PROPENSITIES)
