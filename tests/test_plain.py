"""The published method, read off its equations: what the dense twin does, what the fast path does, and where it ends.

Every loss of the table goes through it: squared errors (weighted and with values), the spherical and the Taylor
softmax, Z and users' own, each with the derivatives that autograd finds of the loss itself.
"""

from __future__ import annotations

import pytest
import torch
from support.properties import TABLE, Batch, Row, batch, dense_loss, dense_mean, make_head, relative
from torch import Tensor

import widehead as wh
from widehead.plain import PlainHead

D, WIDTH, LR = 60, 8, 0.05
ROWS = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
Partials = tuple[Tensor, Tensor, Tensor]


def gen(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def partials(head: PlainHead, row: Row, b: Batch) -> tuple[Tensor, Tensor, Partials]:
    """Loss, class ids (m, K) with spare places, and the loss's derivatives by q (m,), s (m,) and a (m, K)."""
    loss = row.make()
    targets = loss.prepare(b.targets())
    places = torch.arange(int(targets.counts.max())) < targets.counts[:, None]
    ids = torch.zeros(places.shape, dtype=torch.int64).masked_scatter(places, targets.class_ids)
    q, s, a = (part.requires_grad_() for part in head.statistics(b.hidden, ids))
    mean = dense_mean(loss(q, s, a[places], targets, D), row, b)
    return mean.detach(), ids, torch.autograd.grad(mean, (q, s, a), materialize_grads=True)


@ROWS
@pytest.mark.parametrize("m", [1, 5, 19], ids=lambda m: f"m={m}")
def test_it_is_dense_sgd(row: Row, m: int) -> None:
    """Over 40 steps to 1e-10: loss, gradient of the hidden layer, W, and all that is kept of it."""
    _, weight = make_head(row, WIDTH, D, torch.float64)
    head = PlainHead(weight)
    generator = gen(2)
    for _ in range(40):
        b = batch(row, generator, m, WIDTH, D)
        if not any(b.ids):
            continue
        loss, ids, by = partials(head, row, b)
        losses, hidden, leaf = dense_loss(row, weight, b)
        expected = dense_mean(losses, row, b)
        expected.backward()
        assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-10, abs=1e-12)
        assert relative(head.gradient(b.hidden, ids, *by), hidden.grad) < 1e-10
        head.step(b.hidden, ids, *by, lr=LR)
        weight = weight - LR * leaf.grad
    assert relative(head.weight(), weight) < 1e-10
    assert relative(head.gram, weight.T @ weight) < 1e-10
    assert relative(head.column_sum, weight.sum(0)) < 1e-10
    assert relative(head.u @ head.u_inverse, torch.eye(WIDTH)) < 1e-10


@ROWS
def test_the_fast_path_makes_the_same_steps(row: Row) -> None:
    head, weight = make_head(row, WIDTH, D, torch.float64)
    plain, optimizer = PlainHead(weight), wh.optim.SGD(head, lr=LR)
    generator = gen(3)
    for _ in range(60):
        b = batch(row, generator, 7, WIDTH, D)
        loss, ids, by = partials(plain, row, b)
        plain.step(b.hidden, ids, *by, lr=LR)
        found = head(b.hidden, b.targets())
        assert float(found.detach()) == pytest.approx(float(loss), rel=1e-10)
        optimizer.zero_grad()
        found.backward()
        optimizer.step()
    assert relative(plain.weight(), head.weight()) < 1e-10


def test_a_class_named_twice_counts_twice_and_a_spare_place_does_not_count() -> None:
    weight = torch.randn(D, WIDTH, generator=gen(4), dtype=torch.float64)
    hidden = torch.randn(2, WIDTH, generator=gen(5), dtype=torch.float64)
    ids, by_a = torch.tensor([[3, 3, 7], [7, 0, 0]]), torch.tensor([[1.0, 2.0, 4.0], [8.0, 0.0, 0.0]]).double()
    head, zeros = PlainHead(weight), torch.zeros(2, dtype=torch.float64)
    head.step(hidden, ids, zeros, zeros, by_a, lr=LR)
    expected = weight.clone()
    expected[3] -= LR * 3.0 * hidden[0]
    expected[7] -= LR * (4.0 * hidden[0] + 8.0 * hidden[1])
    assert relative(head.weight(), expected) < 1e-14
    assert torch.equal(head.v[0], weight[0])


def test_a_step_that_leaves_no_inverse_is_an_error() -> None:
    """The squared error of one example at 2η‖h‖² = 1 contracts one direction of W to nothing."""
    head = PlainHead(torch.randn(D, 2, generator=gen(6), dtype=torch.float64))
    hidden, one = torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    with pytest.raises(torch.linalg.LinAlgError):
        head.step(hidden, torch.tensor([[3]]), one, 0.0 * one, -2.0 * one[:, None], lr=0.5)


def dominant(generator: torch.Generator, m: int) -> tuple[Tensor, Tensor]:
    """(m, 16) examples with one direction four times as strong as the rest together, and λmax of E[hᵀh]."""
    scale = torch.arange(1.0, 17.0, dtype=torch.float64) ** -0.5
    mean = 2.0 * scale.norm() * torch.full((16,), 0.25, dtype=torch.float64)
    hidden = torch.randn(m, 16, generator=generator, dtype=torch.float64) * scale + mean
    return hidden, torch.linalg.eigvalsh(torch.diag(scale**2) + torch.outer(mean, mean))[-1]


def test_why_there_is_more_than_this() -> None:
    """A single U loses all digits within 200 steps on an ordinary hidden layer; the exact head loses none.

    At a tenth of the largest stable step (squared error), ‖W − dense‖/‖dense‖ in float64:

        step        20       50       100      150      200
        cond(U)     1e2      1e5      6e9      5e14     2e16
        plain       3e-16    2e-14    2e-9     2e-4     1e1
        ExactHead   3e-16    8e-16    1e-15    2e-15    2e-15
    """
    m, generator = 8, gen(0)
    weight = torch.randn(200, 16, generator=generator, dtype=torch.float64)
    lr = 0.1 / float(dominant(generator, m)[1])
    plain, head = PlainHead(weight), wh.ExactHead(16, 200, wh.losses.SquaredError(), dtype=torch.float64)
    head.load_weight(weight)
    optimizer, ones = wh.optim.SGD(head, lr=lr), torch.full((m,), 1.0 / m, dtype=torch.float64)
    errors = []
    for _ in range(200):
        hidden, ids = dominant(generator, m)[0], torch.randint(0, 200, (m, 1), generator=generator)
        plain.step(hidden, ids, ones, 0.0 * ones, -2.0 * ones[:, None], lr=lr)
        head(hidden, ids).backward()
        optimizer.step()
        t = (2.0 / m * hidden @ weight.T).scatter_add_(1, ids, -2.0 * ones[:, None])
        weight = weight - lr * t.T @ hidden
        errors.append(relative(plain.weight(), weight))
    assert errors[19] < 1e-14
    assert errors[99] > 1e-11
    assert errors[199] > 1e-2
    assert relative(head.weight(), weight) < 1e-14
