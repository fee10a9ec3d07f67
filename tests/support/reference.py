"""Dense float64 twins of everything the library does cleverly. Slow, obvious; imports torch only.

Letters: m examples, D classes, d width; H (m, d), W (D, d), O = HWᵀ (m, D). Targets are lists of lists of class ids
(and of values). Losses return one number an example.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor


def dense_targets(ids: list[list[int]], num_classes: int, values: list[list[float]] | None = None) -> Tensor:
    """(m, D) with the value of each target at its class; values of a repeated class add up."""
    examples = [b for b, row in enumerate(ids) for _ in row]
    classes = [c for row in ids for c in row]
    given = [1.0] * len(classes) if values is None else [y for row in values for y in row]
    out = torch.zeros(len(ids), num_classes, dtype=torch.float64)
    at = torch.tensor(examples, dtype=torch.int64), torch.tensor(classes, dtype=torch.int64)
    return out.index_put_(at, torch.tensor(given, dtype=torch.float64), accumulate=True)


def squared_error(o: Tensor, y: Tensor) -> Tensor:
    return ((o - y) ** 2).sum(1)


def weighted_squared_error(o: Tensor, y: Tensor, weight: Tensor, unobserved_weight: float) -> Tensor:
    """weight (m, D) at observed classes, ``unobserved_weight`` elsewhere (where weight is 0)."""
    observed = weight > 0
    w = torch.where(observed, weight, torch.full_like(weight, unobserved_weight))
    return (w * (torch.where(observed, y, 0.0) - o) ** 2).sum(1)


def _mean_over_targets(log_p: Tensor, counts: Tensor) -> Tensor:
    """−Σ_c counts log p / Σ counts; 0 for an example without targets."""
    total = counts.sum(1)
    return torch.where(total > 0, -(counts * log_p).sum(1) / total.clamp_min(1e-300), 0.0)


def spherical_log_probabilities(o: Tensor, eps: float) -> Tensor:
    p = o**2 + eps
    return torch.log(p / p.sum(1, keepdim=True))


def taylor_log_probabilities(o: Tensor) -> Tensor:
    p = 1 + o + o**2 / 2
    return torch.log(p / p.sum(1, keepdim=True))


def spherical_softmax(o: Tensor, counts: Tensor, eps: float) -> Tensor:
    return _mean_over_targets(spherical_log_probabilities(o, eps), counts)


def taylor_softmax(o: Tensor, counts: Tensor) -> Tensor:
    return _mean_over_targets(taylor_log_probabilities(o), counts)


def z_loss(o: Tensor, counts: Tensor, a: float, b: float) -> Tensor:
    mean = o.mean(1, keepdim=True)
    std = ((o - mean) ** 2).mean(1, keepdim=True).sqrt()
    z = (o - mean) / std
    each = torch.nn.functional.softplus(a * (b - z)) / a
    total = counts.sum(1)
    return torch.where(total > 0, (counts * each).sum(1) / total.clamp_min(1e-300), 0.0)


def sgd(weight: Tensor, gradient: Tensor, lr: float, weight_decay: float = 0.0, right: Tensor | None = None) -> Tensor:
    """W ← (1 − lr·decay)W − lr·G·R."""
    step = gradient if right is None else gradient @ right
    return (1.0 - lr * weight_decay) * weight - lr * step


def perplexity(log_p: Tensor) -> float:
    return math.exp(-log_p.mean().item())


class DenseSGD:
    """torch.optim.SGD itself, on a dense matrix; decoupled decay and clipping added by hand."""

    def __init__(
        self,
        weight: Tensor,
        lr: float,
        *,
        decoupled: bool = False,
        weight_decay: float = 0.0,
        max_grad_norm: float = math.inf,
        **options: float,
    ) -> None:
        self.parameter, self.max_grad_norm = torch.nn.Parameter(weight.clone()), max_grad_norm
        self.shrink = 1.0 - lr * weight_decay if decoupled else 1.0
        self.optimizer = torch.optim.SGD(
            [self.parameter], lr=lr, weight_decay=0.0 if decoupled else weight_decay, **options
        )

    @property
    def weight(self) -> Tensor:
        return self.parameter.data

    def step(self, hidden: Tensor, t: Tensor, curvature: Tensor, target_curvature: Tensor) -> None:
        """One step with ∂L/∂O = t (m, D)."""
        self.parameter.data *= self.shrink
        gradient = t.T @ hidden
        self.parameter.grad = gradient * min(1.0, self.max_grad_norm / (float(gradient.norm()) + 1e-6))
        self.optimizer.step()


class DensePreconditioned(ABC):
    """W ← (1 − lr·decay)W − η·G·R with G = TᵀH and a d × d matrix R, η bounded by the curvature of the batch.

    ``curvature`` (m,) is |λ| of each example, ``target_curvature`` (m, D) what its targets add.
    """

    def __init__(self, weight: Tensor, lr: float, damping: float, weight_decay: float = 0.0, **options: float) -> None:
        self.weight, self.lr, self.damping, self.weight_decay = weight.clone(), lr, damping, weight_decay
        self.options = options
        self.steps = self.age = self.scaled_back = 0
        self.ratio = 1.0
        self.right = torch.empty(0)

    def step(self, hidden: Tensor, t: Tensor, curvature: Tensor, target_curvature: Tensor) -> None:
        if not hidden.any():  # nothing is learnt of such a batch
            self.weight = (1 - self.lr * self.weight_decay) * self.weight
            return
        gradient = t.T @ hidden
        self.observe(hidden, gradient, curvature, target_curvature)
        self.age += 1
        if self.steps == 0 or self.age >= min(self.options.get("refresh_every", 1), 1 + self.steps // 10):
            self.right, self.age = self.renewed(), 0
        kernel = hidden @ self.right @ hidden.T
        shared = _growth(kernel, curvature)
        classes = target_curvature.sum(0).nonzero().squeeze(1)
        bound = max([0.0] + [float((kernel.diagonal() * target_curvature[:, c]).sum()) for c in classes])
        if self.age == 0 and bound > 0:
            self.ratio = max(float(_growth(kernel, target_curvature[:, c])) for c in classes) / bound
        length = self.length(bound * self.ratio)
        limit = 1.0 / max(float(shared) + bound * self.ratio, 1e-300)
        self.scaled_back += length > 1.01 * limit
        self.weight = (1 - self.lr * self.weight_decay) * self.weight - min(length, limit) * gradient @ self.right
        self.steps += 1

    @abstractmethod
    def observe(self, hidden: Tensor, gradient: Tensor, curvature: Tensor, target_curvature: Tensor) -> None:
        """Remember what the step shows."""

    @abstractmethod
    def renewed(self) -> Tensor:
        """R (d, d), made anew."""

    def length(self, targets: float) -> float:
        return self.lr

    def ridge(self, matrix: Tensor) -> Tensor:
        return matrix + self.damping * matrix.trace() / len(matrix) * torch.eye(len(matrix), dtype=matrix.dtype)


def _growth(kernel: Tensor, weights: Tensor) -> Tensor:
    """‖Ax‖ / ‖x‖ after two power iterations with A = √w K √w, from √w."""
    root = weights.sqrt()
    matrix = root[:, None] * kernel * root
    x = matrix @ root
    return (matrix @ x).norm() / x.norm().clamp_min(1e-300)


class DenseNewton(DensePreconditioned):
    """R = (A + δI)⁻¹, A ← decay·A + Hᵀ·diag(mean curvature over the classes)·H."""

    total: Tensor | float = 0.0
    popular = 0.0

    def observe(self, hidden: Tensor, gradient: Tensor, curvature: Tensor, target_curvature: Tensor) -> None:
        mean = curvature + target_curvature.sum(1) / target_curvature.shape[1]
        self.total = self.options["decay"] * self.total + hidden.T @ torch.diag(mean) @ hidden

    def renewed(self) -> Tensor:
        return torch.linalg.inv(self.ridge(self.total))

    def length(self, targets: float) -> float:
        self.popular = max(targets, self.options["decay"] * self.popular)
        return self.lr / (1 + self.popular)


class DenseShampoo(DensePreconditioned):
    """R = (C + δI)^(−1/2), C the bias-corrected exponential average of GᵀG."""

    average: Tensor | float = 0.0

    def observe(self, hidden: Tensor, gradient: Tensor, curvature: Tensor, target_curvature: Tensor) -> None:
        decay = self.options["decay"]
        self.average = decay * self.average + (1 - decay) * gradient.T @ gradient

    def renewed(self) -> Tensor:
        matrix = self.ridge(self.average / (1 - self.options["decay"] ** (self.steps + 1)))
        values, vectors = torch.linalg.eigh(matrix)
        return vectors @ torch.diag((values + 1e-300).rsqrt()) @ vectors.T


class DenseMuon(DenseShampoo):
    """R = (GᵀG + δI)^(−1/2)."""

    def observe(self, hidden: Tensor, gradient: Tensor, curvature: Tensor, target_curvature: Tensor) -> None:
        self.average = gradient.T @ gradient

    def renewed(self) -> Tensor:
        self.options["decay"] = 0.0
        return super().renewed()
