"""The table that every exact head is tested by: losses × dtypes, each loss with its dense float64 twin."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import widehead as wh
from support import reference
from widehead.arithmetic import OutputGradient
from widehead.losses import Loss, mean_over_targets, sum_over_targets

DEVICE = os.environ.get("WIDEHEAD_TEST_DEVICE", "cpu")
DTYPES = [torch.float64, torch.float32]
EPS = 0.1


@dataclass(frozen=True)
class Row:
    """One loss of the table.

    Attributes:
        make: the loss. dense: its twin (o (m, D), lists of ids, lists of values or None) → (m,).
        valued: whether targets carry values.
        quadratic: whether the loss is quadratic in o, so that steps up to the limit of stability are meaningful.
    """

    name: str
    make: Callable[[], Loss]
    dense: Callable[[Tensor, list[list[int]], list[list[float]] | None], Tensor]
    valued: bool = False
    quadratic: bool = False


def _twin(function: Callable[..., Tensor], *arguments: float) -> Callable[..., Tensor]:
    def dense(o: Tensor, ids: list[list[int]], values: list[list[float]] | None) -> Tensor:
        return function(o, reference.dense_targets(ids, o.shape[1], values), *arguments)

    return dense


def _ials(o: Tensor, ids: list[list[int]], values: list[list[float]] | None) -> Tensor:
    weight = reference.dense_targets(ids, o.shape[1], values)
    return reference.weighted_squared_error(o, torch.ones_like(o), weight, 0.3)


def _ials_targets(o: Tensor, ids: list[list[int]], values: list[list[float]] | None) -> Tensor:
    y = reference.dense_targets(ids, o.shape[1], values)
    observed = reference.dense_targets(ids, o.shape[1]).clamp_max(1.0)
    return reference.weighted_squared_error(o, y, 1.5 * observed, 0.1)


def _shifted(q: Tensor, s: Tensor, a: Tensor, targets: wh.SparseTargets) -> Tensor:
    """A user's loss that uses q, s and a, with curvature that changes and a constant part."""
    return torch.sqrt(1 + q) + 0.01 * s + 0.0005 * s**2 - mean_over_targets(torch.tanh(a), targets)


def _squared(q: Tensor, s: Tensor, a: Tensor, targets: wh.SparseTargets) -> Tensor:
    """The squared error of distinct targets, as a user may write it."""
    return q - 2 * sum_over_targets(a, targets) + targets.counts


def _shifted_dense(o: Tensor, ids: list[list[int]], values: list[list[float]] | None) -> Tensor:
    counts = reference.dense_targets(ids, o.shape[1])
    mean = (counts * torch.tanh(o)).sum(1) / counts.sum(1).clamp_min(1.0)
    s = o.sum(1)
    return torch.sqrt(1 + (o**2).sum(1)) + 0.01 * s + 0.0005 * s**2 - mean


TABLE = [
    Row("squared", wh.losses.SquaredError, _twin(reference.squared_error), quadratic=True),
    Row("squared, values", wh.losses.SquaredError, _twin(reference.squared_error), valued=True, quadratic=True),
    Row(
        "weighted squared, weights",
        lambda: wh.losses.WeightedSquaredError(0.3, values="weights"),
        _ials,
        valued=True,
        quadratic=True,
    ),
    Row(
        "weighted squared, targets",
        lambda: wh.losses.WeightedSquaredError(0.1, target_weight=1.5),
        _ials_targets,
        valued=True,
        quadratic=True,
    ),
    Row("spherical softmax", lambda: wh.losses.SphericalSoftmax(EPS), _twin(reference.spherical_softmax, EPS)),
    Row(
        "spherical softmax, values",
        lambda: wh.losses.SphericalSoftmax(EPS),
        _twin(reference.spherical_softmax, EPS),
        True,
    ),
    Row("taylor softmax", wh.losses.TaylorSoftmax, _twin(reference.taylor_softmax)),
    Row("z-loss", lambda: wh.losses.ZLoss(0.5, 3.0), _twin(reference.z_loss, 0.5, 3.0)),
    Row("user's", lambda: wh.losses.SphericalLoss(_shifted), _shifted_dense),
    Row(
        "user's squared",
        lambda: wh.losses.SphericalLoss(_squared),
        lambda o, ids, _: (
            reference.squared_error(o, reference.dense_targets(ids, o.shape[1]))
            - ((reference.dense_targets(ids, o.shape[1]) ** 2).sum(1) - torch.tensor([float(len(i)) for i in ids]))
        ),
        quadratic=True,
    ),
]


