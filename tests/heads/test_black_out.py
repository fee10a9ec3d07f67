"""BlackOut: the definition given the draws, stability where one class has it all, and the stated bias."""

from __future__ import annotations

import math

import pytest
import torch
from support.drawn import FREQUENCIES, LISTS, WIDTH, D, assert_losses_and_gradients, draws, hidden_layer, mean_gradient
from torch import Tensor

import widehead as wh
from widehead.heads.black_out import _discriminative

NEGATIVES = 8


def make(frequencies: Tensor | None = FREQUENCIES, **options: object) -> wh.BlackOutHead:
    torch.manual_seed(0)
    given = {"negatives": NEGATIVES, "dtype": torch.float64, "frequencies": frequencies, **options}
    return wh.BlackOutHead(WIDTH, D, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("frequencies", [None, FREQUENCIES])
def test_loss_and_gradients_are_those_of_the_definition(frequencies: Tensor | None) -> None:
    head, hidden = make(frequencies), hidden_layer().requires_grad_()
    table = head.table.detach().clone().requires_grad_()
    weighted = (hidden @ table.T).exp() / head.sampler.log_prob(torch.arange(D)).exp()
    negatives = draws(head, NEGATIVES).tolist()
    assert set(negatives) & {2, 5, 0, 11, 7}  # some are hits
    losses = []
    for b, targets in enumerate(LISTS):
        own = [weighted.new_zeros(())]
        for y in targets:
            kept = weighted[b, [j for j in negatives if j not in targets]]
            total = weighted[b, y] + kept.sum()
            own.append(-torch.log(weighted[b, y] / total) - torch.log(1.0 - kept / total).sum())
        losses.append(sum(own, weighted.new_zeros(())) / max(1, len(targets)))
    expected = torch.stack(losses)
    assert_losses_and_gradients(head, hidden, table, expected)


def test_a_negative_that_has_it_all_costs_what_it_should() -> None:
    """−log p̃_y − log(1 − p̃_k) where p̃_k rounds to 1: both are about 1000 − log of what else there is."""
    positive = torch.tensor([0.0], requires_grad=True)
    negative = torch.tensor([[1000.0, 0.0, -1e4]], requires_grad=True)
    loss = _discriminative(positive, negative, torch.tensor([0]))
    assert loss.item() == pytest.approx(1000.0 + (1000.0 - math.log(2.0)))
    by_positive, by_negative = torch.autograd.grad(loss.sum(), [positive, negative])
    torch.testing.assert_close(by_positive, torch.tensor([-1.5]))
    torch.testing.assert_close(by_negative, torch.tensor([[2.0, -0.5, 0.0]]))
    tied = _discriminative(torch.tensor([-1e4]), torch.tensor([[3.0, 3.0]]), torch.tensor([0]))
    assert float(tied) == pytest.approx(1e4 + 3.0 + 3.0 * math.log(2.0))


@pytest.mark.parametrize("batches", [250, pytest.param(800, marks=pytest.mark.long)])
def test_the_stated_bias(batches: int) -> None:
    """At π with p_j = π_j Σ_{y ≠ j} p_y/(1 − π_y) the gradient vanishes, to 4.5 standard errors and 4/n; not at p."""
    pi = torch.softmax(torch.linspace(1.5, -2.0, D, dtype=torch.float64), 0)
    # p is linear in the unknowns: p = A p with A_jy = π_j/(1 − π_y) off the diagonal; its eigenvalue is 1.
    matrix = (pi[:, None] / (1.0 - pi)[None, :]).fill_diagonal_(0.0)
    p = torch.full((D,), 1.0 / D, dtype=torch.float64)
    for _ in range(2000):
        p = matrix @ p
    torch.testing.assert_close(p.sum(), torch.ones((), dtype=torch.float64))
    assert float(pi[0] - p[0]) > 0.03  # the likely class comes out too likely
    mean, error = mean_gradient(make(negatives=500), pi.log(), p, batches)
    assert bool((mean.abs() < 4.5 * error + 4.0 / 500).all())
    mean, error = mean_gradient(make(negatives=500), p.log(), p, batches)
    assert float(mean[0]) < -0.01 - 4.5 * float(error[0])
