"""The one operation on tensors that differs if target rows are those of W itself."""

from __future__ import annotations

import torch
from torch import Tensor

from widehead.arithmetic import Arithmetic, Forward, SmallState
from widehead.arithmetic.reference import GradientParts


class CachedArithmetic(Arithmetic):
    """`Arithmetic` for reads whose ``values`` are rows of X, not of V: no factor U stands between them and W."""

    def gradient(
        self, read: Forward, small: SmallState, by_squared_norm: Tensor, constant: Tensor | None, sparse: Tensor
    ) -> GradientParts:
        """∇H = TW = ΛHQ + SW + σw̄ᵀ."""
        d, plan = read.hidden.shape[1], read.plan
        found = plan.times(sparse, read.values)
        parts = [found, plan.row_sums(sparse)[:, None]]
        others = found[:, :d]
        if constant is not None:
            others = torch.addr(others, constant, small.column_sum[:d])
            parts.append(constant[:, None])
        by_hidden = torch.addcmul(others, by_squared_norm[:, None], read.hidden_gram)
        return GradientParts(torch.cat(parts, dim=1), others, by_hidden, None)


CACHED = CachedArithmetic()
