"""The table of heads that every test of their contract runs on, and what those tests share. A new head is a new row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import widehead as wh
from widehead.heads.linear import LinearHead
from widehead.heads.normalized import NormalizedHead

D, WIDTH, M = 60, 8, 6


@dataclass(frozen=True)
class Row:
    """A head: ``make(in_features, num_classes, dtype, bias)``; whether its training loss has no random part."""

    name: str
    make: Callable[[int, int, torch.dtype, bool], Any]
    deterministic: bool = True
    #: whether that is −log p, if the head has probabilities
    minus_log_p: bool = True
    #: what the held-out recall@1 of the learnable problem below should exceed; chance is 1/40
    recall: float = 0.9
    #: a step size for ExactHead, which no optimiser of torch can train; None for heads with parameters
    exact_lr: float | None = None


def frequencies(num_classes: int) -> Tensor:
    """Zipf's law, in an order of ids that is not the order of frequency."""
    ranks = torch.randperm(max(num_classes, 0), generator=torch.Generator().manual_seed(5))
    return 1.0 / (1.0 + ranks.double())


def exact(d: int, n: int, dtype: torch.dtype, bias: bool) -> Any:
    return wh.ExactHead(d, n, wh.losses.SphericalSoftmax(), bias=bias, dtype=dtype)


def full(d: int, n: int, dtype: torch.dtype, bias: bool) -> Any:
    return wh.FullSoftmaxHead(d, n, bias=bias, dtype=dtype)


def two_level(d: int, n: int, dtype: torch.dtype, bias: bool) -> Any:
    return wh.HierarchicalSoftmaxHead(d, n, frequencies=frequencies(n), bias=bias, dtype=dtype)


def huffman(d: int, n: int, dtype: torch.dtype, bias: bool) -> Any:
    return wh.HierarchicalSoftmaxHead(d, n, tree="huffman", frequencies=frequencies(n), bias=bias, dtype=dtype)


def adaptive(d: int, n: int, dtype: torch.dtype, bias: bool) -> Any:
    return wh.AdaptiveSoftmaxHead(d, n, div_value=2.0, frequencies=frequencies(n), bias=bias, dtype=dtype)


def sampled(d: int, n: int, dtype: torch.dtype, bias: bool) -> Any:
    return wh.SampledSoftmaxHead(d, n, negatives=15, frequencies=frequencies(n), bias=bias, dtype=dtype)


def in_batch(d: int, n: int, dtype: torch.dtype, bias: bool) -> Any:
    return wh.SampledSoftmaxHead(d, n, sampler="in-batch", frequencies=frequencies(n), bias=bias, dtype=dtype)


def quadratic(d: int, n: int, dtype: torch.dtype, bias: bool) -> Any:
    return wh.SampledSoftmaxHead(d, n, negatives=15, sampler="quadratic", bias=bias, dtype=dtype)


def noise_contrastive(d: int, n: int, dtype: torch.dtype, bias: bool) -> Any:
    return wh.NoiseContrastiveHead(d, n, negatives=15, frequencies=frequencies(n), bias=bias, dtype=dtype)


def negative_sampling(d: int, n: int, dtype: torch.dtype, bias: bool) -> Any:
    return wh.NegativeSamplingHead(d, n, frequencies=frequencies(n), bias=bias, dtype=dtype)


def black_out(d: int, n: int, dtype: torch.dtype, bias: bool) -> Any:
    return wh.BlackOutHead(d, n, negatives=15, frequencies=frequencies(n), bias=bias, dtype=dtype)


def retrieved(d: int, n: int, dtype: torch.dtype, bias: bool) -> Any:
    return wh.RetrievedSoftmaxHead(d, n, retrieved=4, tail=4, bias=bias, dtype=dtype)


def retrieved_each(d: int, n: int, dtype: torch.dtype, bias: bool) -> Any:
    return wh.RetrievedSoftmaxHead(d, n, retrieved=4, tail=4, shared=False, bias=bias, dtype=dtype)


TABLE = [
    Row("exact", exact, exact_lr=0.05),
    Row("full", full),
    Row("hierarchical two-level", two_level),
    # Classes that have nothing in common share decisions, rare ones have a narrow projection or few negatives.
    Row("hierarchical huffman", huffman, recall=0.7),
    Row("adaptive", adaptive, recall=0.7),
    Row("sampled", sampled, deterministic=False),
    Row("sampled in-batch", in_batch, deterministic=False),
    Row("sampled quadratic", quadratic, deterministic=False),
    Row("noise-contrastive", noise_contrastive, deterministic=False),
    Row("negative sampling", negative_sampling, deterministic=False, recall=0.5),
    Row("blackout", black_out, deterministic=False),
    Row("retrieved", retrieved, deterministic=False),
    Row("retrieved for each", retrieved_each, deterministic=False),
]
ROWS = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
LINEAR = pytest.mark.parametrize(
    "row", [row for row in TABLE if not row.name.startswith(("hierarchical", "adaptive"))], ids=lambda row: row.name
)
TYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
BIAS = pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
RAGGED = [[3, 17, 59], [], [4], [0, 1], [], [33]]
VALUES = [[1.0, 2.0, 0.5], [], [3.0], [0.0, 1.0], [], [2.0]]


def make(
    row: Row, dtype: torch.dtype = torch.float64, bias: bool = False, *, d: int = WIDTH, n: int = D, seed: int = 1
) -> Any:
    """A head with weights of ordinary size, a bias other than 0 where it has one."""
    torch.manual_seed(seed)
    head = row.make(d, n, dtype, bias)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return head


def hidden_of(m: int = M, d: int = WIDTH, dtype: torch.dtype = torch.float64, seed: int = 2) -> Tensor:
    values = torch.randn(m, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.to(dtype).requires_grad_()


def loss_of(head: Any, hidden: Tensor, targets: Any, **options: Any) -> Tensor:
    """The loss with the same random draws at every call."""
    torch.manual_seed(11)
    loss: Tensor = head(hidden, targets, **options)
    return loss


def gradients(head: Any, hidden: Tensor) -> list[Tensor]:
    """Of the hidden layer and of all parameters that have one, dense; the step's norm for the exact head."""
    assert hidden.grad is not None
    own = [p.grad.to_dense() for p in head.parameters() if p.grad is not None]
    return [hidden.grad, *own, *([head.grad_norm()] if isinstance(head, wh.ExactHead) else [])]


def valued(values: list[list[float]] = VALUES) -> wh.SparseTargets:
    return wh.SparseTargets.from_lists(RAGGED, values)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks of classes, or of examples, that do not come out even."""
    monkeypatch.setattr(LinearHead, "rows_at_once", 16)
    monkeypatch.setattr(NormalizedHead, "log_probs_at_once", 4 * D)
