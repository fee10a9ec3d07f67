"""Noise-contrastive estimation: the definition given the draws, and that its minimum is the data's distribution."""

from __future__ import annotations

import math

import pytest
import torch
from drawn import FREQUENCIES, LISTS, WIDTH, D, assert_gradcheck, assert_losses_and_gradients, draws, hidden_layer
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


def test_gradcheck() -> None:
    assert_gradcheck(make())


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_the_gradient_vanishes_at_the_distribution_of_the_data_only(offset: float) -> None:
    """Mean gradient over 3,000 batches of 64 at o = log p + log Z: 0 within 4.5 standard errors; not at other o."""
    head, hidden = make(log_normalizer=0.3), torch.zeros(64, WIDTH, dtype=torch.float64)
    hidden[:, 0] = 1.0
    p = torch.softmax(torch.linspace(1.0, -2.0, D, dtype=torch.float64), 0)
    with torch.no_grad():
        head.table.zero_()
        head.table[:, 0] = p.log() + 0.3
        head.table[3, 0] += offset
    torch.manual_seed(2)
    gradients = []
    for _ in range(3000):
        loss = head(hidden, torch.multinomial(p, 64, replacement=True))
        gradients.append(torch.autograd.grad(loss, head.table)[0].to_dense()[:, 0])
    found = torch.stack(gradients)
    ratio = found.mean(0).abs() / (found.std(0) / math.sqrt(3000))
    if offset == 0.0:
        assert bool((ratio < 4.5).all())
    else:
        assert float(ratio[3]) > 10.0


def test_probabilities_are_those_of_the_full_softmax() -> None:
    head, hidden, ids = make().eval(), hidden_layer(3), torch.tensor([1, 0, 11])
    log_p = torch.log_softmax(hidden @ head.table.T, dim=1)
    torch.testing.assert_close(head.log_prob(hidden, ids), log_p[torch.arange(3), ids])
    torch.testing.assert_close(head(hidden, ids), -log_p[torch.arange(3), ids].mean())


@pytest.mark.parametrize("size", [0.0, 1.0, 1e4])
def test_hostile_outputs(size: float) -> None:
    head = make(dtype=torch.float32)
    hidden = (size * hidden_layer().float()).requires_grad_()
    loss = head(hidden, LISTS)
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert bool(torch.isfinite(hidden.grad).all())
    assert bool(torch.isfinite(head.table.grad.to_dense()).all())


def test_wrong_options_are_named() -> None:
    with pytest.raises(ValueError, match=r'"log-uniform", "uniform" or "unigram". Found \'quadratic\''):
        make("quadratic")
    with pytest.raises(ValueError, match="Parameter `log_normalizer` should be finite"):
        make(log_normalizer=float("nan"))