@dataclass(frozen=True)
class Batch:
    """Hidden layer (m, d) in float64 and ragged targets, as lists for the twin and as SparseTargets for the head."""

    hidden: Tensor
    ids: list[list[int]]
    values: list[list[float]] | None

    def targets(self) -> wh.SparseTargets:
        return wh.SparseTargets.from_lists(self.ids, self.values)


def ragged_ids(generator: torch.Generator, m: int, num_classes: int, most: int) -> list[list[int]]:
    """Between 0 and ``most`` classes an example, repeats within an example included."""
    counts = torch.randint(0, most + 1, (m,), generator=generator).tolist()
    return [torch.randint(0, num_classes, (k,), generator=generator).tolist() for k in counts]


def batch(
    row: Row, generator: torch.Generator, m: int, d: int, num_classes: int, most: int = 4, dominant: float = 0.0
) -> Batch:
    """A batch whose hidden layer has one direction ``dominant`` times stronger than the others."""
    direction = torch.cos(torch.arange(d, dtype=torch.float64))
    direction /= direction.norm()
    hidden = 0.3 * torch.randn(m, d, generator=generator, dtype=torch.float64)
    hidden += 0.3 * dominant * torch.randn(m, 1, generator=generator, dtype=torch.float64) * direction
    ids = ragged_ids(generator, m, num_classes, most)
    values = None
    if row.valued:
        values = [(0.5 + torch.rand(len(i), generator=generator)).tolist() for i in ids]
    return Batch(hidden, ids, values)


def make_head(row: Row, d: int, num_classes: int, dtype: torch.dtype, seed: int = 0) -> tuple[wh.ExactHead, Tensor]:
    """A head and the same W as a dense float64 matrix; outputs of ordinary size whatever the loss."""
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(num_classes, d, generator=generator, dtype=torch.float64) / d**0.5
    head = wh.ExactHead(d, num_classes, row.make(), dtype=dtype, device=DEVICE)
    head.load_weight(dense)
    return head, dense


def head_loss(head: wh.ExactHead, batch: Batch, **options: object) -> tuple[Tensor, Tensor]:
    """(loss, hidden) with the hidden layer ready to receive its gradient."""
    hidden = batch.hidden.to(device=DEVICE, dtype=head.dtype, copy=True).requires_grad_()
    return head(hidden, batch.targets(), **options), hidden


def pending_gradient(head: wh.ExactHead, row: Row, m: int) -> OutputGradient:
    """What a step would be made of after a batch that has empty examples and repeated classes; the head forgets it."""
    b = batch(row, torch.Generator().manual_seed(2), m, head.in_features, head.num_classes)
    losses, _ = head_loss(head, b, reduction="none")
    (losses * torch.linspace(0.5, 1.5, m)).sum().div(m).backward()
    found = head.pending_gradient()
    assert found is not None
    head.drop_pending()
    return found


def dense_loss(row: Row, weight: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """(loss (m,), hidden, W) of the twin, both leaves."""
    hidden, weight = batch.hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    return row.dense(hidden @ weight.T, batch.ids, batch.values), hidden, weight


def dense_mean(losses: Tensor, row: Row, batch: Batch) -> Tensor:
    """The mean as the head takes it: over examples that have a loss."""
    counted = sum(1 for i in batch.ids if i) if row.make().needs_targets else len(batch.ids)
    return losses.sum() / max(counted, 1)


def relative(found: Tensor, expected: Tensor) -> float:
    """‖found − expected‖ / ‖expected‖, in float64."""
    difference = (found.detach().cpu().double() - expected.detach().double()).norm()
    return float(difference / expected.detach().double().norm().clamp_min(1e-30))
