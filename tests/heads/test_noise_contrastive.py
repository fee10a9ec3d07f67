"""Noise-contrastive estimation: the definition given the draws, and that its minimum is the data's distribution."""

from __future__ import annotations

import math

import pytest
import torch
from support.drawn import FREQUENCIES, LISTS, WIDTH, D, assert_losses_and_gradients, draws, hidden_layer, mean_gradient
from torch.nn.functional import logsigmoid

import widehead as wh

NEGATIVES = 5


def make(sampler: str = "log-uniform", **options: object) -> wh.NoiseContrastiveHead:
    torch.manual_seed(0)
    frequencies = FREQUENCIES if sampler == "unigram" else None
    given = {"negatives": NEGATIVES, "dtype": torch.float64, "frequencies": frequencies, **options}
    return wh.NoiseContrastiveHead(WIDTH, D, sampler=sampler, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("log_normalizer", [None, 0.7])
@pytest.mark.parametrize("sampler", ["log-uniform", "uniform", "unigram"])
def test_loss_and_gradients_are_those_of_the_definition(sampler: str, log_normalizer: float | None) -> None:
    head, hidden = make(sampler, log_normalizer=log_normalizer), hidden_layer().requires_grad_()
    table = head.table.detach().clone().requires_grad_()
    outputs, q = hidden @ table.T, head.sampler.log_prob(torch.arange(D)).exp()
    log_z = math.log(D) if log_normalizer is None else log_normalizer
    noise = draws(head, NEGATIVES)
    odds = outputs - log_z - torch.log(NEGATIVES * q)
    losses = []
    for b, targets in enumerate(LISTS):
        told = sum((-logsigmoid(odds[b, y]) for y in targets), outputs.new_zeros(())) / max(1, len(targets))
        losses.append((told - logsigmoid(-odds[b, noise]).sum()) * (len(targets) > 0))
    expected = torch.stack(losses)
    assert_losses_and_gradients(head, hidden, table, expected)


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("batches", [800, pytest.param(3_000, marks=pytest.mark.long)])
def test_the_gradient_vanishes_at_the_distribution_of_the_data_only(offset: float, batches: int) -> None:
    """Mean gradient over batches of 64 at o = log p + log Z: 0 within 4.5 standard errors; not at other o."""
    p = torch.softmax(torch.linspace(1.0, -2.0, D, dtype=torch.float64), 0)
    outputs = p.log() + 0.3
    outputs[3] += offset
    mean, error = mean_gradient(make(log_normalizer=0.3), outputs, p, batches)
    ratio = mean.abs() / error
    if offset == 0.0:
        assert bool((ratio < 4.5).all())
    else:
        assert float(ratio[3]) > 10.0


def test_wrong_options_are_named() -> None:
    with pytest.raises(ValueError, match=r'"log-uniform", "uniform" or "unigram". Found \'quadratic\''):
        make("quadratic")
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="Parameter `log_normalizer` should be finite"):
            make(log_normalizer=value)
