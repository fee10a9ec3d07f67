"""The dense float64 twin of the random walk: W and M as matrices, losses of all D outputs, optimisers as in textbooks.

It shares no code with what it is compared with, but for two things, which are compared apart: the lengths and the HR of
preconditioned steps are the head's own (`Preconditioner` says what they should be), and so is the norm by which a
gradient is clipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from support.properties import Row
from support.walk.batches import DOUBLE, Batch

SURPRISE = 0.01  # the probability at which optimisers ask losses for the curvature of targets


@dataclass
class Passed:
    """What a backward pass gave.

    Attributes:
        batch: it was of.
        loss: one number. outputs: (m, D) O. by_outputs: (m, D) T = ∂L/∂O. factors: (m,) ∂L/∂ℓ of each example.
    """

    batch: Batch
    loss: float
    outputs: Tensor
    by_outputs: Tensor
    factors: Tensor

    def values_squared(self) -> Tensor:
        """(m,) Σ y² over each example's targets."""
        sparse = self.batch.sparse
        squares = sparse.values_or_ones(DOUBLE) ** 2
        return torch.zeros(self.batch.size, dtype=DOUBLE).index_add_(0, sparse.example_ids, squares)

    def twice(self) -> Passed:
        """Of two passes that add up."""
        parts = (torch.cat([x, x]) for x in (self.outputs, self.by_outputs, self.factors))
        return Passed(self.batch.twice(), self.loss, *parts)

    def scaled(self, factor: float) -> Passed:
        return Passed(self.batch, self.loss, self.outputs, self.by_outputs * factor, self.factors * factor)


class Twin:
    """W (D, c) with its momentum M, in float64."""

    def __init__(self, row: Row, weight: Tensor) -> None:
        self.row, self.needs_targets = row, row.make().needs_targets
        self.weight, self.momentum = weight, torch.zeros_like(weight)
        self._spectral: float | None = None

    @property
    def weight(self) -> Tensor:
        """(D, c)."""
        return self._weight

    @weight.setter
    def weight(self, weight: Tensor) -> None:
        self._weight, self._spectral = weight, None

    @property
    def classes(self) -> int:
        """D."""
        return self.weight.shape[0]

    @property
    def width(self) -> int:
        """Columns of W, that of the bias included."""
        return self.weight.shape[1]

    def spectral(self) -> float:
        """‖W‖₂, from WᵀW."""
        if self._spectral is None:
            largest = torch.linalg.eigvalsh(self.weight.T @ self.weight)[-1]
            self._spectral = float(largest.clamp_min(0.0).sqrt())
        return self._spectral

    def passed(self, batch: Batch) -> Passed:
        """Forward and backward."""
        outputs = (batch.hidden @ self.weight.T).requires_grad_()
        each = self.row.dense(outputs, batch.ids, batch.values)
        factors = self.factors(batch)
        loss = torch.where(factors != 0, each * factors, 0.0).sum()
        (by_outputs,) = torch.autograd.grad(loss, outputs)
        return Passed(batch, float(loss.detach()), outputs.detach(), by_outputs, factors)

    def factors(self, batch: Batch) -> Tensor:
        """(m,) what each example's loss is multiplied by."""
        weight = torch.ones(batch.size, dtype=DOUBLE) if batch.weight is None else batch.weight
        if self.needs_targets:
            weight = weight * torch.tensor([float(len(row) > 0) for row in batch.ids], dtype=DOUBLE)
        if batch.reduction == "mean":
            total = float(weight.sum())
            return weight / (total if total != 0.0 else 1.0)
        return weight * batch.shares if batch.reduction == "none" else weight

    def sgd(self, gradient: Tensor, group: dict[str, Any]) -> None:
        """torch.optim.SGD, with decoupled decay besides."""
        lr, decay, momentum = group["lr"], group["weight_decay"], group["momentum"]
        if momentum == 0.0 or group["decoupled"]:
            self.weight = (1.0 - lr * decay) * self.weight
        else:
            gradient = gradient + decay * self.weight
        if momentum == 0.0:
            self.weight = self.weight - lr * gradient
            return
        self.momentum = momentum * self.momentum + gradient
        step = gradient + momentum * self.momentum if group["nesterov"] else self.momentum
        self.weight = self.weight - lr * step

    def preconditioned(self, by_outputs: Tensor, hr: Tensor, length: float, decay: float) -> None:
        """W ← (1 − decay)W − η·TᵀHR."""
        self.weight = (1.0 - decay) * self.weight - length * by_outputs.T @ hr


