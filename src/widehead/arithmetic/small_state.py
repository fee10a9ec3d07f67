"""The small state: the small matrices of the weight record, one below the other; a step is one product with all.

Letters: c columns (order·d), U (c, c) factor of the open segment, ω (c,) shift, x̄ = Xᵀ1 (c,), Q = XᵀX (c, c).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from widehead.arithmetic.step_rule import StepRule

# Steps between two roundings of the sums to float64: what is added meanwhile is small beside the rest, so that its own
# rounding is far below that of the values.
_FLUSH_EVERY = {torch.float32: 16, torch.float64: 1}


@dataclass(frozen=True)
class SmallState:
    """Rows U (c), ω, x̄, Q (c), U⁻ᵀ (c) of one matrix (3c + 2, c), to which every step adds a product.

    An update below the rounding of a float32 entry would be lost every time, and U, U⁻¹ and Q would part ways (the loss
    of 10^5 such updates is a systematic drift, not noise). So updates are summed apart from the values, in ``added``,
    and every few steps (`flushed`) what has come together joins the sums in float64. Never changed in place, but by
    the record for GPUs (`CachedWeights`), which keeps nothing apart and has no U⁻¹.

    Attributes:
        master: float64, the sums at the last flush.
        base: its rounding to the working type.
        added: (3c + 2, c) what came since; of Q half of it, so that Q grows by A + Aᵀ.
        value: base + added, in the working type: what products use.
    """

    master: Tensor
    base: Tensor
    added: Tensor
    value: Tensor

    @classmethod
    def of(cls, master: Tensor, dtype: torch.dtype, added: Tensor | None = None) -> SmallState:
        """From float64 sums (3c + 2, c), and what was added since."""
        base = master.to(dtype)
        if added is None:
            return cls(master, base, torch.zeros_like(base), base)
        return cls(master, base, base, base).with_added(added)

    @classmethod
    def joined(
        cls, factor: Tensor, shift: Tensor, column_sum: Tensor, gram: Tensor, inverse: Tensor, dtype: torch.dtype
    ) -> SmallState:
        """From U, ω, x̄, Q and U⁻¹ in float64."""
        return cls.of(torch.cat([factor, shift[None], column_sum[None], gram, inverse.T]), dtype)

    @property
    def columns(self) -> int:
        """c."""
        return self.base.shape[1]

    @property
    def factor(self) -> Tensor:
        """(c, c) U."""
        return self.value[: self.columns]

    @property
    def shift(self) -> Tensor:
        """(c,) ω."""
        return self.value[self.columns]

    @property
    def column_sum(self) -> Tensor:
        """(c,) x̄."""
        return self.value[self.columns + 1]

    @property
    def gram(self) -> Tensor:
        """(c, c) Q."""
        return self.value[self.columns + 2 : 2 * self.columns + 2]

    @property
    def inverse(self) -> Tensor:
        """(c, c) U⁻¹."""
        return self.value[2 * self.columns + 2 :].T

    def with_added(self, added: Tensor) -> SmallState:
        """The same sums with ``added`` in the place of what had been added."""
        c = self.columns
        value = self.base + added
        value[c + 2 : 2 * c + 2] += added[c + 2 : 2 * c + 2].T
        return SmallState(self.master, self.base, added, value)

    def flushed(self) -> SmallState:
        """The same numbers with nothing apart."""
        if self.value is self.base:
            return self
        return _flushed(self.master.clone(), self.added, self.base.dtype)

    def with_sums(self, gram: Tensor, column_sum: Tensor) -> SmallState:
        """The same, flushed, with another Q (c, c) and x̄ (c,), float64."""
        c, master = self.columns, self.flushed().master
        return SmallState.of(torch.cat([master[: c + 1], column_sum[None], gram, master[2 * c + 2 :]]), self.base.dtype)

    def is_due(self, steps: int) -> bool:
        """Whether to flush after so many steps."""
        return steps % _FLUSH_EVERY[self.base.dtype] == 0

    def advanced(self, rule: StepRule, added: Tensor) -> SmallState:
        """Of X(p⊗I) instead of X, with U the factor of the same rows, and ``added`` more.

        If p is 1, ``added`` holds what had been added before, too; otherwise the result is flushed. If p is
        singular U⁻ᵀ stays as it is.
        """
        return self.with_added(added) if rule.keeps else _flushed(self.mixed(rule), added, self.base.dtype)

    def mixed(self, rule: StepRule) -> Tensor:
        """The float64 sums for X(p⊗I): U, ω and x̄ times p⊗I, (p⊗I)ᵀQ(p⊗I), and U⁻ᵀ(p⊗I)⁻ᵀ."""
        c, master, inverse = self.columns, self.flushed().master, rule.inverse()
        out = torch.empty_like(master)
        mix_blocks(master[: 2 * c + 2], rule.mix, 1, out[: 2 * c + 2])
        gram = out[c + 2 : 2 * c + 2]
        mix_blocks(gram.clone() if rule.order > 1 else gram, rule.mix, 0, gram)
        if inverse is None:
            out[2 * c + 2 :] = master[2 * c + 2 :]
        else:
            mix_blocks(master[2 * c + 2 :], tuple(zip(*inverse, strict=True)), 1, out[2 * c + 2 :])
        return out

    def to(self, device: torch.device) -> SmallState:
        """The same on another device."""
        return SmallState.of(self.master.to(device), self.base.dtype, self.added.to(device))


def _flushed(master: Tensor, added: Tensor, dtype: torch.dtype) -> SmallState:
    """From sums (3c + 2, c), which are taken over, and what was added."""
    c = master.shape[1]
    master += added
    master[c + 2 : 2 * c + 2] += added[c + 2 : 2 * c + 2].T
    return SmallState.of(master, dtype)


def mix_blocks(matrix: Tensor, mix: tuple[tuple[float, ...], ...], dim: int, out: Tensor) -> None:
    """out = matrix·(mix⊗I), or (mix⊗I)ᵀ·matrix with ``dim`` 0; in place only if mix is 1 × 1."""
    blocks, targets = matrix.chunk(len(mix), dim), out.chunk(len(mix), dim)
    for j, target in enumerate(targets):
        torch.mul(blocks[0], mix[0][j], out=target)
        for block, row in zip(blocks[1:], mix[1:], strict=True):
            if row[j] != 0.0:
                target.add_(block, alpha=row[j])


def combined(blocks: tuple[Tensor, ...], numbers: tuple[float, ...]) -> Tensor:
    """Σ_j numbers_j · blocks_j."""
    out = blocks[0] * numbers[0]
    for block, number in zip(blocks[1:], numbers[1:], strict=True):
        if number != 0.0:
            out.add_(block, alpha=number)
    return out
