"""The retrieved softmax: its gradient, its bias, its tails, its exact draws."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from support.retrieved import MODES, TARGETS, WIDTH, D, M, hidden_layer, make

import widehead as wh
from widehead.search import ExhaustiveIndex


def spoil_recall(head: wh.RetrievedSoftmaxHead) -> None:
    """An index that finds hardly anything of what is best, and too few ids."""
    found = head.upkeep.search

    def search(table: torch.Tensor, queries: torch.Tensor, k: int, drift: torch.Tensor) -> tuple[torch.Tensor, ...]:
        scores, ids = found(table, queries, k, drift)
        ids = torch.where(ids >= 0, (ids * 37 + 11) % D, -1)
        return scores, torch.where(torch.arange(k) < k // 2, ids, -1)

    head.upkeep.search = search  # type: ignore[method-assign, assignment]


def make_stale(head: wh.RetrievedSoftmaxHead) -> None:
    head(hidden_layer(), TARGETS)
    with torch.no_grad():
        head.table += 0.5 * torch.randn_like(head.table)
    head.drift.zero_()


# -- Ẑ is unbiased, log Ẑ is not ------------------------------------------------------------------------------------


@pytest.mark.parametrize("index_state", ["good", "poor", "stale"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("draws", [120, pytest.param(400, marks=pytest.mark.long)])
def test_the_normaliser_is_unbiased_and_its_logarithm_low(
    mode: dict[str, object], index_state: str, draws: int
) -> None:
    """4 standard errors over the draws: E Ẑ/Z = 1 whatever the index does; E log Ẑ/Z = −½ Var(Ẑ/Z) + higher terms."""
    head = make(refresh_every=10**6, **mode)
    if index_state == "poor":
        spoil_recall(head)
    if index_state == "stale":
        make_stale(head)
    hidden, targets = hidden_layer(), wh.SparseTargets.convert(TARGETS)
    truth = head.log_normalizer(hidden)
    with torch.no_grad():
        estimate = head._shared if head.shared else head._each
        ratios = torch.stack([(estimate(head._widened(hidden), targets)[0] - truth).exp() for _ in range(draws)])
    error = ratios.std(0) / math.sqrt(draws)
    assert bool((error > 0).any())
    assert bool(((ratios.mean(0) - 1.0).abs() <= 4.0 * error + 1e-9).all())
    logs = ratios.log()
    low = -0.5 * ratios.var(0)
    # The next terms of the expansion: skewness/3, kurtosis/4.
    centred = ratios - 1.0
    higher = (centred**3).mean(0).abs() / 3 + (centred**4).mean(0) / 2
    assert bool(((logs.mean(0) - low).abs() <= 4.0 * logs.std(0) / math.sqrt(draws) + higher + 1e-9).all())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("draws", [300, pytest.param(1000, marks=pytest.mark.long)])
def test_relative_std_is_what_repeated_draws_show(mode: dict[str, object], draws: int) -> None:
    """Within 10 % (an std of 300 draws is itself uncertain by about 4 %, and the mean over the examples by less);
    weights without heavy tails, whose rare large terms most draws do not see."""
    head = make(tail=60, **mode)
    with torch.no_grad():
        head.table *= 0.3
    hidden, targets = hidden_layer(), wh.SparseTargets.convert(TARGETS)
    truth, estimates, noted = head.log_normalizer(hidden), [], []
    with torch.no_grad():
        for _ in range(draws):
            normalizer, _ = (head._shared if head.shared else head._each)(head._widened(hidden), targets)
            estimates.append((normalizer - truth).exp())
            noted.append(head.relative_std)
    assert float(torch.stack(noted).square().mean().sqrt()) == pytest.approx(
        float(torch.stack(estimates).std(0).mean()), rel=0.1
    )


# -- the loss and its gradient --------------------------------------------------------------------------------------


def dense_loss(head: wh.RetrievedSoftmaxHead, table: torch.Tensor, hidden: torch.Tensor, seen: dict) -> torch.Tensor:
    """The definition, example by example, at the S' and T that the head drew."""
    losses = []
    widened = torch.cat([hidden, torch.ones(len(hidden), 1, dtype=hidden.dtype)], 1)
    for b, named in enumerate(TARGETS):
        row = 0 if head.shared else b
        outputs = table @ widened[b]
        kept = sorted({int(i) for i in seen["members"][row] if i >= 0})
        drawn, log_weights = seen["drawn"].ids[row], seen["drawn"].log_weights[row]
        assert not set(kept) & set(drawn.tolist())
        normalizer = torch.logsumexp(torch.cat([outputs[kept], outputs[drawn] + log_weights]), 0)
        losses.append(normalizer - outputs[named].mean() if named else normalizer * 0.0)
    return torch.stack(losses)


