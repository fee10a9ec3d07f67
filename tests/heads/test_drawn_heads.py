"""What holds for every head that trains on drawn classes, whatever its loss."""

from __future__ import annotations

import pytest
import torch
from support.drawn import FREQUENCIES, LISTS, WIDTH, D, assert_gradcheck, hidden_layer

import widehead as wh
from widehead.sampling import LogUniformSampler, Sampler, UniformSampler, UnigramSampler

HEADS = [wh.NoiseContrastiveHead, wh.NegativeSamplingHead, wh.BlackOutHead]
Drawing = wh.NoiseContrastiveHead | wh.NegativeSamplingHead | wh.BlackOutHead


def make(kind: type[Drawing], **options: object) -> Drawing:
    torch.manual_seed(0)
    given = {"negatives": 8, "dtype": torch.float64, **options}
    return kind(WIDTH, D, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", HEADS)
def test_gradcheck(kind: type[Drawing]) -> None:
    assert_gradcheck(make(kind))


@pytest.mark.parametrize("size", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("kind", HEADS)
def test_hostile_outputs(kind: type[Drawing], size: float) -> None:
    head = make(kind, dtype=torch.float32)
    hidden = (size * hidden_layer().float()).requires_grad_()
    loss = head(hidden, LISTS)
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert bool(torch.isfinite(hidden.grad).all())
    assert bool(torch.isfinite(head.table.grad.to_dense()).all())


@pytest.mark.parametrize("kind", [wh.NoiseContrastiveHead, wh.BlackOutHead])
def test_probabilities_are_those_of_the_full_softmax(kind: type[Drawing]) -> None:
    head, hidden, ids = make(kind).eval(), hidden_layer(3), torch.tensor([1, 0, 11])
    log_p = torch.log_softmax(hidden @ head.table.T, dim=1)
    torch.testing.assert_close(head.log_prob(hidden, ids), log_p[torch.arange(3), ids])
    torch.testing.assert_close(head(hidden, ids), -log_p[torch.arange(3), ids].mean())


@pytest.mark.parametrize(
    ("kind", "otherwise", "alpha"),
    [
        (wh.NoiseContrastiveHead, LogUniformSampler, None),
        (wh.NegativeSamplingHead, UniformSampler, 0.75),
        (wh.BlackOutHead, UniformSampler, 0.4),
    ],
)
def test_what_negatives_are_drawn_from(kind: type[Drawing], otherwise: type[Sampler], alpha: float | None) -> None:
    assert isinstance(make(kind).sampler, otherwise)
    if alpha is not None:
        sampler = make(kind, frequencies=FREQUENCIES).sampler
        assert isinstance(sampler, UnigramSampler)
        assert sampler.alpha == alpha
