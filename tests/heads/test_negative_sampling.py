"""Negative sampling: the definition given the draws, its minimum, and that it gives no probabilities."""

from __future__ import annotations

import math

import pytest
import torch
from support.drawn import FREQUENCIES, LISTS, WIDTH, D, assert_losses_and_gradients, draws, hidden_layer, mean_gradient
from torch import Tensor
from torch.nn.functional import logsigmoid

import widehead as wh

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
    outputs = hidden @ table.T - math.log(NEGATIVES)
    negatives = draws(head, NEGATIVES).tolist()
    assert set(negatives) & {2, 5, 0, 11, 7}  # some are hits
    losses = []
    for b, targets in enumerate(LISTS):
        told = sum((-logsigmoid(outputs[b, y]) for y in targets), outputs.new_zeros(())) / max(1, len(targets))
        kept = [j for j in negatives if j not in targets]
        losses.append((told - logsigmoid(-outputs[b, kept]).sum()) * (len(targets) > 0))
    expected = torch.stack(losses)
    assert_losses_and_gradients(head, hidden, table, expected)


@pytest.mark.parametrize("batches", [800, pytest.param(3_000, marks=pytest.mark.long)])
def test_the_gradient_vanishes_at_the_stated_minimum(batches: int) -> None:
    """Mean gradient over batches of 64 at exp(o) = p/(q (1 − p)): 0 within 4.5 standard errors."""
    head, p = make(), torch.softmax(torch.linspace(1.0, -2.0, D, dtype=torch.float64), 0)
    outputs = torch.log(p / (1.0 - p)) - head.sampler.log_prob(torch.arange(D))
    mean, error = mean_gradient(head, outputs, p, batches)
    assert bool((mean.abs() < 4.5 * error).all())


def test_it_gives_no_probabilities() -> None:
    head = make()
    assert not head.has_probabilities
    with pytest.raises(TypeError, match="NegativeSamplingHead defines no probabilities"):
        head.log_prob(hidden_layer(1), torch.tensor([0]))
