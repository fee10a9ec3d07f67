"""The gradient of the loss by the outputs, T = ΛO + σ1ᵀ + S (m × D), by its factors; T itself is never formed.

Letters (docs/notation.md): m examples, D classes, d width, H (m, d) hidden, O = HWᵀ, Q = WᵀW, w̄ = Wᵀ1,
Λ = diag(λ) with λ = 2 ∂ℓ/∂q (m,), σ = ∂ℓ/∂s (m,), S sparse with entries g = ∂ℓ/∂a (nnz,), R (d, d) preconditioner.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from widehead import kernels
from widehead.factored.sparse import TargetPlan
from widehead.factored.weights import FactoredWeights
from widehead.targets import SparseTargets

__all__ = ["Forward", "OutputGradient", "forward"]


@dataclass(frozen=True)
class Forward:
    """What a forward pass reads of W, kept for the backward pass and the step.

    Attributes:
        hidden: (m, d) H.
        products: (m, 2·order·d + 2) H times U_wᵀ, ω, w̄ and Q_w, side by side, with U_w the columns of U that lead to W
            and Q_w the rows of Q that belong to W.
        plan, targets: the batch's target classes.
        values: (n, order·d) their rows of V at the newest boundary.
        squared_norm: (m,) q.
        outputs: (nnz,) a.
        version, layout: those of the weights that were read.
    """

    hidden: Tensor
    products: Tensor
    targets: SparseTargets
    plan: TargetPlan
    values: Tensor
    squared_norm: Tensor
    outputs: Tensor
    version: int
    layout: int

    @property
    def hidden_sum(self) -> Tensor:
        """(m,) Hw̄ = s."""
        return self.products[:, self.values.shape[1] + 1]

    @property
    def hidden_gram(self) -> Tensor:
        """(m, d) HQ."""
        begin = self.values.shape[1] + 2
        return self.products[:, begin : begin + self.hidden.shape[1]]

    def statistics(self) -> tuple[Tensor, Tensor, Tensor]:
        """Copies of q = ‖o‖² (m,), s = Σ_j o_j (m,) and a = o at the targets (nnz,)."""
        return self.squared_norm.clone(), self.hidden_sum.clone(), self.outputs.clone()


def forward(weights: FactoredWeights, hidden: Tensor, targets: SparseTargets) -> Forward:
    """Read what the statistics, their gradient and the step need of W: O(d²) an example and a target."""
    d, size = weights.width, weights.order * weights.width
    plan = TargetPlan.of(targets)
    if weights.rows.is_resident and kernels.applies(hidden, weights.values):
        return _forward_by_kernel(weights, hidden.contiguous(), targets, plan)
    products = hidden @ weights.squares.value[: 2 * size + 2, :d].T
    hidden_factor, hidden_shift = products[:, :size], products[:, size]
    hidden_gram = products[:, size + 2 : size + 2 + d]
    values = weights.generations.rows_at_newest(weights.rows, plan.class_ids)
    return Forward(
        hidden=hidden,
        products=products,
        targets=targets,
        plan=plan,
        values=values,
        # Q ⪰ 0, so q ≥ 0; rounding may say otherwise.
        squared_norm=torch.linalg.vecdot(hidden_gram, hidden).clamp_min_(0.0),
        # a = h·(v U + ω) = (h Uᵀ)·v + h·ω: U meets the m hidden rows, not the n target rows, which may be many more.
        outputs=plan.dots(hidden_factor, values).add_(hidden_shift[plan.examples]),
        version=weights.version,
        layout=weights.layout,
    )


def _forward_by_kernel(weights: FactoredWeights, hidden: Tensor, targets: SparseTargets, plan: TargetPlan) -> Forward:
    gens, rows, ids = weights.generations, weights.rows, plan.class_ids
    products, values, squared_norm, outputs = kernels.forward(
        hidden,
        weights.squares.value,
        rows.stored,
        gens.stamps,
        gens.newest,
        (ids, plan.offsets, plan.positions),
        lambda: gens.rows_at_newest(rows, ids),
    )
    return Forward(hidden, products, targets, plan, values, squared_norm, outputs, weights.version, weights.layout)


@dataclass(frozen=True)
class OutputGradient:
    """T = ΛO + N with N = σ1ᵀ + S, by its factors, with the forward pass it belongs to.

    Attributes:
        read: the forward pass.
        curvature: (m,) λ.
        constant: (m,) σ, or None where it is 0.
        sparse: (nnz,) g.
        left: (m, order·d + 1 or + 2) SV, S1 and, where there is one, σ: N in the rows U, ω, x̄ of the squares.
        others: (m, d) NW.
        by_hidden: (m, d) ∇H = TW, the gradient by the hidden layer.
        example_weight: (m,) the factor that each example's loss has in what was differentiated (1/m in a mean), or
            None where that is not known.
        curvature_bound: Σ|λ|‖h‖², where it was found on the way.
    """

    read: Forward
    curvature: Tensor
    constant: Tensor | None
    sparse: Tensor
    left: Tensor
    others: Tensor
    by_hidden: Tensor
    example_weight: Tensor | None = None
    curvature_bound: float | None = None

    @classmethod
    def of(
        cls,
        weights: FactoredWeights,
        read: Forward,
        curvature: Tensor,
        constant: Tensor | None,
        sparse: Tensor,
        example_weight: Tensor | None = None,
    ) -> OutputGradient:
        """T with ∇H = TW = ΛHQ + NW, where NW = (SV)U + (S1)ωᵀ + σw̄ᵀ.

        Where V's rows have changed their meaning since the forward pass (`consolidate`), they are read again.
        """
        d = weights.width
        if read.layout != weights.layout:
            read = forward(weights, read.hidden, read.targets)
        if weights.rows.is_resident and kernels.applies(read.hidden, weights.values):
            classes = (read.plan.offsets, read.plan.positions)
            squares = weights.squares.value
            made, bound = kernels.backward(
                read.hidden, curvature, constant, sparse, classes, read.values, read.products, squares
            )
            return cls(read, curvature, constant, sparse, *made, example_weight, bound)
        parts = [read.plan.times(sparse, read.values), read.plan.row_sums(sparse)[:, None]]
        left = torch.cat(parts if constant is None else [*parts, constant[:, None]], dim=1)
        others = left @ weights.squares.value[: left.shape[1], :d]
        by_hidden = torch.addcmul(others, curvature[:, None], read.hidden_gram)
        return cls(read, curvature, constant, sparse, left, others, by_hidden, example_weight)

    @property
    def sparse_sums(self) -> Tensor:
        """(m,) S1."""
        return self.left[:, self.read.values.shape[1]]

    def by_momentum(self, weights: FactoredWeights) -> Tensor:
        """(m, d) TM, as ∇H = TW with M in the place of W."""
        d = weights.width
        others = self.left @ weights.squares.value[: self.left.shape[1], d:]
        return others.addcmul_(self.curvature[:, None], self.read.products[:, -d:])

    def scaled(self, factor: Tensor | float) -> OutputGradient:
        """factor · T."""
        names = ("curvature", "sparse", "left", "others", "by_hidden", "constant", "example_weight")
        parts = {name: getattr(self, name) for name in names}
        scaled = {name: part * factor for name, part in parts.items() if part is not None}
        return replace(self, curvature_bound=None, **scaled)

    def constant_sums(self, weights: FactoredWeights) -> Tensor:
        """(m,) N1 = Dσ + S1."""
        sums = self.sparse_sums
        return sums if self.constant is None else torch.add(sums, self.constant, alpha=weights.num_classes)

    def gram_times(self, weights: FactoredWeights, right: Tensor) -> Tensor:
        """(m, d) TTᵀX for X = HR (m, d), without the D outputs.

        TTᵀ = Y HᵀΛ + ΛH Yᵀ + NNᵀ with Y = NW + ½ΛHQ; NNᵀ = σ(N1)ᵀ + (S1)σᵀ + SSᵀ. Where m ≤ d the m × m products come
        first, otherwise the d × d ones.
        """
        hidden, plan = self.read.hidden, self.read.plan
        scaled = self.curvature[:, None] * hidden  # ΛH
        half = torch.lerp(self.others, self.by_hidden, 0.5)  # Y
        if hidden.shape[0] <= hidden.shape[1]:
            kernel = half @ scaled.T
            out = (kernel + kernel.T) @ right
        else:
            out = half @ (scaled.T @ right)
            out.addmm_(scaled, half.T @ right)
        if self.constant is not None:
            out.addr_(self.constant, self.constant_sums(weights) @ right)
            out.addr_(self.sparse_sums, self.constant @ right)
        return out.add_(plan.gram_times(self.sparse, right))

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
    curvature, sparse = (torch.cat([getattr(part, name) for part in parts]) for name in ("curvature", "sparse"))
    constant = None
    if any(part.constant is not None for part in parts):
        constant = torch.cat([torch.zeros_like(p.curvature) if p.constant is None else p.constant for p in parts])
    weight = [part.example_weight for part in parts if part.example_weight is not None]
    known = torch.cat(weight) if len(weight) == len(parts) else None
    return OutputGradient.of(weights, read, curvature, constant, sparse, known)
