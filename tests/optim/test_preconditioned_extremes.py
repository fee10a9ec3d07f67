"""Newton, Shampoo and Muon where there is little to learn from: nothing, rounding, tiny and huge numbers, low ranks."""

from __future__ import annotations

import pytest
import torch
from support.small_head import WIDTH, data, make, multi_hot

import widehead as wh
from widehead.optim.muon import root_by_examples
from widehead.optim.newton import damped_inverse
from widehead.optim.shampoo import inverse_root


@pytest.mark.parametrize("kind", ["Newton", "Shampoo", "Muon"])
def test_popular_classes_do_not_diverge(kind: str) -> None:
    """One class in every example, weighed 100 times what other outputs weigh."""
    head = make(wh.losses.WeightedSquaredError(0.01))
    optimizer = getattr(wh.optim, kind)(head)
    losses = []
    for step in range(100):
        hidden, ids = data(30, seed=step)
        ids[:, 0] = 5
        loss = head(1.0 + hidden, ids)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert max(losses) < 1.5 * losses[0]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


LOSSES = [wh.losses.SquaredError(), wh.losses.WeightedSquaredError(0.1), wh.losses.SphericalSoftmax()]


@pytest.mark.parametrize("kind", ["Newton", "Shampoo", "Muon"])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(
    ("m", "times"), [(0, 1), (3, 1), (20, 1), (3, 15), *(pytest.param(m, 15, marks=pytest.mark.long) for m in (0, 20))]
)
def test_first_batches_that_say_nothing_change_nothing(
    kind: str, loss: wh.losses.Loss, dtype: torch.dtype, m: int, times: int
) -> None:
    """There is no curvature yet to be relative to; what follows is as if they had not been."""
    heads = [make(loss, dtype), make(loss, dtype)]
    before = heads[0].weight()
    optimizers = [getattr(wh.optim, kind)(head) for head in heads]
    for _ in range(times):
        heads[0](torch.zeros(m, WIDTH, dtype=dtype), torch.arange(m)).sum().backward()
        optimizers[0].step()
    assert torch.equal(heads[0].weight(), before)
    for head, optimizer in zip(heads, optimizers, strict=True):
        for seed in range(6):
            hidden, ids = data(20, seed)
            head(hidden.to(dtype), ids).backward()
            optimizer.step()
    moves = [head.weight() - before for head in heads]
    assert torch.allclose(*moves, rtol=1e-4, atol=1e-5 * float(moves[1].abs().max()))
    assert optimizers[0].trust() == optimizers[1].trust()


