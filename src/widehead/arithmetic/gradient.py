"""The gradient of the loss by the outputs, T = ΛO + σ1ᵀ + S (m × D), by its factors; T itself is never formed.

Letters (docs/notation.md): m examples, D classes, d width, H (m, d) hidden, O = HWᵀ, Q = WᵀW, w̄ = Wᵀ1,
Λ = diag(λ) with λ = 2 ∂ℓ/∂q (m,), σ = ∂ℓ/∂s (m,), S sparse with entries g = ∂ℓ/∂a (nnz,), R (d, d) preconditioner.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from widehead.arithmetic.placed_targets import PlacedTargets
from widehead.arithmetic.small_state import SmallState
from widehead.arithmetic.target_plan import TargetPlan
from widehead.targets import SparseTargets

if TYPE_CHECKING:
    from widehead.arithmetic.reference import Arithmetic


class Share(NamedTuple):
    """What one process sees to of the sums over examples of which a step is made if they are more than d.

    Attributes:
        examples: whose HᵀΛHr and (NX)ᵀHr it makes.
        others: (k, c) NX of these; where rows are split, SX.
        plan, sparse: the targets whose rows are here, and their g.
        add_up: sums → what they are of all, perhaps in their memory: HᵀΛHr, (NX)ᵀHr and what else there is, in one
            matrix or several with d columns.
    """

    examples: slice
    others: Tensor
    plan: TargetPlan
    sparse: Tensor
    add_up: Callable[[Sequence[Tensor]], Sequence[Tensor]]


@dataclass(frozen=True)
class Forward:
    """What a forward pass reads of W, kept for the backward pass and the step.

    Attributes:
        arithmetic: what computed it, and computes what follows.
        hidden: (m, d) H.
        products: (m, 2·order·d + 2) H times U_wᵀ, ω, w̄ and Q_w, side by side, with U_w the columns of U that lead to W
            and Q_w the rows of Q that belong to W.
        plan, targets: the batch's target classes.
        values: (n, order·d) their rows of V at the newest version.
        squared_norm: (m,) q.
        outputs: (nnz,) a.
        num_classes: D.
        revision, layout: those of the weights that were read.
        size: ‖values‖_F, if it was found on the way.
    """

    arithmetic: Arithmetic
    hidden: Tensor
    products: Tensor
    targets: SparseTargets
    plan: TargetPlan | PlacedTargets
    values: Tensor
    squared_norm: Tensor
    outputs: Tensor
    num_classes: int
    revision: int
    layout: int
    size: float | None = field(default=None, kw_only=True)

    @property
    def hidden_sum(self) -> Tensor:
        """(m,) Hw̄ = s."""
        return self.products[:, self.values.shape[1] + 1]

    @property
    def hidden_gram(self) -> Tensor:
        """(m, d) HQ."""
        begin = self.values.shape[1] + 2
        return self.products[:, begin : begin + self.hidden.shape[1]]

    @property
    def examples(self) -> Tensor:
        """(nnz,) the example of each target."""
        return self.plan.examples

    @property
    def written(self) -> Tensor:
        """(n,) classes whose rows a step writes, in the order of ``values``."""
        assert isinstance(self.plan, TargetPlan), "a factored record should be given a gradient of its own"
        return self.plan.class_ids

    def by_rows(self, sparse: Tensor, right: Tensor, onto: Tensor | None = None) -> Tensor:
        """(n, c) SᵀY for Y (m, c): what the rows in ``values`` get of it; + ``onto`` (n, c)."""
        assert isinstance(self.plan, TargetPlan), "rows in a cache are written by their own step"
        return self.plan.transposed_times(sparse, right, onto)

    def others(self, left: Tensor, small: SmallState, columns: slice) -> Tensor:
        """(m, …) NX in some columns of X, from `OutputGradient.left`."""
        return left @ small.value[: left.shape[1], columns]

    def share(self, gradient: OutputGradient, small: SmallState, hr: Tensor) -> Share:
        """All of the sums for ``hr`` (m, d); where rows are split, a part."""
        assert isinstance(self.plan, TargetPlan), "a record for a GPU makes its own steps"
        return Share(slice(0, len(hr)), gradient.all_others(small), self.plan, gradient.sparse, lambda sums: sums)

    def statistics(self) -> tuple[Tensor, Tensor, Tensor]:
        """Copies of q = ‖o‖² (m,), s = Σ_j o_j (m,) and a = o at the targets (nnz,)."""
        return self.squared_norm.clone(), self.hidden_sum.clone(), self.outputs.clone()


@dataclass(frozen=True)
class OutputGradient:
    """T = ΛO + N with N = σ1ᵀ + S, by its factors, with the forward pass it belongs to.

    Attributes:
        read: the forward pass.
        by_squared_norm: (m,) λ.
        constant: (m,) σ, or None if it is 0.
        sparse: (nnz,) g.
        left: (m, order·d + 1 or + 2) SV, S1 and, if there is one, σ: N in the rows U, ω, x̄ of the small state.
        others: (m, d) NW.
        by_hidden: (m, d) ∇H = TW, the gradient by the hidden layer.
        bound: Σ|λ|‖h‖² ≥ λmax(ΛHHᵀ), if it was found on the way.
        example_weight: (m,) the factor that each example's loss has in what was differentiated (1/m in a mean), or
            None if that is not known.
    """

    read: Forward
    by_squared_norm: Tensor
    constant: Tensor | None
    sparse: Tensor
    left: Tensor
    others: Tensor
    by_hidden: Tensor
    bound: float | None = None
    example_weight: Tensor | None = None

    @property
    def sparse_sums(self) -> Tensor:
        """(m,) S1."""
        return self.left[:, self.read.values.shape[1]]

    @property
    def constant_sums(self) -> Tensor:
        """(m,) N1 = Dσ + S1."""
        sums = self.sparse_sums
        return sums if self.constant is None else torch.add(sums, self.constant, alpha=self.read.num_classes)

    @property
    def may_cancel(self) -> bool:
        """Whether N = σ1ᵀ + S may be far smaller than its parts, as if nearly all classes are targets of an example.

        NNᵀ, and with it Q after a step, then has the rounding of the parts, while W has that of its own rows.
        """
        return self.constant is not None and 2 * self.read.targets.most >= self.read.num_classes

    def scaled(self, factor: Tensor | float) -> OutputGradient:
        """factor · T."""
        names = ("by_squared_norm", "sparse", "left", "others", "by_hidden", "constant", "example_weight")
        parts = {name: getattr(self, name) for name in names}
        scaled = {name: part * factor for name, part in parts.items() if part is not None}
        return replace(self, bound=None, **scaled)

    def all_others(self, small: SmallState) -> Tensor:
        """(m, c) NX: NW and, with momentum, NM."""
        d = self.read.hidden.shape[1]
        if small.columns == d:
            return self.others
        return torch.cat([self.others, self.read.others(self.left, small, slice(d, None))], dim=1)

    @property
    def weighted_hidden(self) -> Tensor:
        """(m, d) ΛH."""
        return self.by_squared_norm[:, None] * self.read.hidden

    def gram_times(self, hr: Tensor, named: Tensor | None = None, weighted: Tensor | None = None) -> Tensor:
        """(m, d) TTᵀX for X = HR (m, d), without the D outputs; ``named`` is SᵀX (n, d), ``weighted`` ΛH, if known.

        TTᵀ = Y HᵀΛ + ΛH Yᵀ + NNᵀ with Y = NW + ½ΛHQ; NNᵀ = σ(N1)ᵀ + (S1)σᵀ + SSᵀ. If m ≤ d the m × m products come
        first, otherwise the d × d ones.
        """
        hidden, plan = self.read.hidden, self.read.plan
        scaled = self.weighted_hidden if weighted is None else weighted
        half = torch.lerp(self.others, self.by_hidden, 0.5)  # Y
        if hidden.shape[0] <= hidden.shape[1]:
            kernel = half @ scaled.T
            out = (kernel + kernel.T) @ hr
        else:
            out = half @ (scaled.T @ hr)
            out.addmm_(scaled, half.T @ hr)
        if self.constant is not None:
            out.addr_(self.constant, self.constant_sums @ hr)
            out.addr_(self.sparse_sums, self.constant @ hr)
        return out.add_(plan.gram_times(self.sparse, hr) if named is None else plan.times(self.sparse, named))

    def norm(self) -> Tensor:
        """() exact ‖∇W‖_F of ∇W = TᵀH, which is never formed: ‖∇W‖² = ⟨TTᵀH, H⟩."""
        product = self.gram_times(self.read.hidden)
        return torch.sum(product * self.read.hidden, dtype=torch.float64).clamp_min(0.0).sqrt()
