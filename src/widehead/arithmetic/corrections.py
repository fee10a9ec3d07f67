"""Products of rank-one corrections I + x·bᵀ of V, and the rows that met some of them.

A correction takes the one direction out of U that made it ill conditioned (correct.py): V ← V(I + x·bᵀ). With k of
them, a row that was written before correction number j needs the product of corrections j, …, k − 1, which is

    v + Σ_{i ≥ j} (v·x_i) m_i        with m_i = b_i·(I + x_{i+1}b_{i+1}ᵀ)⋯(I + x_{k−1}b_{k−1}ᵀ),

so rows of every version are brought forward by the same two thin products, 4ck flops a row instead of 2c².

Letters: c columns, k corrections, X (k, c), M (k, c).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import hardshrink

_TINY = 1e-30  # smaller factors are set to zero: products of denormal numbers are very slow


@dataclass(frozen=True)
class Corrections:
    """``both`` is (2, k, c): X and M. Never changed in place."""

    both: Tensor

    @classmethod
    def none(cls, columns: int, like: Tensor) -> Corrections:
        """k = 0: the identity."""
        return cls(like.new_zeros(2, 0, columns))

    def __len__(self) -> int:
        return self.both.shape[1]

    def then(self, x: Tensor, b: Tensor) -> Corrections:
        """The product with I + x·bᵀ, for x and b (c,), from the right."""
        left, right = self.both
        right = without_denormals(torch.addr(right, right @ x, b))
        return Corrections(torch.stack([torch.cat([left, x[None]]), torch.cat([right, b[None]])]))

    def size(self) -> float:
        """‖I + XᵀM‖ of all of them together, over √c."""
        left, right = self.both
        total = left.shape[1] + 2.0 * torch.sum(left * right) + torch.sum((left @ left.T) * (right @ right.T))
        return math.sqrt(max(float(total), 0.0) / left.shape[1])

    def applied(self, rows: Tensor, first: Tensor | None = None) -> Tensor:
        """(n, c) rows brought through corrections number ``first`` (n,) and later, or through all."""
        left, right = self.both
        parts = rows @ left.T
        if first is not None:
            parts.masked_fill_(torch.arange(len(self), device=rows.device) < first[:, None], 0.0)
        return torch.addmm(rows, parts, right)


def without_denormals(x: Tensor) -> Tensor:
    """``x`` with entries below 1e-30 set to zero."""
    return hardshrink(x, _TINY)
