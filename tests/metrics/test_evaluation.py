"""Evaluation: names, and that batches add up to the whole."""

from __future__ import annotations

import math

import pytest
import torch
from support.played import Device
from torch import Tensor

from widehead.metrics import (
    Evaluation,
    Propensities,
    best_psp_at_k,
    mean_over_examples,
    mean_rank,
    ndcg_at_k,
    perplexity,
    precision_at_k,
    psp_at_k,
    recall_at_k,
)
from widehead.targets import SparseTargets

NAMES = ["recall@3", "recall@1", "ndcg@3", "precision@1", "psp@2", "perplexity", "mean_rank"]


def _problem() -> tuple[Tensor, SparseTargets, Tensor, Propensities]:
    generator = torch.Generator().manual_seed(5)
    scores = torch.randn(40, 12, generator=generator)
    rows = [torch.randperm(12, generator=generator)[: b % 4].tolist() for b in range(40)]
    unreachable = torch.arange(40) % 3 // 2
    return scores, SparseTargets.from_lists(rows), unreachable, Propensities.from_counts(torch.arange(12), 100)


def test_batches_add_up_to_the_whole() -> None:
    scores, targets, unreachable, propensities = _problem()
    evaluation = Evaluation(NAMES, propensities)
    assert evaluation.depth == 3
    log_probs = scores.log_softmax(1)[targets.example_ids, targets.class_ids]
    for rows in torch.arange(40).split(7):
        part = targets.select(rows)
        evaluation.add_ranked(scores[rows].topk(4).indices, part, unreachable[rows])
        evaluation.add_log_probs(scores[rows].log_softmax(1)[part.example_ids, part.class_ids])
        evaluation.add_scores(scores[rows], part)
    ranked = scores.topk(4).indices
    whole = {
        "recall@3": mean_over_examples(recall_at_k(ranked, targets, 3, unreachable)),
        "recall@1": mean_over_examples(recall_at_k(ranked, targets, 1, unreachable)),
        "ndcg@3": mean_over_examples(ndcg_at_k(ranked, targets, 3, unreachable)),
        "precision@1": mean_over_examples(precision_at_k(ranked, targets, 1, unreachable)),
        "psp@2": float(
            psp_at_k(ranked, targets, 2, propensities, unreachable).nansum()
            / best_psp_at_k(targets, 2, propensities, unreachable).nansum()
        ),
        "perplexity": perplexity(log_probs),
        "mean_rank": float((mean_rank(scores, targets) * targets.counts).nansum() / targets.counts.sum()),
    }
    assert evaluation.result() == pytest.approx(whole)
    assert list(evaluation.result()) == NAMES
    without = int(((targets.counts + unreachable) == 0).sum())
    assert (evaluation.examples, evaluation.left_out) == (40 - without, without)


def _batches(device: str) -> list[tuple[Tensor, SparseTargets, Tensor]]:
    """Scores, targets and unreachable numbers of some examples at a time, moved beforehand."""
    scores, targets, unreachable, _ = _problem()
    parts = torch.arange(40).split(7)
    return [(scores[at].to(device), targets.select(at).to(device), unreachable[at].to(device)) for at in parts]


def _add(evaluation: Evaluation, scores: Tensor, part: SparseTargets, unreachable: Tensor) -> None:
    evaluation.add_ranked(scores.topk(4).indices, part, unreachable)
    log_probs = scores.log_softmax(1)[part.example_ids, part.class_ids]
    evaluation.add_log_probs(log_probs, torch.ones_like(log_probs))
    evaluation.add_scores(scores, part)


def test_on_a_device_sums_stay_there_until_the_result(played: Device) -> None:
    found = []
    for device in ("cpu", "cuda"):
        evaluation = Evaluation(NAMES, _problem()[3].to(torch.device(device)))
        batches = _batches(device)
        with played.counting() as adding:
            for batch in batches:
                _add(evaluation, *batch)
        with played.counting() as reading:
            found.append(evaluation.result())
        assert adding.waits == []
        assert len(reading.waits) == (device == "cuda")
        found[-1] |= {"examples": evaluation.examples, "left out": evaluation.left_out}
    assert found[0] == pytest.approx(found[1], rel=1e-12)


