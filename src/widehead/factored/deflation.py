"""Keep U well conditioned at O(c²), by a bend of V in the one direction that is contracted, instead of a new segment.

With steps near the largest stable one, a hidden layer with a dominant direction makes one singular value of U small and
leaves the others near 1. There are two ways to meet that. In both V' = V(I + x·bᵀ) and V'U' = VU.

*deflate*: U became ill conditioned over some steps. Let x be the left and y the right singular vector. With

    U' = (I − xxᵀ)U + τ·xyᵀ,    U'⁻¹ = (I − yyᵀ)U⁻¹(I − xxᵀ) + yxᵀ/τ,    bᵀ = (xᵀU − τyᵀ)U'⁻¹,

V'U' = VU whatever unit vector x is, and the formula for U'⁻¹ needs (I − xxᵀ)Uy = 0 alone. So neither vector has to
be exact.

*withhold*: this step alone contracts y so much (P = p + fHᵀΛH is nearly singular) that U⁻¹ cannot be known. Then U is
given the step without that direction, and V the rest. With H̃ = H(I − yyᵀ)

    U' = U(p + fHᵀΛH̃),    x = f·UHᵀΛHy,    bᵀ = yᵀU'⁻¹,    C' = C̃ + f·Hy·bᵀ,

where C̃ and U'⁻¹ come from the same system as ever with H̃ in the place of Hr, which is well conditioned: its eigenvalues
are those of P on the complement of y. This holds for any unit vector y, too.

Letters: U (c, c), C (m, c) the solution that target rows are written with, Hr (m, c), τ = ‖U‖_F/√c, f and p the numbers
of the rule. One block of columns only: with momentum, segments are closed instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from widehead import kernels
from widehead.factored.gradient import OutputGradient
from widehead.factored.rule import StepRule
from widehead.factored.solve import solve
from widehead.factored.squares import Squares
from widehead.factored.weights import FactoredWeights

__all__ = ["Deflation", "deflate", "deflate_rows", "withhold"]


@dataclass(frozen=True)
class Deflation:
    """U' and U'⁻¹ in ``squares``, C' (m, c) for them, and the bend I + x·bᵀ of V, with x and b (c,)."""

    squares: Squares
    solved: Tensor
    x: Tensor
    b: Tensor


# U⁻¹ has errors of its entries' rounding over σ/τ, in every direction. At a 50th the error of W was two to three times
# that of closing segments, at a tenth no larger, but fewer steps could do without a new segment.
_SMALLEST = {torch.float32: 0.07, torch.float64: 0.03}


def deflate(squares: Squares, solved: Tensor, right: Tensor, gain: float) -> Deflation | None:
    """Give the direction in which U is smallest the length τ; None where it is too small for that, or not finite.

    What comes back may be as ill conditioned as what was given, where several directions are: the caller judges it.

    Args:
        squares: with U⁻¹.
        solved: (m, c) C = gain·Hr·U⁻¹.
        right: (m, c) Hr, m ≥ 1.
        gain: f of the rule.
    """
    c, dtype = squares.columns, solved.dtype
    x, column = _smallest(squares.inverse, solved)
    size = torch.linalg.vector_norm(squares.factor) * c**-0.5
    if not float(torch.linalg.vector_norm(column) * size) <= 1.0 / _SMALLEST[dtype]:  # NaN too
        return None
    # In float64, as numbers of the size τ/σ are taken out of U⁻¹, whose rounding would stay.
    master, precise, scale = squares.fold().master.clone(), x.double(), size.double()
    factor, transposed = master[:c], master[2 * c + 2 :]
    column = transposed.T @ precise
    y = _unit(column)
    kept, read = precise @ factor, transposed @ y  # xᵀU, yᵀU⁻¹
    taken = read - (torch.dot(read, precise) + 1.0 / scale) * precise
    factor.addr_(precise, scale * y - kept)
    transposed.addr_(precise, column, alpha=-1.0).addr_(taken, y, alpha=-1.0)
    made = Squares.of(master, dtype)
    rows = torch.addr(solved, solved @ x, x, alpha=-1.0).addr_(right @ y.to(dtype), taken.to(dtype), alpha=-gain)
    return Deflation(made, rows, x, _bend(made, (kept - scale * y).to(dtype)))


