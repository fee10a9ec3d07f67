"""The gradient of the loss by the outputs, T = ΛO + σ1ᵀ + S (m × D), by its factors; T itself is never formed.

Letters (docs/method.md): m examples, D classes, d width, H (m, d) hidden, O = HWᵀ, Q = WᵀW, w̄ = Wᵀ1,
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
        hidden: (m, d) H. hidden_gram: (m, d) HQ. hidden_factor: (m, order·d) HU_wᵀ, with U_w the columns of U that
            lead to W. hidden_sum: (m,) Hw̄. hidden_shift: (m,) Hω. plan, targets: the batch's target classes.
        values: (n, order·d) their rows of V at the newest boundary.
        squared_norm: (m,) q. outputs: (nnz,) a. version, layout: those of the weights that were read.
    """

    hidden: Tensor
    hidden_gram: Tensor
    hidden_factor: Tensor
    hidden_sum: Tensor
    hidden_shift: Tensor
    targets: SparseTargets
    plan: TargetPlan
    values: Tensor
    squared_norm: Tensor
    outputs: Tensor
    version: int
    layout: int

    def statistics(self) -> tuple[Tensor, Tensor, Tensor]:
        """Copies of q = ‖o‖² (m,), s = Σ_j o_j (m,) and a = o at the targets (nnz,)."""
        return self.squared_norm.clone(), self.hidden_sum.clone(), self.outputs.clone()


def forward(weights: FactoredWeights, hidden: Tensor, targets: SparseTargets) -> Forward:
    """Read what the statistics, their gradient and the step need of W: O(d²) an example and a target."""
    d = weights.width
    plan = TargetPlan.of(targets)
    hidden_gram = hidden @ weights.gram.value[:d, :d]
    hidden_factor = hidden @ weights.factor.value[:, :d].T
    hidden_shift = hidden @ weights.shift.value[:d]
    values = weights.generations.rows_at_newest(weights.rows, plan.class_ids)
    return Forward(
        hidden=hidden,
        hidden_gram=hidden_gram,
        hidden_factor=hidden_factor,
        hidden_sum=hidden @ weights.column_sum.value[:d],
        hidden_shift=hidden_shift,
        targets=targets,
        plan=plan,
        values=values,
        # Q ⪰ 0, so q ≥ 0; rounding may say otherwise.
        squared_norm=torch.linalg.vecdot(hidden_gram, hidden).clamp_min(0.0),
        # a = h·(v U + ω) = (h Uᵀ)·v + h·ω: U meets the m hidden rows, not the n target rows, which may be many more.
        outputs=plan.dots(hidden_factor, values) + hidden_shift[plan.examples],
        version=weights.version,
        layout=weights.layout,
    )