class Preconditioner:
    """What R of Newton, Shampoo and Muon should be, from the passes that the twin saw.

    Args:
        kind: "newton", "shampoo" or "muon".
        options: of the optimiser, as they stand in its group.

    Attributes:
        added: (d, d) what the last step added to the matrix of which R is made; ``total`` that matrix.
        wrong: how far rounding may have moved the matrix of which the present R was made.
        right: (d, d) R as it was made last; ``now`` what it is in this step.
        ridge: what stands on the diagonal of the matrix; largest: ‖R‖₂ is at most that.
    """

    def __init__(self, kind: str, options: dict[str, Any]) -> None:
        self.kind, self.options = kind, options
        self.added = self.total = self.right = self.now = torch.zeros(0, 0, dtype=DOUBLE)
        self.weight = self.pending = self.wrong = self.ridge = self.largest = 0.0
        self.steps = self.age = 0

    def observe(self, row: Row, passed: list[Passed]) -> None:
        """What a step with these passes adds."""
        hidden = torch.cat([part.batch.hidden for part in passed])
        if self.kind == "newton":
            curvature = torch.cat([mean_curvature(row, part) for part in passed])
            self.added = hidden.T @ (curvature[:, None] * hidden)
            return
        gradient = torch.cat([part.by_outputs for part in passed]).T @ hidden
        self.added = gradient.T @ gradient

    def advance(self, wrong: float, dtype: torch.dtype) -> None:
        """Take what was observed into the sum, with ``wrong`` that rounding may make of it, and renew R if it is due.

        R is 0 as long as the type that is computed in has no inverse of the sum.
        """
        decay, d = self.options.get("decay", 0.0), len(self.added)
        least = d * torch.finfo(dtype).tiny / torch.finfo(dtype).eps if self.kind != "muon" else 0.0
        if float(self.total.trace()) < least or not self.total.numel():
            self.total = self.options.get("ridge", 0.0) * self.added.trace() / d * torch.eye(d, dtype=DOUBLE)
        self.total, self.weight = self.total * decay + self.added, self.weight * decay + 1.0
        self.pending, self.age, self.steps = self.pending * decay + wrong, self.age + 1, self.steps + 1
        if float(self.total.trace()) < least:
            self.now, self.ridge = torch.zeros_like(self.added), 0.0
            return
        share = 10 if decay < 1.0 else 50
        due = min(self.options["refresh_every"], 1 + (self.steps - 1) // share) if self.kind != "muon" else 1
        if not self.right.numel() or self.age >= due:
            self._renew()
        self.now = self.right

    def _renew(self) -> None:
        mean = 1.0 if self.kind == "newton" else self.weight
        power = -1.0 if self.kind == "newton" else -0.5
        values, vectors = torch.linalg.eigh(self.total / mean)
        values = values.clamp_min(0.0)
        self.ridge = float(values.mean()) * self.options["damping"]
        values = (values + self.ridge).clamp_min(1e-300)
        self.right, self.largest = (vectors * values**power) @ vectors.T, float(values[0]) ** power
        self.wrong, self.age = self.pending / mean, 0


def mean_curvature(row: Row, part: Passed) -> Tensor:
    """(m,) mean over all classes of the second derivative by an output, from dense outputs."""
    loss, outputs = row.make(), part.outputs
    targets = loss.prepare(part.batch.sparse)
    examples = targets.example_ids
    statistics = [(outputs**2).sum(1), outputs.sum(1), outputs[examples, targets.class_ids]]
    dense = 2.0 * loss.partials(*statistics, targets, outputs.shape[1]).by_q
    own = loss.target_curvature(*statistics, targets, outputs.shape[1], SURPRISE)
    own = own * part.factors.abs()[examples]
    return (dense * part.factors).abs() + torch.zeros_like(dense).index_add_(0, examples, own) / outputs.shape[1]