@pytest.mark.parametrize("mode", MODES)
def test_loss_and_gradients_are_those_of_the_definition(mode: dict[str, object]) -> None:
    head, hidden, seen = make(**mode), hidden_layer().requires_grad_(), {}
    draw = head._draw

    def spy(members: torch.Tensor, widened: torch.Tensor) -> object:
        seen.update(members=members, drawn=draw(members, widened))
        return seen["drawn"]

    head._draw = spy  # type: ignore[method-assign, assignment]
    weight = torch.rand(M, dtype=torch.float64)
    losses = head(hidden, TARGETS, reduction="none")
    (losses * weight).sum().backward()
    assert head.table.grad is not None
    assert head.table.grad.is_sparse
    if head.shared:  # no class twice, in order
        assert bool((head.table.grad._indices()[0].diff() > 0).all())

    table = head.table.detach().clone().requires_grad_()
    again = hidden.detach().clone().requires_grad_()
    expected = dense_loss(head, table, again, seen)
    (expected * weight).sum().backward()
    assert torch.allclose(losses, expected, rtol=1e-12, atol=1e-12)
    assert torch.allclose(hidden.grad, again.grad, rtol=1e-10, atol=1e-12)  # type: ignore[arg-type]
    assert torch.allclose(head.table.grad.to_dense(), table.grad, rtol=1e-10, atol=1e-12)  # type: ignore[arg-type]


def test_the_full_softmax_where_the_budget_is_a_quarter_of_the_classes() -> None:
    torch.manual_seed(0)
    head = wh.RetrievedSoftmaxHead(4, 50, dtype=torch.float64)
    assert head.is_full
    assert not head.sparse
    hidden = torch.randn(3, 4, dtype=torch.float64)
    target = torch.tensor([1, 49, 1])
    expected = torch.nn.functional.cross_entropy(hidden @ head.table.T, target)
    loss = head(hidden, target)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    loss.backward()
    assert not head.table.grad.is_sparse  # type: ignore[union-attr]
    assert float(head.eval()(hidden, target).detach()) == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scale", [0.0, 1e-10, 1e4])
def test_hostile_scales_give_finite_losses_and_gradients(mode: dict[str, object], scale: float) -> None:
    head, hidden = make(dtype=torch.float32, **mode), hidden_layer().requires_grad_()
    with torch.no_grad():
        head.table *= scale
    loss = head(hidden, TARGETS)
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert bool(torch.isfinite(hidden.grad).all())  # type: ignore[arg-type]
    assert bool(torch.isfinite(head.table.grad.to_dense()).all())  # type: ignore[union-attr]
    assert bool(torch.isfinite(head.relative_std))


@pytest.mark.parametrize("mode", MODES)
def test_empty_batches_and_no_targets(mode: dict[str, object]) -> None:
    head = make(**mode)
    loss = head(torch.empty(0, WIDTH, dtype=torch.float64, requires_grad=True), [])
    loss.backward()
    assert loss.item() == 0.0
    assert float(head.relative_std) == 0.0
    loss = head(hidden_layer(2).requires_grad_(), [[], []])
    loss.backward()
    assert float(loss.detach()) == 0.0


