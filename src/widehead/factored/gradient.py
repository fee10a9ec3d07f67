"""The gradient of the loss by the outputs, T = ΛO + σ1ᵀ + S (m × D), by its factors; T itself is never formed.

Letters (algorithm.md, section 1): m examples, D classes, d width, H (m, d) hidden, O = HWᵀ, Q = WᵀW, w̄ = Wᵀ1,
Λ = diag(λ) with λ = 2 ∂ℓ/∂q (m,), σ = ∂ℓ/∂s (m,), S sparse with entries g = ∂ℓ/∂a (nnz,), R (d, d) preconditioner.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from widehead.factored.sparse import TargetPlan
from widehead.factored.weights import FactoredWeights
from widehead.targets import SparseTargets

__all__ = ["Forward", "OutputGradient", "forward"]


@dataclass(frozen=True)
class Forward:
    """What a forward pass reads of W, kept for the backward pass and the step.

    Attributes:
        hidden: (m, d) H. hidden_gram: (m, d) HQ. hidden_sum: (m,) Hw̄, which is also the statistic s.
        plan, targets: the batch's target classes. values: (n, d) their rows of V at the newest boundary.
        rows: (n, d) their rows of W. outputs: (nnz,) the statistic a. squared_norm: (m,) the statistic q.
        version, layout: those of the weights that were read.
    """

    hidden: Tensor
    hidden_gram: Tensor
    hidden_sum: Tensor
    targets: SparseTargets
    plan: TargetPlan
    values: Tensor
    rows: Tensor
    squared_norm: Tensor
    outputs: Tensor
    version: int
    layout: int


def forward(weights: FactoredWeights, hidden: Tensor, targets: SparseTargets) -> Forward:
    """Read the statistics q = ‖o‖², s = Σo and a = o at the targets: O(d²) an example and O(d) a target."""
    plan = TargetPlan.of(targets)
    hidden_gram = hidden @ weights.gram.value
    values = weights.generations.rows_at_newest(weights.values, plan.class_ids)
    rows = torch.addmm(weights.shift.value, values, weights.factor.value)
    return Forward(
        hidden=hidden,
        hidden_gram=hidden_gram,
        hidden_sum=hidden @ weights.column_sum.value,
        targets=targets,
        plan=plan,
        values=values,
        rows=rows,
        squared_norm=torch.linalg.vecdot(hidden_gram, hidden).clamp_min(0.0),  # Q ⪰ 0; rounding may say otherwise
        outputs=plan.dots(hidden, rows),
        version=weights.version,
        layout=weights.layout,
    )


@dataclass(frozen=True)
class OutputGradient:
    """T by its factors, with the forward pass it belongs to.

    Attributes:
        read: the forward pass. curvature: (m,) λ. constant: (m,) σ. sparse: (nnz,) g.
    """

    read: Forward
    curvature: Tensor
    constant: Tensor
    sparse: Tensor

    def scaled(self, factor: Tensor | float) -> OutputGradient:
        """factor · T."""
        return replace(
            self,
            curvature=self.curvature * factor,
            constant=self.constant * factor,
            sparse=self.sparse * factor,
        )

    def sparse_rows(self) -> Tensor:
        """(m, d) SW."""
        return self.read.plan.times(self.sparse, self.read.rows)

    def hidden_gradient(self, weights: FactoredWeights, sparse_rows: Tensor) -> Tensor:
        """(m, d) ∇H = TW = ΛHQ + σw̄ᵀ + SW."""
        dense = self.curvature[:, None] * self.read.hidden_gram
        return torch.addr(dense, self.constant, weights.column_sum.value) + sparse_rows

    def gram_times(
        self, weights: FactoredWeights, right: Tensor, hidden_gradient: Tensor, sparse_rows: Tensor
    ) -> Tensor:
        """(m, d) TTᵀX for X = HR (m, d), without the D outputs.

        TTᵀ = ∇H·HᵀΛ + tσᵀ + ΛH(SW)ᵀ + σ(S1)ᵀ + SSᵀ with t = T1 = ΛHw̄ + Dσ + S1. Where m ≤ d the m × m products come
        first, otherwise the d × d ones.
        """
        read, lam, sigma = self.read, self.curvature, self.constant
        hidden, plan = read.hidden, read.plan
        ones = plan.row_sums(self.sparse)
        total = lam * read.hidden_sum + weights.num_classes * sigma + ones
        if hidden.shape[0] <= hidden.shape[1]:
            kernel = (hidden_gradient @ hidden.T) * lam + lam[:, None] * (hidden @ sparse_rows.T)
            out = kernel @ right
        else:
            out = hidden_gradient @ (hidden.T @ (lam[:, None] * right))
            out += lam[:, None] * (hidden @ (sparse_rows.T @ right))
        out.addr_(total, sigma @ right).addr_(sigma, ones @ right)
        return out + plan.times(self.sparse, plan.transposed_times(self.sparse, right))

    def norm(self, weights: FactoredWeights) -> Tensor:
        """() exact ‖∇W‖_F of ∇W = TᵀH, which is never formed: ‖∇W‖² = ⟨TTᵀH, H⟩."""
        sparse_rows = self.sparse_rows()
        gradient = self.hidden_gradient(weights, sparse_rows)
        product = self.gram_times(weights, self.read.hidden, gradient, sparse_rows)
        return torch.sum(product * self.read.hidden, dtype=torch.float64).clamp_min(0.0).sqrt()


def accumulate(weights: FactoredWeights, parts: list[OutputGradient]) -> OutputGradient:
    """The sum of several backward passes at the same W: their examples stand one below the other."""
    if len(parts) == 1 and parts[0].read.layout == weights.layout:
        return parts[0]
    targets = _concatenate([part.read.targets for part in parts])
    read = forward(weights, torch.cat([part.read.hidden for part in parts]), targets)
    return OutputGradient(
        read,
        torch.cat([part.curvature for part in parts]),
        torch.cat([part.constant for part in parts]),
        torch.cat([part.sparse for part in parts]),
    )


def _concatenate(batches: list[SparseTargets]) -> SparseTargets:
    counts = torch.cat([batch.counts for batch in batches])
    offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    return SparseTargets(torch.cat([batch.class_ids for batch in batches]), offsets)
