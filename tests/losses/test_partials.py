"""Derivatives that losses give, written out or by default, against those that autograd finds."""

from __future__ import annotations

import pytest
import torch

import widehead as wh
from widehead.targets import SparseTargets

D = 50
LOSSES = {
    "squared": wh.losses.SquaredError(),
    "weighted": wh.losses.WeightedSquaredError(0.3, target_weight=2.0),
    "values as weights": wh.losses.WeightedSquaredError(0.1, values="weights"),
    "spherical": wh.losses.SphericalSoftmax(0.2),
    "taylor": wh.losses.TaylorSoftmax(),
    "z-loss": wh.losses.ZLoss(0.5, 3.0),
    "user's": wh.losses.SphericalLoss(lambda q, s, a, t: q.sqrt() + s.mul_(2.0) * wh.losses.sum_over_targets(a, t)),
    "without s and targets": wh.losses.SphericalLoss(lambda q, s, a, t: q**2),
}
LISTS = [[1, 2], [3], [], [4, 5, 5]]
VALUES = [[0.5, 2.0], [1.0], [], [1.0, 3.0, 0.25]]


@pytest.mark.parametrize("valued", [False, True])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_they_are_the_derivatives(loss: wh.losses.Loss, valued: bool) -> None:
    targets = SparseTargets.from_lists(LISTS, VALUES if valued else None)
    generator = torch.Generator().manual_seed(0)
    q = (torch.rand(4, generator=generator, dtype=torch.float64) * 9).requires_grad_()
    s = torch.randn(4, generator=generator, dtype=torch.float64, requires_grad=True)
    a = torch.randn(6, generator=generator, dtype=torch.float64, requires_grad=True)
    found = loss.partials(q.detach(), s.detach(), a.detach(), targets, D)
    losses = loss(q.clone(), s.clone(), a.clone(), targets, D)
    assert not any(part is not None and part.requires_grad for part in vars(found).values())
    torch.testing.assert_close(found.losses, losses.detach())
    by_s = torch.zeros_like(s) if found.by_s is None else found.by_s
    expected = torch.autograd.grad(losses.sum(), (q, s, a), materialize_grads=True)
    torch.testing.assert_close((found.by_q, by_s, found.by_a), expected)


def test_the_taylor_softmax_holds_its_normaliser_where_rounding_went_below_it() -> None:
    """D + s + q/2 is at least D/2; below that neither the loss nor its derivatives look at q and s."""
    loss, targets = wh.losses.TaylorSoftmax(), SparseTargets.from_lists([[0]])
    q, s, a = (torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (1.0, -2.0 * D, 0.5))
    found = loss.partials(q.detach(), s.detach(), a.detach(), targets, D)
    losses = loss(q, s, a, targets, D)
    torch.testing.assert_close(found.losses, losses.detach())
    expected = torch.autograd.grad(losses.sum(), (q, s, a))
    torch.testing.assert_close((found.by_q, found.by_s, found.by_a), expected)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_what_was_read_is_left_as_it_was(loss: wh.losses.Loss) -> None:
    targets = SparseTargets.from_lists(LISTS)
    given = torch.rand(4) + 1.0, torch.rand(4), torch.rand(6)
    copies = [part.clone() for part in given]
    loss.partials(*given, targets, D)
    assert all(torch.equal(part, copy) for part, copy in zip(given, copies, strict=True))


def test_a_loss_with_parameters_of_its_own_is_refused_and_the_statistics_train_them() -> None:
    scale = torch.nn.Parameter(torch.tensor(2.0))
    head = wh.ExactHead(4, D, wh.losses.SphericalLoss(lambda q, s, a, t: scale * q))
    hidden = torch.randn(3, 4, requires_grad=True)
    with pytest.raises(ValueError, match=r"shape \(\): compute the loss of head\.statistics"):
        head(hidden, [[1], [2], []])
    q, _, _ = head.statistics(hidden, [[1], [2], []])
    (scale * q).sum().backward()
    assert scale.grad is not None
    torch.testing.assert_close(scale.grad, q.sum().detach())
