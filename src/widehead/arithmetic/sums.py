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
        by_outputs: (c, d) (TX)ᵀHr.
        named: (d, d) HrᵀSSᵀHr, or zeros if nobody asked.
    """

    curvature: Tensor
    by_outputs: Tensor
    named: Tensor

    def square(self, gradient: OutputGradient, small: SmallState, hr: Tensor) -> Tensor:
        """(d, d) HrᵀTTᵀHr.

        TTᵀ = Y HᵀΛ + ΛH Yᵀ + NNᵀ with Y = TW − ½ΛHQ, so it is GᵀB + BᵀG + HrᵀNNᵀHr with G = YᵀHr = (TW)ᵀHr − ½QB.
        """
        d = hr.shape[1]
        half = torch.addmm(self.by_outputs[:d], small.gram[:d, :d], self.curvature, alpha=-0.5)
        out = half.T @ self.curvature
        out = out.add_(out.T.clone()).add_(self.named)
        if gradient.constant is not None:
            means = torch.stack([gradient.constant, gradient.constant_sums, gradient.sparse_sums])
            constant, all_sums, sparse_sums = means @ hr
            out.addr_(constant, all_sums).addr_(sparse_sums, constant)
        return out


def parts_of_sums(gradient: OutputGradient, small: SmallState, hr: Tensor, part: slice) -> tuple[Tensor, Tensor]:
    """B (d, d) and (TX)ᵀHr (c, d) of some of the examples."""
    lam, hidden, right = gradient.by_squared_norm[part], gradient.read.hidden[part], hr[part]
    return hidden.T @ (lam[:, None] * right), times_rows(gradient, small, part).T @ right


def times_rows(gradient: OutputGradient, small: SmallState, part: slice = slice(None)) -> Tensor:
    """(m, c) TX: TW = ∇H and, with momentum, TM, as TW with M in the place of W."""
    d = gradient.read.hidden.shape[1]
    if small.columns == d:
        return gradient.by_hidden[part]
    others = gradient.read.others(gradient.left[part], small, slice(d, None))
    others.addcmul_(gradient.by_squared_norm[part, None], gradient.read.products[part, -d:])
    return torch.cat([gradient.by_hidden[part], others], dim=1)
