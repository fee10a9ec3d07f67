"""The one operation on tensors that differs if target rows are those of W itself."""

from __future__ import annotations

import torch
from torch import Tensor

from widehead.arithmetic import Arithmetic, Forward, SmallState
from widehead.arithmetic.reference import GradientParts


class CachedArithmetic(Arithmetic):
    """`Arithmetic` for reads whose ``values`` are rows of X less ω: no factor U stands between them and W.

    Args:
        shifted: whether ω may be other than 0.
    """

    def __init__(self, shifted: bool) -> None:
        self.shifted = shifted

    def gradient(
        self, read: Forward, small: SmallState, by_squared_norm: Tensor, constant: Tensor | None, sparse: Tensor
    ) -> GradientParts:
        """∇H = TW = ΛHQ + SY + (S1)ωᵀ + σw̄ᵀ."""
        d, plan = read.hidden.shape[1], read.plan
        found, sums = plan.times(sparse, read.values), plan.row_sums(sparse)
        parts, others = [found, sums[:, None]], found[:, :d]
        if self.shifted:
            others = torch.addr(others, sums, small.shift[:d])
        if constant is not None:
            others = torch.addr(others, constant, small.column_sum[:d])
            parts.append(constant[:, None])
        by_hidden = torch.addcmul(others, by_squared_norm[:, None], read.hidden_gram)
        return GradientParts(torch.cat(parts, dim=1), others, by_hidden, None)


CACHED, SHIFTED = CachedArithmetic(False), CachedArithmetic(True)
