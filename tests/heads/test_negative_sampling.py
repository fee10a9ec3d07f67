"""Negative sampling: the definition given the draws, its minimum, and that it gives no probabilities."""

from __future__ import annotations

import math

import pytest
import torch
from drawn import FREQUENCIES, LISTS, WIDTH, D, assert_gradcheck, assert_losses_and_gradients, draws, hidden_layer
from torch import Tensor
from torch.nn.functional import logsigmoid

import widehead as wh
from widehead.sampling import UniformSampler, UnigramSampler

NEGATIVES = 8


def make(frequencies: Tensor | None = FREQUENCIES, **options: object) -> wh.NegativeSamplingHead:
    torch.manual_seed(0)
    given = {"negatives": NEGATIVES, "dtype": torch.float64, "frequencies": frequencies, **options}
    return wh.NegativeSamplingHead(WIDTH, D, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("frequencies", [None, FREQUENCIES])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_loss_and_gradients_are_those_of_the_definition(mode: str, frequencies: Tensor | None) -> None:
    head, hidden = make(frequencies).train(mode == "train"), hidden_layer().requires_grad_()
    table = head.table.detach().clone().requires_grad_()
    outputs = hidden @ table.T
    negatives = draws(head, NEGATIVES).tolist()
    assert set(negatives) & {2, 5, 0, 11, 7}  # some are hits
    losses = []
    for b, targets in enumerate(LISTS):
        told = sum((-logsigmoid(outputs[b, y]) for y in targets), outputs.new_zeros(())) / max(1, len(targets))
        kept = [j for j in negatives if j not in targets]
        losses.append((told - logsigmoid(-outputs[b, kept]).sum()) * (len(targets) > 0))
    expected = torch.stack(losses)
    assert_losses_and_gradients(head, hidden, table, expected)


def test_gradcheck() -> None:
    assert_gradcheck(make())


def test_the_gradient_vanishes_at_the_stated_minimum() -> None:
    """Mean gradient over 3,000 batches of 64 at exp(o) = p/(n q (1 − p)): 0 within 4.5 standard errors."""
    head, hidden = make(), torch.zeros(64, WIDTH, dtype=torch.float64)
    hidden[:, 0] = 1.0
    p = torch.softmax(torch.linspace(1.0, -2.0, D, dtype=torch.float64), 0)
    with torch.no_grad():
        head.table.zero_()
        head.table[:, 0] = torch.log(p / (1.0 - p)) - math.log(NEGATIVES) - head.sampler.log_prob(torch.arange(D))
    torch.manual_seed(2)
    gradients = []
    for _ in range(3000):
        loss = head(hidden, torch.multinomial(p, 64, replacement=True))
        gradients.append(torch.autograd.grad(loss, head.table)[0].to_dense()[:, 0])
    found = torch.stack(gradients)
    assert bool((found.mean(0).abs() < 4.5 * found.std(0) / math.sqrt(3000)).all())


def test_it_gives_no_probabilities() -> None:
    head = make()
    assert not head.has_probabilities
    with pytest.raises(TypeError, match="NegativeSamplingHead defines no probabilities"):
        head.log_prob(hidden_layer(1), torch.tensor([0]))


def test_negatives_are_by_frequency_where_given() -> None:
    assert isinstance(make(None).sampler, UniformSampler)
    sampler = make().sampler
    assert isinstance(sampler, UnigramSampler)
    assert sampler.alpha == 0.75


@pytest.mark.parametrize("size", [0.0, 1.0, 1e4])
def test_hostile_outputs(size: float) -> None:
    head = make(dtype=torch.float32)
    hidden = (size * hidden_layer().float()).requires_grad_()
    loss = head(hidden, LISTS)
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert bool(torch.isfinite(hidden.grad).all())
    assert bool(torch.isfinite(head.table.grad.to_dense()).all())
