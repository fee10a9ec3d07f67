"""Every head × the properties of losses, gradients and scores that all of them share."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from support.head_table import (
    BIAS,
    RAGGED,
    ROWS,
    TABLE,
    TYPES,
    VALUES,
    D,
    M,
    Row,
    gradients,
    hidden_of,
    loss_of,
    make,
    small_blocks,
    valued,
)

import widehead as wh

__all__ = ["small_blocks"]  # a fixture that runs by itself


@ROWS
@TYPES
@BIAS
@pytest.mark.parametrize("weighted", [False, True])
def test_reductions_agree(row: Row, dtype: torch.dtype, bias: bool, weighted: bool) -> None:
    head, hidden = make(row, dtype, bias), hidden_of(dtype=dtype)
    weight = torch.tensor([0.5, 7.0, 2.0, 0.0, 1.0, 3.0], dtype=dtype) if weighted else None
    scale = torch.ones(M, dtype=dtype) if weight is None else weight
    plain = loss_of(head, hidden, RAGGED, reduction="none")
    losses = loss_of(head, hidden, RAGGED, reduction="none", weight=weight)
    assert losses.shape == (M,)
    assert losses.dtype == dtype
    assert losses[1] == losses[4] == 0.0
    assert torch.allclose(losses, plain * scale)
    total = loss_of(head, hidden, RAGGED, reduction="sum", weight=weight)
    assert torch.allclose(total, losses.sum())
    named = torch.tensor([bool(ids) for ids in RAGGED])
    mean = loss_of(head, hidden, RAGGED, reduction="mean", weight=weight)
    assert torch.allclose(mean, losses.sum() / scale[named].sum())


@ROWS
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradients_of_reductions_are_those_of_weighted_losses(row: Row, reduction: Any) -> None:
    weight = torch.tensor([0.5, 7.0, 2.0, 0.1, 1.0, 3.0], dtype=torch.float64)
    head, hidden = make(row), hidden_of()
    twin, other = copy.deepcopy(head), hidden_of()
    loss_of(head, hidden, RAGGED, weight=weight, reduction=reduction).backward()
    total = weight[[0, 2, 3, 5]].sum() if reduction == "mean" else 1.0
    (loss_of(twin, other, RAGGED, reduction="none") * weight / total).sum().backward()
    for a, b in zip(gradients(head, hidden), gradients(twin, other), strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


@ROWS
def test_weights_of_examples_have_any_type(row: Row) -> None:
    head, hidden = make(row, torch.float32), hidden_of(dtype=torch.float32)
    weight = torch.tensor([1, 7, 2, 0, 1, 3])
    expected = loss_of(head, hidden, RAGGED, weight=weight.float())
    for other in (weight, weight.double()):
        loss = loss_of(head, hidden, RAGGED, weight=other)
        assert loss.dtype == torch.float32
        assert torch.equal(loss, expected)


@ROWS
def test_padded_and_ragged_targets_are_the_same_as_lists(row: Row) -> None:
    head, hidden = make(row), hidden_of()
    expected = loss_of(head, hidden, RAGGED, reduction="none")
    padded = torch.full((M, 3), -100)
    for b, ids in enumerate(RAGGED):
        padded[b, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
    for targets in (padded, padded.numpy(), wh.SparseTargets.from_lists(RAGGED), padded.to(torch.int32)):
        assert torch.equal(loss_of(head, hidden, targets, reduction="none"), expected)
    single = torch.tensor([3, -100, 4, 0, -100, 33])
    lists = [[3], [], [4], [0], [], [33]]
    assert torch.equal(loss_of(head, hidden, single), loss_of(head, hidden, lists))


@ROWS
@TYPES
def test_several_targets_are_the_mean_of_single_ones_by_value(row: Row, dtype: torch.dtype) -> None:
    if not row.deterministic:
        pytest.skip("several targets and one at a time draw different classes")
    head, hidden = make(row, dtype), hidden_of(dtype=dtype)
    for values in (VALUES, None):
        losses = loss_of(head, hidden, RAGGED if values is None else valued(values), reduction="none")
        for b, ids in enumerate(RAGGED):
            if not ids:
                continue
            singles = loss_of(head, hidden[b].expand(len(ids), -1), torch.tensor(ids), reduction="none")
            share = torch.ones(len(ids), dtype=dtype) if values is None else torch.tensor(values[b], dtype=dtype)
            assert torch.allclose(losses[b], (share * singles).sum() / share.sum(), rtol=1e-5)


@ROWS
@BIAS
def test_loss_in_eval_mode_is_minus_log_prob(row: Row, bias: bool) -> None:
    head, hidden = make(row, bias=bias).eval(), hidden_of()
    if not getattr(head, "has_probabilities", True):
        with pytest.raises(TypeError, match="no probabilities"):
            head.log_prob(hidden, torch.tensor([0] * M))
        assert torch.isfinite(loss_of(head, hidden, RAGGED))
        return
    log_p = head.log_prob(hidden, torch.arange(D).expand(M, D))
    assert torch.allclose(log_p.exp().sum(1), torch.ones(M, dtype=torch.float64), rtol=1e-10)
    losses = loss_of(head, hidden, valued(), reduction="none")
    for b, (ids, values) in enumerate(zip(RAGGED, VALUES, strict=True)):
        share = torch.tensor(values, dtype=torch.float64)
        expected = -(share * log_p[b, ids]).sum() / share.sum() if ids else torch.zeros(())
        assert torch.allclose(losses[b], expected.to(losses), rtol=1e-9)
    ragged = wh.SparseTargets.from_lists(RAGGED)
    assert torch.allclose(head.log_prob(hidden, ragged), log_p[ragged.example_ids, ragged.class_ids])
    assert torch.allclose(head.log_prob(hidden, torch.arange(M)), log_p[torch.arange(M), torch.arange(M)])
    if row.deterministic and row.minus_log_p:
        assert torch.allclose(losses, loss_of(head.train(), hidden, valued(), reduction="none"))


@ROWS
@TYPES
@BIAS
def test_scores_of_some_classes_agree_with_those_of_all(row: Row, dtype: torch.dtype, bias: bool) -> None:
    head, hidden = make(row, dtype, bias), hidden_of(dtype=dtype).detach()
    everything = head.scores(hidden)
    assert everything.shape == (M, D)
    assert everything.dtype == dtype
    one = torch.tensor([5, 59, 0, 5, 5, 31])
    several = torch.tensor([[5, 5, 0], [1, 2, 59]] + [[7, 8, 9]] * 4)
    ragged = wh.SparseTargets.from_lists(RAGGED)
    assert torch.allclose(head.scores(hidden, one), everything[torch.arange(M), one], rtol=1e-4, atol=1e-5)
    assert torch.allclose(head.scores(hidden, several), everything.gather(1, several), rtol=1e-4, atol=1e-5)
    expected = everything[ragged.example_ids, ragged.class_ids]
    assert torch.allclose(head.scores(hidden, ragged), expected, rtol=1e-4, atol=1e-5)


@ROWS
@TYPES
@BIAS
def test_top_k_equals_sorting_all_scores(row: Row, dtype: torch.dtype, bias: bool) -> None:
    head, hidden = make(row, dtype, bias), hidden_of(dtype=dtype).detach()
    everything = head.scores(hidden)
    best = [[int(i)] for i in everything.argmax(1)]
    for exclude in (None, best, RAGGED, [[] for _ in range(M)]):
        expected = everything.clone()
        for b, banned in enumerate(exclude or []):
            expected[b, banned] = -torch.inf
        for k in (1, 13):
            scores, ids = head.top_k(hidden, k, exclude=exclude)
            assert torch.allclose(scores, expected.sort(dim=1, descending=True).values[:, :k], rtol=1e-5, atol=1e-6)
            assert torch.allclose(expected.gather(1, ids), scores, rtol=1e-5, atol=1e-6)
            assert all(len(set(line)) == k for line in ids.tolist())
            assert not scores.requires_grad
    _, ids = head.top_k(hidden, D)
    assert torch.equal(ids.sort(dim=1).values, torch.arange(D).expand(M, D))


@ROWS
def test_top_k_with_too_few_classes_left_says_minus_infinity(row: Row) -> None:
    head, hidden = make(row), hidden_of()
    left = [2, 40]
    scores, ids = head.top_k(hidden, 5, exclude=[[c for c in range(D) if c not in left]] * M)
    assert all(sorted(line) == left for line in ids[:, :2].tolist())
    assert torch.isfinite(scores[:, :2]).all()
    assert torch.equal(scores[:, 2:], torch.full((M, 3), -torch.inf, dtype=torch.float64))


@ROWS
@TYPES
@BIAS
@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e4])
def test_hostile_scales_of_the_hidden_layer(row: Row, dtype: torch.dtype, bias: bool, scale: float) -> None:
    head = make(row, dtype, bias)
    hidden = (hidden_of(dtype=dtype).detach() * scale).requires_grad_()
    loss = loss_of(head, hidden, RAGGED)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(gradient).all() for gradient in gradients(head, hidden))
    assert torch.isfinite(loss_of(head.eval(), hidden, RAGGED))
    assert not torch.isnan(head.top_k(hidden, 3)[0]).any()


@ROWS
@TYPES
@pytest.mark.parametrize("m", [0, 3])
def test_batches_without_targets_have_loss_0_and_gradient_0(row: Row, dtype: torch.dtype, m: int) -> None:
    head, hidden = make(row, dtype), hidden_of(m, dtype=dtype)
    _optimizer = wh.optim.SGD(head) if isinstance(head, wh.ExactHead) else None  # what two passes leave is for it
    targets: list[list[int]] = [[] for _ in range(m)]
    for reduction in ("mean", "sum"):
        loss = loss_of(head, hidden, targets, reduction=reduction)
        loss.backward()
        assert loss == 0.0
    assert all((gradient == 0).all() for gradient in gradients(head, hidden))
    assert loss_of(head, hidden, targets, reduction="none").shape == (m,)
    assert head.scores(hidden).shape == (m, D)
    assert head.top_k(hidden, 4)[1].shape == (m, 4)
    assert head.top_k(hidden, 4, exclude=targets)[1].shape == (m, 4)
    assert loss_of(head.eval(), hidden, targets) == 0.0


@ROWS
def test_examples_without_targets_change_nothing(row: Row) -> None:
    if not row.deterministic:
        pytest.skip("another batch draws other classes")
    head, hidden = make(row), hidden_of()
    twin, kept = copy.deepcopy(head), hidden_of().detach()[[0, 2, 3, 5]].requires_grad_()
    loss_of(head, hidden, RAGGED).backward()
    loss_of(twin, kept, [RAGGED[b] for b in (0, 2, 3, 5)]).backward()
    (by_hidden, *own), (by_kept, *others) = gradients(head, hidden), gradients(twin, kept)
    assert torch.allclose(by_hidden[[0, 2, 3, 5]], by_kept)
    assert (by_hidden[[1, 4]] == 0).all()
    assert all(torch.allclose(a, b) for a, b in zip(own, others, strict=True))


@ROWS
@BIAS
def test_gradients_are_sparse_where_the_head_says_so(row: Row, bias: bool) -> None:
    head, hidden = make(row, bias=bias), hidden_of()
    loss_of(head, hidden, RAGGED).backward()
    assert hidden.grad is not None
    assert not hidden.grad.is_sparse
    if row.exact_lr is not None:
        assert sum(parameter.numel() for parameter in head.parameters()) == 0
        return
    given = [parameter.grad for parameter in head.parameters() if parameter.grad is not None]
    assert given
    assert all(gradient.is_sparse == head.sparse for gradient in given)


@pytest.mark.parametrize("row", [row for row in TABLE if row.name != "sampled quadratic"], ids=lambda row: row.name)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_penalty_on_the_gradient_is_differentiated_or_refused(row: Row, reduction: str) -> None:
    """The quadratic sampler's probabilities depend on the hidden layer too, and count as constants on purpose."""
    head, hidden = make(row), hidden_of()
    direction = torch.randn(hidden.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def penalty(at: torch.Tensor) -> torch.Tensor:
        loss = loss_of(head, at, RAGGED, reduction=reduction)
        (gradient,) = torch.autograd.grad((loss**2).sum() if loss.ndim else loss, at, create_graph=True)
        return (gradient**2).sum()

    if row.name in ("exact", "full", "hierarchical two-level"):
        with pytest.raises(RuntimeError, match="differentiated once"):
            penalty(hidden)
        return
    (found,) = torch.autograd.grad(penalty(hidden), hidden)
    ahead, behind = (penalty((hidden + h * direction).detach().requires_grad_()) for h in (1e-6, -1e-6))
    assert float((found * direction).sum()) == pytest.approx(float((ahead - behind).detach()) / 2e-6, rel=1e-4)
