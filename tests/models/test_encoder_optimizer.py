"""The encoder's optimiser: the right rule for each parameter, rows untouched stay untouched, state comes back."""

from __future__ import annotations

import copy
from typing import Literal

import pytest
import torch

from widehead.models import BagEncoder, EncoderOptimizer, WideNetwork, WordEncoder
from widehead.models.optimizer import clip
from widehead.optim import RowAdagrad
from widehead.targets import SparseTargets

BAGS = SparseTargets.from_lists([[0, 2], [2], [5, 0]])


def step(encoder: torch.nn.Module, optimizer: EncoderOptimizer) -> None:
    optimizer.zero_grad()
    encoder(BAGS).square().sum().backward()
    optimizer.step()


def test_only_named_rows_change_and_dense_parameters_follow_adamw() -> None:
    torch.manual_seed(0)
    encoder = BagEncoder(7, 3, hidden=[4], activation="tanh")
    linear = next(m for m in encoder.layers if isinstance(m, torch.nn.Linear))
    before, twin = encoder.embeddings.weight.detach().clone(), copy.deepcopy(encoder)
    optimizer = EncoderOptimizer(encoder, 0.01, weight_decay=0.1)
    step(encoder, optimizer)
    twin(BAGS).square().sum().backward()
    twin_linear = next(m for m in twin.layers if isinstance(m, torch.nn.Linear))
    torch.optim.AdamW(twin_linear.parameters(), lr=0.01, weight_decay=0.1).step()
    assert torch.equal(linear.weight, twin_linear.weight)
    changed = (encoder.embeddings.weight != before).any(1)
    assert changed.nonzero().flatten().tolist() == [0, 2, 5]


def test_with_adagrad_rows_and_dense_parameters_each_follow_theirs() -> None:
    torch.manual_seed(0)
    encoder = BagEncoder(7, 3, hidden=[4], activation="tanh")
    twin = copy.deepcopy(encoder)
    optimizer = EncoderOptimizer(encoder, 0.01, rule="adagrad")
    dense = [p for name, p in twin.named_parameters() if "embeddings" not in name]
    rules = [torch.optim.Adagrad(dense, lr=0.01), RowAdagrad([twin.embeddings.weight], lr=0.01)]
    for _ in range(2):
        step(encoder, optimizer)
        twin.zero_grad()
        twin(BAGS).square().sum().backward()
        for rule in rules:
            rule.step()
    assert all(torch.equal(a, b) for a, b in zip(encoder.parameters(), twin.parameters(), strict=True))
    with pytest.raises(ValueError, match="`weight_decay` should be 0"):
        EncoderOptimizer(encoder, 0.01, rule="adagrad", weight_decay=0.1)


@pytest.mark.parametrize("rule", ["adam", "adagrad"])
def test_state_comes_back_exactly(rule: Literal["adam", "adagrad"]) -> None:
    encoder = BagEncoder(7, 3, hidden=[4], activation="relu")
    optimizer = EncoderOptimizer(encoder, 0.01, rule=rule)
    for _ in range(3):
        step(encoder, optimizer)
    twin = copy.deepcopy(encoder)
    restored = EncoderOptimizer(twin, 0.5, rule=rule)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert restored.lr == 0.01
    for _ in range(3):
        step(encoder, optimizer)
        step(twin, restored)
    assert all(torch.equal(a, b) for a, b in zip(encoder.parameters(), twin.parameters(), strict=True))


def test_clipping_is_that_of_torch_on_dense_gradients() -> None:
    torch.manual_seed(0)
    sparse = BagEncoder(7, 3, hidden=[4], activation="tanh")
    dense = BagEncoder(7, 3, hidden=[4], activation="tanh", sparse=False)
    dense.load_state_dict(sparse.state_dict())
    for encoder in (sparse, dense):
        encoder(BAGS).square().sum().backward()
    expected = torch.nn.utils.clip_grad_norm_(dense.parameters(), 0.1)
    torch.testing.assert_close(clip(list(sparse.parameters()), 0.1), expected)
    for a, b in zip(sparse.parameters(), dense.parameters(), strict=True):
        torch.testing.assert_close(a.grad.to_dense(), b.grad)


def test_an_encoder_without_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="parameters"):
        EncoderOptimizer(torch.nn.Identity(), 0.1)


class Head(torch.nn.Linear):
    """Dense stand-in of an output layer: softmax over the classes of a linear layer."""

    def forward(self, hidden, targets):  # type: ignore[no-untyped-def]
        return torch.nn.functional.cross_entropy(super().forward(hidden), targets)

    def top_k(self, hidden, k, *, exclude=None):  # type: ignore[no-untyped-def]
        scores = super().forward(hidden)
        if exclude is not None:
            scores[exclude.example_ids, exclude.class_ids] = -torch.inf
        return scores.topk(k)


def test_wide_network_joins_encoder_and_head() -> None:
    network = WideNetwork(WordEncoder(5, 3), Head(3, 11))
    words, targets = torch.tensor([1, 4]), torch.tensor([10, 0])
    assert network.hidden(words).shape == (2, 3)
    loss = network(words, targets)
    loss.backward()
    assert loss.ndim == 0
    assert network.encoder.embeddings.weight.grad is not None
    scores, classes = network.top_k(words, 4)
    assert scores.shape == classes.shape == (2, 4)
    assert not scores.requires_grad
    best = SparseTargets.from_ids(classes[:, :1])
    assert torch.equal(network.top_k(words, 3, exclude=best)[1], classes[:, 1:])