@dataclass(frozen=True)
class OutputGradient:
    """T by its factors, with the forward pass it belongs to.

    Attributes:
        read: the forward pass. curvature: (m,) λ. constant: (m,) σ. sparse: (nnz,) g.
        sparse_values: (m, order·d) SV. sparse_rows: (m, d) SW. sparse_sums: (m,) S1.
        by_hidden: (m, d) ∇H = TW, the gradient by the hidden layer.
        example_weight: (m,) the factor that each example's loss has in what was differentiated (1/m in a mean), or
            None where that is not known.
    """

    read: Forward
    curvature: Tensor
    constant: Tensor
    sparse: Tensor
    sparse_values: Tensor
    sparse_rows: Tensor
    sparse_sums: Tensor
    by_hidden: Tensor
    example_weight: Tensor | None = None

    @classmethod
    def of(
        cls,
        weights: FactoredWeights,
        read: Forward,
        curvature: Tensor,
        constant: Tensor,
        sparse: Tensor,
        example_weight: Tensor | None = None,
    ) -> OutputGradient:
        """T with ∇H = TW = ΛHQ + σw̄ᵀ + SW, where SW = (SV)U + (S1)ωᵀ.

        Where V's rows have changed their meaning since the forward pass (`consolidate`), they are read again.
        """
        d = weights.width
        if read.layout != weights.layout:
            read = forward(weights, read.hidden, read.targets)
        sparse_sums = read.plan.row_sums(sparse)
        sparse_values = read.plan.times(sparse, read.values)
        sparse_rows = sparse_values @ weights.factor.value[:, :d]
        sparse_rows.addr_(sparse_sums, weights.shift.value[:d])
        by_hidden = torch.addcmul(sparse_rows, curvature[:, None], read.hidden_gram)
        by_hidden.addr_(constant, weights.column_sum.value[:d])
        parts = (sparse_values, sparse_rows, sparse_sums, by_hidden)
        return cls(read, curvature, constant, sparse, *parts, example_weight)

    def by_momentum(self, weights: FactoredWeights) -> Tensor:
        """(m, d) TM, as ∇H = TW with M in the place of W."""
        d = weights.width
        out = self.sparse_values @ weights.factor.value[:, d:]
        out.addr_(self.sparse_sums, weights.shift.value[d:]).addr_(self.constant, weights.column_sum.value[d:])
        return out.addcmul_(self.curvature[:, None], self.read.hidden @ weights.gram.value[:d, d:])

    def scaled(self, factor: Tensor | float) -> OutputGradient:
        """factor · T."""
        names = ("curvature", "constant", "sparse", "sparse_values", "sparse_rows", "sparse_sums", "by_hidden")
        parts = {name: getattr(self, name) * factor for name in names}
        weight = None if self.example_weight is None else self.example_weight * factor
        return replace(self, **parts, example_weight=weight)

    def total(self, weights: FactoredWeights) -> Tensor:
        """(m,) t = T1 = ΛHw̄ + Dσ + S1."""
        dense = self.curvature * self.read.hidden_sum + weights.num_classes * self.constant
        return dense + self.sparse_sums

    def gram_times(self, weights: FactoredWeights, right: Tensor) -> Tensor:
        """(m, d) TTᵀX for X = HR (m, d), without the D outputs.

        TTᵀ = ∇H·HᵀΛ + tσᵀ + ΛH(SW)ᵀ + σ(S1)ᵀ + SSᵀ. Where m ≤ d the m × m products come first, otherwise the d × d
        ones.
        """
        lam, hidden, plan = self.curvature, self.read.hidden, self.read.plan
        if hidden.shape[0] <= hidden.shape[1]:
            kernel = (self.by_hidden @ hidden.T) * lam + lam[:, None] * (hidden @ self.sparse_rows.T)
            out = kernel @ right
        else:
            out = self.by_hidden @ (hidden.T @ (lam[:, None] * right))
            out += lam[:, None] * (hidden @ (self.sparse_rows.T @ right))
        out.addr_(self.total(weights), self.constant @ right)
        out.addr_(self.constant, self.sparse_sums @ right)
        return out + plan.times(self.sparse, plan.transposed_times(self.sparse, right))

    def norm(self, weights: FactoredWeights) -> Tensor:
        """() exact ‖∇W‖_F of ∇W = TᵀH, which is never formed: ‖∇W‖² = ⟨TTᵀH, H⟩."""
        product = self.gram_times(weights, self.read.hidden)
        return torch.sum(product * self.read.hidden, dtype=torch.float64).clamp_min(0.0).sqrt()


def accumulate(weights: FactoredWeights, parts: list[OutputGradient]) -> OutputGradient:
    """The sum of several backward passes at the same W: their examples stand one below the other."""
    if len(parts) == 1 and parts[0].read.layout == weights.layout:
        return parts[0]
    targets = SparseTargets.concatenate([part.read.targets for part in parts])
    read = forward(weights, torch.cat([part.read.hidden for part in parts]), targets)
    names = ("curvature", "constant", "sparse")
    curvature, constant, sparse = (torch.cat([getattr(part, name) for part in parts]) for name in names)
    weight = [part.example_weight for part in parts if part.example_weight is not None]
    known = torch.cat(weight) if len(weight) == len(parts) else None
    return OutputGradient.of(weights, read, curvature, constant, sparse, known)
