"""Take out of U the one direction that made it ill conditioned, at O(c²), instead of closing the segment.

With steps near the largest stable one, a hidden layer with a dominant direction makes one singular value of U small in
each step and leaves the others near 1. Let x be its left and y its right singular vector. With

    U' = (I − xxᵀ)U + τ·xyᵀ,    U'⁻¹ = (I − yyᵀ)U⁻¹(I − xxᵀ) + yxᵀ/τ,    V' = V(I − xxᵀ + x·aᵀ),  aᵀ = xᵀU·U'⁻¹,

V'U' = VU whatever unit vector x is, and the formula for U'⁻¹ needs (I − xxᵀ)Uy = 0 alone. So neither vector has to
be exact, and the errors of U⁻¹ that the small singular value had magnified, which lie in y and xᵀ, are projected away.

Letters: U (c, c), C (m, c) the solution that target rows are written with, Hr (m, c), τ = ‖U‖_F/√c. One block of
columns only: with momentum, segments are closed instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from widehead.factored.squares import Squares

__all__ = ["Deflation", "deflate"]


@dataclass(frozen=True)
class Deflation:
    """U' and U'⁻¹ in ``squares``, C' (m, c) for them, and the bend I + x·bᵀ of V, with x and b (c,)."""

    squares: Squares
    solved: Tensor
    x: Tensor
    b: Tensor


# U⁻¹ has errors of its entries' rounding over σ/τ, in every direction. Below this σ/τ they would pass the limits on
# drift (conditioning.py) within a few steps.
_SMALLEST = {torch.float32: 0.02, torch.float64: 0.002}


def deflate(squares: Squares, solved: Tensor, right: Tensor, gain: float) -> Deflation | None:
    """Give the direction in which U is smallest the length τ; None where it is too small for that, or not finite.

    What comes back may be as ill conditioned as what was given, where several directions are: the caller judges it.

    Args:
        squares: with U⁻¹. solved: (m, c) C = gain·Hr·U⁻¹. right: (m, c) Hr, m ≥ 1. gain: f of the rule.
    """
    c, factor, inverse = squares.columns, squares.factor, squares.inverse
    # Rows of C that are large lie along x. From the largest of them one iteration with U⁻¹ is enough, as the other
    # singular values are much larger. U⁻¹ may be inexact: the residual of Uy is that of UU⁻¹x, times σ.
    lengths = torch.linalg.vector_norm(solved, dim=1)
    x = solved.index_select(0, lengths.argmax(0, keepdim=True)).squeeze(0)
    x = _unit(_unit(inverse @ x) @ inverse)
    column = inverse @ x
    y = _unit(column)
    scale = torch.linalg.vector_norm(factor) * c**-0.5
    if not float(torch.linalg.vector_norm(column) * scale) <= 1.0 / _SMALLEST[factor.dtype]:  # NaN too
        return None
    kept, read = x @ factor, y @ inverse  # xᵀU, yᵀU⁻¹
    taken = read - (torch.dot(read, x) + 1.0 / scale) * x
    added = squares.added.clone()
    added[:c].addr_(x, scale * y - kept)
    added[2 * c + 2 :].addr_(x, column, alpha=-1.0).addr_(taken, y, alpha=-1.0)  # U⁻ᵀ
    made = squares.with_added(added)
    rows = torch.addr(solved, solved @ x, x, alpha=-1.0).addr_(right @ y, taken, alpha=-gain)
    return Deflation(made, rows, x, kept @ made.inverse - x)


def _unit(vector: Tensor) -> Tensor:
    unit: Tensor = vector / torch.linalg.vector_norm(vector)
    return unit