@pytest.mark.parametrize("shared", [True, False])
def test_all_classes_may_be_targets(shared: bool) -> None:
    """Nothing is left for the tail, and Ẑ is Z."""
    head = make(shared=shared, index="exhaustive")
    hidden = hidden_layer(2)
    named = [list(range(D)), list(range(D))]
    loss = head(hidden, named)
    loss.backward()
    expected = head.log_normalizer(hidden) - head.scores(hidden).mean(1)
    assert loss.item() == pytest.approx(expected.mean().item(), rel=1e-12)
    assert bool(torch.isfinite(head.table.grad.to_dense()).all())  # type: ignore[union-attr]


def test_training_with_sparse_adam_reaches_the_full_softmax() -> None:
    """300 steps on a fixed problem: eval loss within 2 % of that of the full softmax trained alike."""
    hidden = torch.randn(64, WIDTH, generator=torch.Generator().manual_seed(1))
    target = torch.randint(D, (64,), generator=torch.Generator().manual_seed(2)) // 4
    ends = []
    for options in ({"retrieved": D}, {"retrieved": 24, "tail": 24}):
        torch.manual_seed(0)
        head = wh.RetrievedSoftmaxHead(WIDTH, D, index="exhaustive", **options)  # type: ignore[arg-type]
        optimizer = (torch.optim.SparseAdam if head.sparse else torch.optim.Adam)(head.parameters(), lr=0.05)
        for _ in range(300):
            optimizer.zero_grad()
            head(hidden, target).backward()
            optimizer.step()
        ends.append(head.eval()(hidden, target).item())
    assert ends[0] < 3.0
    assert ends[1] == pytest.approx(ends[0], rel=0.02)


# -- exact draws ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.05, 0.3, 1.0])
def test_samples_are_from_the_exact_softmax(scale: float) -> None:
    """χ² of 40,000 draws against the dense softmax, classes of fewer than 10 expected draws together."""
    head = make(index="exhaustive")
    with torch.no_grad():
        head.table *= scale
    hidden = hidden_layer(1)
    drawn = head.sample(hidden.expand(2000, -1), 20)
    assert drawn.shape == (2000, 20)
    expected = torch.softmax(head.scores(hidden).detach()[0], 0) * drawn.numel()
    counts = torch.bincount(drawn.reshape(-1), minlength=D).double()
    rare = expected < 10
    expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    counts = torch.cat([counts[~rare], counts[rare].sum()[None]])
    kept = expected > 0
    chi2, free = ((counts - expected).square() / expected)[kept].sum(), int(kept.sum()) - 1
    assert float(chi2) < free + 4.0 * math.sqrt(2.0 * free)
    assert int((ExhaustiveIndex(head.table).search(head._widened(hidden), 70)[1] >= 0).sum()) == 70 < D


# -- bad input ------------------------------------------------------------------------------------------------------


def bad_options() -> Iterator[tuple[dict[str, object], str]]:
    yield {"retrieved": 0}, "`retrieved` should be a whole number of at least 1. Found 0"
    yield {"tail": 1}, "`tail` should be a whole number of at least 2. Found 1"
    yield {"tail_kind": "mixed"}, '`tail_kind` should be "uniform" or "cells". Found \'mixed\''
    yield {"index": "hnsw"}, '`index` should be "auto", "exhaustive" or "ivf". Found \'hnsw\''
    yield {"tail_kind": "cells", "index": "exhaustive"}, "needs the cells of an index"
    yield {"recall": 0.0}, "`recall` should be in"
    yield {"refresh_every": 0}, "`refresh_every` should be at least 1"
    yield {"drift_limit": math.nan}, "`drift_limit` should be above 0"


@pytest.mark.parametrize(("options", "message"), list(bad_options()))
def test_options_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wh.RetrievedSoftmaxHead(WIDTH, D, **options)  # type: ignore[arg-type]


def test_samples_out_of_range() -> None:
    with pytest.raises(ValueError, match="`n` should be at least 1"):
        make(index="exhaustive").sample(hidden_layer(), 0)