ONE = SparseTargets.from_lists([[1, 1, 0]])
WRONG = {
    "distinct": lambda e, to: e.add_ranked(to(torch.tensor([[3, 2, 3]])), ONE.to(to(torch.ones(1)).device)),
    "at least 0": lambda e, to: e.add_ranked(
        to(torch.tensor([[3, 2, 1]])), ONE.to(to(torch.ones(1)).device), to(torch.tensor([-1]))
    ),
    r"in \[0, 12\)": lambda e, to: e.add_ranked(
        to(torch.tensor([[3, 2, 1]])), SparseTargets.from_ids([12]).to(to(torch.ones(1)).device)
    ),
    "logarithms of probabilities": lambda e, to: e.add_log_probs(to(torch.tensor([-1.0, math.nan]))),
    "finite": lambda e, to: e.add_log_probs(to(torch.tensor([-1.0])), to(torch.tensor([math.inf]))),
    "not hold NaN": lambda e, to: e.add_scores(
        to(torch.tensor([[math.nan, 0.0, 1.0]])), ONE.to(to(torch.ones(1)).device)
    ),
    r"in \[0, 3\)": lambda e, to: e.add_scores(
        to(torch.zeros(1, 3)), SparseTargets.from_ids([3]).to(to(torch.ones(1)).device)
    ),
}


@pytest.mark.parametrize("words", WRONG)
def test_what_is_wrong_is_told_at_once_or_with_the_result(played: Device, words: str) -> None:
    evaluation = Evaluation(NAMES, _problem()[3])
    with pytest.raises(ValueError, match=words):
        WRONG[words](evaluation, lambda tensor: tensor)
    evaluation = Evaluation(NAMES, _problem()[3])
    WRONG[words](evaluation, lambda tensor: tensor.to("cuda"))
    _add(evaluation, *_batches("cuda")[0])
    with pytest.raises(ValueError, match=words):
        evaluation.result()


def test_weights_of_targets_count_in_the_perplexity() -> None:
    evaluation = Evaluation(["perplexity"])
    log_probs, weights = torch.tensor([-1.0, -2.0]), torch.tensor([3.0, 1.0])
    evaluation.add_log_probs(log_probs, weights)
    assert evaluation.result()["perplexity"] == pytest.approx(perplexity(log_probs, weights))


def test_a_perfect_ranking_scores_one() -> None:
    evaluation = Evaluation(["recall@2", "ndcg@2", "precision@2", "psp@2"], Propensities.from_counts(torch.ones(5), 99))
    evaluation.add_ranked(torch.tensor([[3, 1]]), SparseTargets.from_lists([[1, 3]]))
    assert set(evaluation.result().values()) == {1.0}


def test_nothing_counted_is_nan_and_others_are_ignored() -> None:
    evaluation = Evaluation(["recall@20", "perplexity", "mean_rank"])
    evaluation.add_ranked(torch.zeros(0, 20, dtype=torch.int64), SparseTargets.from_lists([]))
    assert all(math.isnan(value) for value in evaluation.result().values())
    ranking_only = Evaluation(["recall@1"])
    ranking_only.add_log_probs(torch.tensor([-1.0]))
    ranking_only.add_scores(torch.zeros(1, 2), SparseTargets.from_ids([1]))
    assert list(ranking_only.result()) == ["recall@1"]
    assert Evaluation(["perplexity"]).depth == 0


@pytest.mark.parametrize("name", ["recall", "recall@0", "recall@-1", "Recall@5", "accuracy@1", "ndcg@", "ndcg@1.5", ""])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="Metrics should be") as caught:
        Evaluation([name])
    assert repr(name) in str(caught.value)


def test_propensity_scores_need_propensities() -> None:
    with pytest.raises(ValueError, match="`propensities` should be given"):
        Evaluation(["psp@1"])
