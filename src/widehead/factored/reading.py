"""Forward and backward passes of a factored weight record: what they read of W, by the operations that its rows have.

Letters (docs/notation.md): m examples, d width, H (m, d) hidden, λ (m,), σ (m,), g (nnz,) derivatives of the loss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from widehead.arithmetic import Forward, OutputGradient
from widehead.targets import SparseTargets

if TYPE_CHECKING:
    from widehead.factored.record import WeightRecord
    from widehead.factored.weights import FactoredWeights


def forward(weights: FactoredWeights, hidden: Tensor, targets: SparseTargets) -> Forward:
    """Read what the statistics, their gradient and the step need of W: O(d²) an example and a target.

    What computes is chosen here; it goes with the result to the backward pass and to the step.
    """
    arithmetic = weights.rows.arithmetic
    plan = arithmetic.plan_targets(targets)
    found = arithmetic.read_outputs(hidden, weights.small, weights.versions.table(weights.rows), plan)
    return Forward(
        arithmetic,
        hidden,
        found.products,
        targets,
        plan,
        found.values,
        found.squared_norm,
        found.outputs,
        weights.num_classes,
        weights.revision,
        weights.layout,
        size=found.size,
    )


def output_gradient(
    weights: WeightRecord,
    read: Forward,
    by_squared_norm: Tensor,
    constant: Tensor | None,
    sparse: Tensor,
    example_weight: Tensor | None = None,
) -> OutputGradient:
    """T with ∇H = TW, from λ (m,), σ (m,) or None, and g (nnz,).

    If V's rows have changed their meaning since the forward pass (`consolidate`), they are read again.
    """
    if read.layout != weights.layout:
        read = weights.read_again(read.hidden, read.targets)
    made = read.arithmetic.gradient(read, weights.small, by_squared_norm, constant, sparse)
    return OutputGradient(read, by_squared_norm, constant, sparse, *made, example_weight)


def accumulate(weights: WeightRecord, parts: list[OutputGradient]) -> OutputGradient:
    """The sum of several backward passes at the same W: their examples stand one below the other."""
    if len(parts) == 1 and parts[0].read.layout == weights.layout:
        return parts[0]
    targets = SparseTargets.concatenate([part.read.targets for part in parts])
    read = weights.read_again(torch.cat([part.read.hidden for part in parts]), targets)
    lam, sparse = (torch.cat([getattr(part, name) for part in parts]) for name in ("by_squared_norm", "sparse"))
    constant = None
    if any(part.constant is not None for part in parts):
        constant = torch.cat([torch.zeros_like(p.sparse_sums) if p.constant is None else p.constant for p in parts])
    weight = [part.example_weight for part in parts if part.example_weight is not None]
    known = torch.cat(weight) if len(weight) == len(parts) else None
    return output_gradient(weights, read, lam, constant, sparse, known)
