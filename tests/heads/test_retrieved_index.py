"""The life of a retrieved softmax's index: built, refreshed, measured and forgotten."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from support.retrieved import TARGETS, WIDTH, D, hidden_layer, make

import widehead as wh


def test_the_index_is_built_at_the_first_step_and_refreshed_on_schedule() -> None:
    head = make(index="ivf", refresh_every=5)
    assert head.upkeep.index is None
    head.eval()(hidden_layer(), TARGETS)
    assert head.upkeep.index is None
    head.train()
    ages = []
    for _ in range(6):
        head(hidden_layer(), TARGETS)
        ages.append((head.upkeep.refreshes, head.upkeep.age))
    assert ages == [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (1, 1)]


@pytest.mark.parametrize("shared", [True, False])
def test_drift_is_measured_and_refreshes_early(shared: bool) -> None:
    head = make(index="ivf", refresh_every=30, drift_limit=0.4, shared=shared)
    for _ in range(4):
        head(hidden_layer(), TARGETS)
    assert float(head.drift) < 1e-4
    with torch.no_grad():
        head.table += 0.5 * torch.randn_like(head.table)
    head(hidden_layer(), TARGETS)
    # Each score moves by 0.5 ‖(h, 1)‖ times a normal number.
    size = float((hidden_layer().square().sum(1) + 1).mean().sqrt()) * 0.5
    assert float(head.drift) == pytest.approx(size, rel=0.4)
    assert head.upkeep.refreshes == 0
    head(hidden_layer(), TARGETS)
    assert head.upkeep.refreshes == 1
    assert float(head.drift) < 1e-4
    assert head.drift.shape == head.relative_std.shape == ()


def test_new_weights_moves_and_copies_build_the_index_anew() -> None:
    head = make(index="ivf")
    head(hidden_layer(), TARGETS)
    twin = copy.deepcopy(head)
    assert head.upkeep.index is not None
    assert twin.upkeep.index is None
    twin(hidden_layer(), TARGETS)
    assert torch.equal(twin.table, head.table)
    for change in (
        lambda: head.load_state_dict(copy.deepcopy(head.state_dict())),
        lambda: head.load_weight(head.weight()),
        lambda: head.float().double(),
    ):
        head(hidden_layer(), TARGETS)
        assert head.upkeep.index is not None
        change()
        assert head.upkeep.index is None
    assert list(head.state_dict()) == ["table"]


def test_auto_looks_at_all_few_rows_and_needs_no_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    head = make(index="auto")
    head(hidden_layer(), TARGETS)
    assert head.upkeep.index is None
    assert float(head.drift) == 0.0
    with pytest.raises(ImportError, match=r"widehead\[retrieval\]"):
        wh.RetrievedSoftmaxHead(WIDTH, D, index="ivf")
    with pytest.raises(ImportError, match=r"widehead\[retrieval\]"):
        wh.RetrievedSoftmaxHead(WIDTH, D, tail_kind="cells")


def test_the_batch_keeps_the_classes_that_matter_most() -> None:
    head = make(index="exhaustive", retrieved=20)
    hidden, kept = hidden_layer(40), []
    draw = head._draw
    head._draw = lambda members, widened: (kept.append(members), draw(members, widened))[1]  # type: ignore[method-assign, func-returns-value]
    head(hidden, [[0]] * 40)
    members = kept[0][kept[0] >= 0].unique()
    assert members.numel() <= 21
    share = torch.softmax(head.scores(hidden).detach(), 1).sum(0)
    best = share.topk(20).values.sum()
    assert float(share[members].sum() / best) > 0.9


@pytest.mark.parametrize("index", ["exhaustive", "ivf"])
def test_examples_that_find_the_same_classes_find_fewer_of_them(index: str) -> None:
    """Places that are left over stand for no class."""
    head = make(index=index, shared=True, retrieved=20)
    hidden, targets = hidden_layer(1).expand(40, -1), wh.SparseTargets.from_lists([[3]] * 40)
    truth = head.log_normalizer(hidden)
    with torch.no_grad():
        found = [(head._shared(head._widened(hidden), targets)[0] - truth).exp()[0] for _ in range(100)]
    ratios = torch.stack(found)
    assert abs(ratios.mean() - 1.0) <= 0.4 * ratios.std() + 0.01


@pytest.mark.parametrize("change", ["same for all", "not found"])
@pytest.mark.parametrize("shared", [True, False])
def test_drift_is_of_scores_against_each_other(shared: bool, change: str) -> None:
    """A shift of all scores changes no order, and places without a class have no score."""
    head = make(index="ivf", shared=shared)
    head(hidden_layer(), TARGETS)
    found = head.upkeep.search

    def search(*given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        scores, ids = found(*given)  # type: ignore[arg-type]
        missing = torch.arange(ids.shape[1]) >= 6
        return scores.masked_fill(missing, torch.finfo(scores.dtype).min), ids.masked_fill(missing, -1)

    if change == "not found":
        head.upkeep.search = search  # type: ignore[method-assign, assignment]
    else:
        with torch.no_grad():
            head.table[:, WIDTH] += 3.0
    head(hidden_layer(), TARGETS)
    assert float(head.drift) < 1e-4


def test_what_was_measured_is_forgotten_with_the_index() -> None:
    head = make(index="ivf")
    for change in (lambda: head.load_weight(2.0 * head.weight()), head.float):
        head(hidden_layer(), TARGETS)
        head.drift = torch.ones_like(head.drift)
        assert float(head.relative_std) > 0.0
        change()
        for measured in (head.drift, head.relative_std):
            assert measured.tolist() == 0.0
            assert measured.dtype == head.dtype


def test_budgets() -> None:
    def head(**options: object) -> wh.RetrievedSoftmaxHead:
        return wh.RetrievedSoftmaxHead(2, 10_000, index="exhaustive", **options)  # type: ignore[arg-type]

    assert (head().retrieved, head().tail) == (1200, 1200)
    assert (head(shared=False).retrieved, head(shared=False).tail) == (400, 400)
    for retrieved, tail, full in ((1, 2499, True), (2498, 2, True), (2497, 2, False), (1, 2498, False)):
        assert head(retrieved=retrieved, tail=tail).is_full == full
    # Twice as many candidates in a batch as are kept, at least 16 and at most all an example.
    assert [head()._per_query(m) for m in (0, 1, 2, 3, 10, 1000)] == [1200, 1200, 1200, 800, 240, 16]
    assert head(retrieved=5)._per_query(1000) == 5