@pytest.mark.parametrize("kind", ["Newton", "Shampoo", "Muon"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("decay", [0.1, 1.0])
def test_batches_that_say_nothing_change_nothing_later(kind: str, dtype: torch.dtype, decay: float) -> None:
    """So many that an average would have faded to nothing, and an inverse of it grown beyond float32."""
    head = make(dtype=dtype)
    options = {} if kind == "Muon" else {"decay": decay}
    optimizer = getattr(wh.optim, kind)(head, **options)
    for seed in range(3):
        hidden, ids = data(20, seed)
        head(hidden.to(dtype), ids).backward()
        optimizer.step()
    before = head.weight()
    for _ in range(60):
        head(torch.zeros(3, WIDTH, dtype=dtype), torch.arange(3)).backward()
        optimizer.step()
    assert torch.allclose(head.weight(), before, rtol=0.0, atol=1e-6)
    hidden, ids = data(20, 9)
    loss = head(hidden.to(dtype), ids)
    loss.backward()
    optimizer.step()
    assert head(hidden.to(dtype), ids) < loss


@pytest.mark.parametrize("kind", ["Newton", "Shampoo", "Muon"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("size", [1e-45, 1e-38, 1e-30, 1e-22, 1e-16, 1e-10, 1e4])
def test_hidden_layers_of_any_size_make_finite_steps(kind: str, dtype: torch.dtype, size: float) -> None:
    head = make(dtype=dtype)
    optimizer = getattr(wh.optim, kind)(head)
    for scale in (size, size, 1.0):
        hidden, ids = data(20)
        loss = head((scale * hidden).to(dtype), ids)
        loss.backward()
        optimizer.step()
        assert bool(torch.isfinite(head.weight()).all())
    assert float(head((scale * hidden).to(dtype), ids).detach()) < 1.01 * float(loss.detach())


@pytest.mark.parametrize("above", [0.0, 5.6e-45, 1e-9])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_matrix_with_no_more_above_zero_than_below_has_no_root(dtype: torch.dtype, above: float) -> None:
    """GᵀG of a gradient whose parts cancel is its rounding; the root of what is above 0 in it was infinite."""
    matrix = torch.tensor([[above, -2e-43], [-2e-43, -6.6e-5]], dtype=torch.float64).to(dtype)
    assert torch.equal(inverse_root(matrix, 0.1), torch.zeros(2, 2, dtype=dtype))
    assert float(inverse_root(-matrix, 0.1).max()) < 2e3


@pytest.mark.parametrize("kind", ["Newton", "Shampoo", "Muon"])
@pytest.mark.parametrize("m", [1, 8, 31])
def test_a_loss_that_is_constant_can_be_stepped_on(kind: str, m: int) -> None:
    """One class alone has the probability 1, and a gradient whose parts cancel: what is left is rounding."""
    torch.manual_seed(0)
    head = wh.ExactHead(1, 1, wh.losses.TaylorSoftmax(), bias=True)
    optimizer = getattr(wh.optim, kind)(head)
    for scale in [1.0, 1e-39, 1e-3, 1e-39, 0.0, 10.0] * 10:
        head(scale * torch.randn(m, 1), torch.zeros(m, 1, dtype=torch.int64), reduction="sum").backward()
        optimizer.step()
        assert bool(torch.isfinite(head.weight()).all())


@pytest.mark.parametrize("kind", ["Newton", "Shampoo", "Muon"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("m", [1, 3, 20])
@pytest.mark.parametrize("damping", [None, 0.0])
def test_a_gradient_of_rounding_errors_is_no_danger(
    kind: str, dtype: torch.dtype, m: int, damping: float | None
) -> None:
    """The same examples again and again: soon nothing is left to learn, and GGᵀ is as often negative as positive."""
    head = make(dtype=dtype)
    optimizer = getattr(wh.optim, kind)(head, damping=damping)
    hidden, ids = torch.ones(m, WIDTH, dtype=dtype), torch.full((m, 1), 7)
    first = float(head(hidden, ids).detach())
    for _ in range(40):
        loss = head(hidden, ids)
        loss.backward()
        optimizer.step()
    assert abs(float(loss.detach())) < (0.5 if kind == "Newton" else 1.0) * first


def test_inverses_of_singular_matrices_are_finite_without_damping() -> None:
    """Rounding alone bounds them, also where it makes eigenvalues negative that should be 0."""
    ones = torch.ones(2, 2, dtype=torch.float64)
    inverse = damped_inverse(ones, 0.0)
    assert torch.isfinite(inverse).all()
    assert torch.allclose(ones @ inverse @ ones, ones, rtol=2e-2)
    for seed in range(20):
        factor = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        root = inverse_root(factor.T @ factor, 0.0)
        assert torch.isfinite(root).all()
        there = factor @ root @ root @ factor.T  # a projection, seen from inside
        assert torch.allclose(there, torch.eye(3, dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 2e-5)], ids=str)
@pytest.mark.parametrize("repeats", [False, True])
def test_the_root_by_examples_is_the_root(dtype: torch.dtype, close: float, repeats: bool) -> None:
    """W − lr·G(GᵀG + δI)^(−1/2) with G written out, for fewer examples than d, some of them the same or 0."""
    head = make(dtype=dtype)
    weight = head.weight().double()
    hidden = torch.randn(6, WIDTH, generator=torch.Generator().manual_seed(3), dtype=dtype)
    if repeats:
        hidden[1], hidden[4], hidden[5] = hidden[0], 2 * hidden[0], 0.0
    ids = torch.arange(12).view(6, 2)
    head(hidden, ids).backward()
    optimizer = wh.optim.Muon(head, lr=0.01, damping=0.1)
    optimizer.step()
    assert optimizer.trust()[0].scaled_back == 0
    gradient = (2 / 6 * (hidden.double() @ weight.T - multi_hot(ids))).T @ hidden.double()
    square = gradient.T @ gradient
    values, vectors = torch.linalg.eigh(square + 0.1 * square.trace() / WIDTH * torch.eye(WIDTH).double())
    step = 0.01 * gradient @ (vectors * values.rsqrt()) @ vectors.T
    assert (weight - step - head.weight().double()).norm() < close * step.norm()


def deficient(kind: str, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden layer (8, 25) and gradient by the outputs (8, 3), both of a rank far below 8, altogether or nearly."""
    generator = torch.Generator().manual_seed(0)
    hidden, outputs = (torch.randn(8, n, generator=generator, dtype=dtype) for n in (25, 3))
    if kind == "zeros":
        hidden[::2] = 0.0
    elif kind == "one direction":
        hidden = hidden[:, :1] @ hidden[:1]
    elif kind == "nothing":
        hidden = 0.0 * hidden
    else:
        hidden[1::2] = hidden[::2] + 1e-5 * hidden[1::2]
        outputs[1::2] = outputs[1::2] if kind == "nearly equal" else -outputs[::2]
    return hidden, outputs


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("kind", ["zeros", "one direction", "nothing", "nearly equal", "nearly opposite"])
def test_the_root_by_examples_is_symmetric_whatever_the_rank(kind: str, dtype: torch.dtype) -> None:
    """Steps rely on HRHᵀ being symmetric; HR itself is as near as the gradient is known, which may nearly cancel."""
    hidden, outputs = deficient(kind, dtype)
    hr, eps = root_by_examples(hidden, outputs @ outputs.T, 0.01), torch.finfo(dtype).eps
    products, gradient = hr @ hidden.T, outputs.T.double() @ hidden.double()
    assert (products - products.T).norm() <= 10 * eps * hr.norm() * hidden.norm()
    root = inverse_root(gradient.T @ gradient, 0.01)
    assert (hr - hidden.double() @ root).norm() <= 1e7 * eps * hidden.double().norm() * root.norm()
    if kind != "nearly opposite":
        assert (hr - hidden.double() @ root).norm() <= 1e4 * eps * hidden.double().norm() * root.norm()


def test_a_sum_too_small_to_be_inverted_leaves_no_preconditioner_behind() -> None:
    """On a CPU as on a GPU: R is of the sum that there is now, not of one that faded."""
    head = make(dtype=torch.float32)
    optimizer = wh.optim.Newton(head, decay=0.0, refresh_every=1)
    for size in (1.0, 1e-18):
        hidden, ids = data(20)
        head((size * hidden).float(), ids).backward()
        optimizer.step()
        (memory,) = optimizer.state.values()
        assert bool(memory["preconditioner"].any()) == (size == 1.0)
