"""What a step does with a gradient: the linear rule that turns W (and its momentum M) and G into the new ones.

A *row* of the weight record is x = w, or x = (w, m) if momentum is kept: ``order`` blocks of d numbers. A rule is

    X ← X (p ⊗ I) + G (f ⊗ I)

with G = TᵀHR the (preconditioned) gradient, p an order × order matrix and f an order-vector of numbers: plain ones, or
0-d tensors, so that a step on a GPU may depend on data without a wait of the host.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

_CANCELS = 1e-15  # what is left of two numbers of size 1 that are equal
_SINGULAR = 1e-4  # a smaller determinant of p is not inverted: the segment is closed instead


@dataclass(frozen=True)
class StepRule:
    """``mix`` is p, row by row; ``gain`` is f. Make one with `sgd` or `heavy_ball`, of plain numbers or 0-d tensors.

    What looks at the numbers (`is_finite`, `inverse`, `carried`, `basis`) wants plain ones, as `known` gives them.
    """

    mix: tuple[tuple[Any, ...], ...]
    gain: tuple[Any, ...]

    @classmethod
    def sgd(cls, lr: float | Tensor, weight_decay: float | Tensor = 0.0) -> StepRule:
        """W ← (1 − lr·decay) W − lr·G: coupled and decoupled decay are the same if R = I; with R it is decoupled.

        Raises:
            ValueError: lr · weight_decay is 1 or more, which would wipe W out; not if a GPU alone knows.
        """
        return cls.decoupled(lr, lr, weight_decay)

    @classmethod
    def decoupled(cls, length: float | Tensor, lr: float | Tensor, weight_decay: float | Tensor) -> StepRule:
        """W ← (1 − lr·decay) W − length·G; ValueError as of `sgd`."""
        return cls(((_kept(lr, weight_decay),),), (-length,))

    @classmethod
    def heavy_ball(
        cls,
        lr: float | Tensor,
        momentum: float | Tensor,
        *,
        nesterov: bool = False,
        weight_decay: float | Tensor = 0.0,
        decoupled: bool = False,
    ) -> StepRule:
        """torch.optim.SGD's momentum: M ← μM + G + λW, then W ← W − lr·M, or − lr·(G + λW + μM) with ``nesterov``.

        With ``decoupled`` λ stays out of M and W is scaled by 1 − lr·λ instead, as in AdamW. If μ = 0, M is left as
        it is, as torch leaves its buffer.
        """
        kept, moves = _kept(lr, weight_decay), cast(Any, momentum != 0.0)
        moves = moves.to(torch.float64) if isinstance(moves, Tensor) else float(moves)
        gain = (-lr * (1.0 + momentum) if nesterov else -lr, moves)
        from_momentum = (-lr * momentum * (momentum if nesterov else 1.0), momentum + (1.0 - moves))
        if decoupled:
            return cls(((kept, 0.0), from_momentum), gain)
        return cls(((1.0 + weight_decay * gain[0], weight_decay * gain[1]), from_momentum), gain)

    def known(self) -> StepRule:
        """The same rule in plain numbers; one wait for the device if some of them are tensors."""
        kept, gain = self.mix[0][0], self.gain[0]
        if self.order == 1 and not isinstance(kept, Tensor) and not isinstance(gain, Tensor):  # of most steps
            return self
        numbers = (*self.gain, *(v for row in self.mix for v in row))
        tensors = [v for v in numbers if isinstance(v, Tensor)]
        if not tensors:
            return self
        like = tensors[0].to(torch.float64)
        found, k = iter(torch.stack([v.to(like) for v in tensors]).tolist()), self.order
        plain = tuple(next(found) if isinstance(v, Tensor) else v for v in numbers)
        return StepRule(tuple(plain[i : i + k] for i in range(k, len(plain), k)), plain[:k])

    @property
    def order(self) -> int:
        """Blocks of d numbers in a row: 1, or 2 with momentum."""
        return len(self.gain)

    @property
    def keeps(self) -> bool:
        """Whether p is known to be 1, so that X without a gradient stays as it is."""
        kept = self.mix[0][0]
        return self.order == 1 and not isinstance(kept, Tensor) and kept == 1.0

    @property
    def is_finite(self) -> bool:
        """Whether all numbers are finite."""
        return all(math.isfinite(v) for v in (*self.gain, *(v for row in self.mix for v in row)))

    def inverse(self) -> tuple[tuple[float, ...], ...] | None:
        """p⁻¹, or None if p is close to singular (momentum near 0, say)."""
        if self.order == 1:
            return ((1.0 / self.mix[0][0],),)
        (a, b), (c, d) = self.mix
        determinant = a * d - b * c
        if abs(determinant) < _SINGULAR:
            return None
        return (d / determinant, -b / determinant), (-c / determinant, a / determinant)

    def carried(self) -> tuple[float, ...]:
        """φ = f·p⁻¹: what a gradient would have had to be before X(p ⊗ I), which is invertible, in its units.

        With heavy ball φ₁ is 0, and not what rounding leaves: W is back from M alone.
        """
        inverse = self.inverse()
        assert inverse is not None, "p should not be singular"
        first, *rest = (sum(g * row[j] for g, row in zip(self.gain, inverse, strict=True)) for j in range(self.order))
        return (0.0 if self.order > 1 and abs(first) <= _CANCELS * abs(self.gain[0]) else first, *rest)

    def basis(self) -> float:
        """The number r by which z = w + r·m is what w will have become when the momentum has run out.

        In the coordinates (z, m) a step without curvature is diag(1, μ). Errors of rows kept in (w, m) would grow as
        μ⁻ᵗ within a segment, those of rows kept in (z, m) do not: the second coordinate only shrinks.
        """
        if self.order == 1 or self.mix[1][0] == 0.0:
            return 0.0
        (kept, _), (drift, momentum) = self.mix
        return drift / max(kept - momentum, 0.25 * (1.0 - momentum))


def is_known(value: Any) -> bool:
    """Whether the host can read a number, plain or a 0-d tensor, without a wait for a device."""
    return not isinstance(value, Tensor) or value.device.type == "cpu"


def _kept(lr: float | Tensor, weight_decay: float | Tensor) -> Any:
    if not isinstance(weight_decay, Tensor) and weight_decay == 0.0:
        return 1.0
    kept = 1.0 - lr * weight_decay
    if is_known(kept) and kept <= 0.0:
        found = f"Found {lr * weight_decay}; lower either, so that it is below 1."
        raise ValueError(f"Parameter `lr * weight_decay` should be in [0, 1). {found}")
    return kept
