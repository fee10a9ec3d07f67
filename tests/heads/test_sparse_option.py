"""Heads with sparse gradients, and the same with dense ones for optimisers and tools that take no others."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from support.head_table import RAGGED, WIDTH, D, frequencies, hidden_of, loss_of

import widehead as wh
from widehead.names import HEADS

KINDS = {
    "sampled": lambda **o: wh.SampledSoftmaxHead(WIDTH, D, negatives=15, frequencies=frequencies(D), **o),
    "in-batch": lambda **o: wh.SampledSoftmaxHead(WIDTH, D, sampler="in-batch", frequencies=frequencies(D), **o),
    "quadratic": lambda **o: wh.SampledSoftmaxHead(WIDTH, D, negatives=15, sampler="quadratic", **o),
    "noise-contrastive": lambda **o: wh.NoiseContrastiveHead(WIDTH, D, negatives=15, **o),
    "negative sampling": lambda **o: wh.NegativeSamplingHead(WIDTH, D, **o),
    "blackout": lambda **o: wh.BlackOutHead(WIDTH, D, negatives=15, **o),
    "retrieved": lambda **o: wh.RetrievedSoftmaxHead(WIDTH, D, retrieved=4, tail=4, **o),
    "retrieved for each": lambda **o: wh.RetrievedSoftmaxHead(WIDTH, D, retrieved=4, tail=4, shared=False, **o),
    "two-level": lambda **o: wh.HierarchicalSoftmaxHead(WIDTH, D, **o),
    "huffman": lambda **o: wh.HierarchicalSoftmaxHead(WIDTH, D, tree="huffman", **o),
}


def made(kind: str, **options: Any) -> Any:
    torch.manual_seed(5)
    return KINDS[kind](**options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [False, True])
def test_dense_gradients_are_the_sparse_ones(kind: str, bias: bool) -> None:
    found = []
    for sparse in (True, False):
        head, hidden = made(kind, sparse=sparse, bias=bias, dtype=torch.float64), hidden_of()
        loss = loss_of(head, hidden, RAGGED)
        loss.backward()
        gradients = [p.grad for p in head.parameters()]
        assert head.sparse == sparse
        assert all(gradient.is_sparse == sparse for gradient in gradients)
        found.append([loss, hidden.grad, *(gradient.to_dense() for gradient in gradients)])
    assert all(torch.allclose(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_dense_gradients_go_through_what_takes_no_sparse_ones(kind: str) -> None:
    head = made(kind, sparse=False)
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.01)
    loss_of(head, hidden_of(dtype=torch.float32), RAGGED).backward()
    assert torch.isfinite(torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0))
    optimizer.step()
    assert made(kind).sparse
    row_adam = wh.optim.RowAdam(made(kind).parameters(), lr=0.01)
    row_adam.step()


@pytest.mark.parametrize("kind", sorted(HEADS))
def test_every_head_that_is_sparse_has_the_option_and_names_row_adam(kind: str) -> None:
    make = HEADS[kind]
    assert ("sparse" in inspect.signature(make).parameters) == (
        kind in ("retrieved", "sampled", "noise-contrastive", "negative-sampling", "blackout", "hierarchical")
    )
    assert "RowAdam" in (wh.heads.SampledHead.__doc__ or "")
