"""What the tests of heads that train on drawn classes share: small targets, hidden layers, comparisons."""

from __future__ import annotations

import math

import torch
from torch import Tensor

import widehead as wh

D, WIDTH = 12, 4
FREQUENCIES = 1.0 / torch.arange(1.0, D + 1.0)
LISTS = [[2], [5, 0], [], [11, 11, 7]]  # six targets
SEED = 4  # of draws, some of which are hits


def hidden_layer(m: int = 4) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(m, WIDTH, dtype=torch.float64)


def draws(head: wh.SampledSoftmaxHead | wh.NoiseContrastiveHead, n: int) -> Tensor:
    """(n,) what the head's next loss will draw, if `SEED` is set before it."""
    torch.manual_seed(SEED)
    return head.sampler.sample(n)  # type: ignore[call-arg]


def assert_losses_and_gradients(head: wh.heads.LinearHead, hidden: Tensor, table: Tensor, expected: Tensor) -> None:
    """The head's losses of `LISTS` with these draws are ``expected`` (m,), a function of ``hidden`` and ``table``."""
    torch.manual_seed(SEED)
    found = head(hidden, LISTS, reduction="none")
    torch.testing.assert_close(found, expected)
    by_table, by_hidden = torch.autograd.grad(expected.sum(), [table, hidden])
    sparse, found_by_hidden = torch.autograd.grad(found.sum(), [head.table, hidden])
    assert sparse.is_sparse
    assert sparse._nnz() == 6 + head.negatives
    torch.testing.assert_close(sparse.to_dense(), by_table)
    torch.testing.assert_close(found_by_hidden, by_hidden)


def assert_gradcheck(head: wh.heads.LinearHead) -> None:
    """Numerical derivatives of the loss of `LISTS` by hidden layer and table, with the draws held fixed."""
    head.sparse = False

    def loss(hidden: Tensor, _: Tensor) -> Tensor:
        torch.manual_seed(SEED)
        return head(hidden, LISTS)

    assert torch.autograd.gradcheck(loss, (hidden_layer().requires_grad_(), head.table))


def mean_gradient(head: wh.heads.LinearHead, outputs: Tensor, p: Tensor, batches: int) -> tuple[Tensor, Tensor]:
    """Mean gradient by the outputs (D,), set to ``outputs``, where targets are drawn from p; and its standard errors.

    It is taken over so many batches of 64 examples.
    """
    hidden = torch.zeros(64, WIDTH, dtype=torch.float64)
    hidden[:, 0] = 1.0
    with torch.no_grad():
        head.table.zero_()
        head.table[:, 0] = outputs
    torch.manual_seed(2)
    gradients = []
    for _ in range(batches):
        loss = head(hidden, torch.multinomial(p, 64, replacement=True))
        gradients.append(torch.autograd.grad(loss, head.table)[0].to_dense()[:, 0])
    found = torch.stack(gradients)
    return found.mean(0), found.std(0) / math.sqrt(batches)
