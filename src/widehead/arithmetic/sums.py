"""Sums over the examples of a batch, of which a step is made if they are more than d: products of d × d numbers then
stand for those of m × d.

Letters (docs/notation.md): m examples, d width, c = order·d, X rows (w, or (w, m) if momentum is kept), T = ΛO + N with
N = σ1ᵀ + S, Hr = HR.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from widehead.arithmetic.gradient import OutputGradient
from widehead.arithmetic.small_state import SmallState


@dataclass(frozen=True)
class ExampleSums:
    """Of one batch; who has a part of the examples, or of the rows, adds up parts.

    Attributes:
        curvature: (d, d) B = HᵀΛHr.
        by_others: (c, d) (NX)ᵀHr.
        named: (d, d) HrᵀSSᵀHr, or None if nobody asked.
    """

    curvature: Tensor
    by_others: Tensor
    named: Tensor | None = None

    def by_outputs(self, small: SmallState) -> Tensor:
        """(c, d) (TX)ᵀHr, as TX = ΛHQ + NX."""
        return torch.addmm(self.by_others, small.gram[:, : len(self.curvature)], self.curvature)

    def square(self, gradient: OutputGradient, hr: Tensor, by_outputs: Tensor) -> Tensor:
        """(d, d) HrᵀTTᵀHr.

        TTᵀ = Y HᵀΛ + ΛH Yᵀ + NNᵀ with Y = NW + ½ΛHQ = ½(TW + NW), so it is GᵀB + BᵀG + HrᵀNNᵀHr with G = YᵀHr.
        """
        assert self.named is not None
        d = hr.shape[1]
        out = torch.lerp(self.by_others[:d], by_outputs[:d], 0.5).T @ self.curvature
        out = out.add_(out.T.clone()).add_(self.named)
        if gradient.constant is not None:
            means = torch.stack([gradient.constant, gradient.constant_sums, gradient.sparse_sums])
            constant, all_sums, sparse_sums = means @ hr
            out.addr_(constant, all_sums).addr_(sparse_sums, constant)
        return out


def curvature_of(gradient: OutputGradient, hr: Tensor, part: slice = slice(None)) -> Tensor:
    """(d, d) HᵀΛHr of some of the examples."""
    return gradient.read.hidden[part].T @ (gradient.by_squared_norm[part, None] * hr[part])


def times_rows(gradient: OutputGradient, small: SmallState) -> Tensor:
    """(m, c) TX: TW = ∇H and, with momentum, TM, as TW with M in the place of W."""
    d = gradient.read.hidden.shape[1]
    if small.columns == d:
        return gradient.by_hidden
    others = gradient.read.others(gradient.left, small, slice(d, None))
    others.addcmul_(gradient.by_squared_norm[:, None], gradient.read.products[:, -d:])
    return torch.cat([gradient.by_hidden, others], dim=1)