def deflate_rows(
    squares: Squares, solved: Tensor, right: Tensor, gain: float, gradient: OutputGradient, values: Tensor
) -> tuple[Deflation, kernels.Deflated] | None:
    """`deflate` by a kernel, with the target rows of V, ``values`` (n, c), for U', and what the step makes of them."""
    plan = gradient.read.plan
    parts = {
        "master": squares.master,
        "squares_added": squares.added,
        "solved": solved,
        "right": right,
        "values": values,
        "sparse": gradient.sparse,
        "class_offsets": plan.class_offsets,
        "by_class": plan.by_class,
        "examples_by_class": plan.examples_by_class,
    }
    made = kernels.deflate(parts, gain, _SMALLEST[torch.float32])
    if made is None:
        return None
    folded = Squares(made.master, made.base, torch.zeros_like(made.base), made.base)
    return Deflation(folded, made.solved, made.x, made.b), made


def withhold(
    weights: FactoredWeights, gradient: OutputGradient, rule: StepRule, squares: Squares, solved: Tensor
) -> Deflation | None:
    """Keep this step's most contracted direction out of U; None where the numbers are not finite.

    Args:
        weights, gradient, rule: of the step, with R = I.
        squares, solved: what the step made of them, folded only where p is not 1.
    """
    c, hidden, inverse_mix = squares.columns, gradient.read.hidden, rule.inverse()
    y = _unit(_smallest(squares.inverse, solved)[1])
    if inverse_mix is None or not math.isfinite(float(y.sum())):
        return None
    along = hidden @ y
    solution = solve(weights, gradient, rule, torch.addr(hidden, along, y, alpha=-1.0))
    assert solution is not None
    x = gradient.read.products[:, :c].T @ (gradient.curvature * along) * rule.gain[0]
    added = squares.added.clone()
    added[:c].addr_(x, y, alpha=-1.0)
    if rule.keeps:
        before = weights.squares.added[2 * c + 2 :]
    else:  # all has been folded
        before, master = added[2 * c + 2 :].clone(), squares.master.clone()
        master[2 * c + 2 :] = weights.squares.mixed(rule)[2 * c + 2 :]
        squares = Squares.of(master, solved.dtype)
    torch.addmm(before, solution.left.T, solution.right, alpha=-inverse_mix[0][0], out=added[2 * c + 2 :])
    made = squares.with_added(added)
    b = _bend(made, y)
    return Deflation(made, torch.addr(solution.rows, along, b, alpha=rule.gain[0]), x, b)


def _bend(made: Squares, taken: Tensor) -> Tensor:
    """(c,) bᵀ = takenᵀ·U'⁻¹, where U' + x·takenᵀ = U; all rows get it, so U'⁻¹ is not taken at its word.

    One step of refinement with the residual in float64: the error is that of UU⁻¹, squared.
    """
    c = made.columns
    factor = made.master[:c] + made.added[:c]
    first = (taken @ made.inverse).double()
    residual = torch.sub(taken.double(), first @ factor).to(taken.dtype)
    bend: Tensor = (first + (residual @ made.inverse).double()).to(taken.dtype)
    return bend


def _smallest(inverse: Tensor, solved: Tensor) -> tuple[Tensor, Tensor]:
    """x (c,), nearly U's left singular vector of the smallest singular value, and U⁻¹x.

    Rows of C that are large lie along x. From the largest of them one iteration with U⁻¹ is enough, as the other
    singular values are much larger. U⁻¹ may be inexact: the residual of Uy is that of UU⁻¹x, times σ.
    """
    lengths = torch.linalg.vector_norm(solved, dim=1)
    x = solved.index_select(0, lengths.argmax(0, keepdim=True)).squeeze(0)
    x = _unit(_unit(inverse @ x) @ inverse)
    return x, inverse @ x


def _unit(vector: Tensor) -> Tensor:
    unit: Tensor = vector / torch.linalg.vector_norm(vector)
    return unit
