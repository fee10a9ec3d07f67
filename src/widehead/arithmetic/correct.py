"""Keep U well conditioned at O(c²), by a rank-one correction of V in the one direction that is contracted.

With steps near the largest stable one, a hidden layer with a dominant direction makes one singular value of U small and
leaves the others near 1. There are two ways to meet that without a new segment. In both V' = V(I + x·bᵀ) and V'U' = VU.

*correct*: U became ill conditioned over some steps. Let x be the left and y the right singular vector. With

    U' = (I − xxᵀ)U + τ·xyᵀ,    U'⁻¹ = (I − yyᵀ)U⁻¹(I − xxᵀ) + yxᵀ/τ,    bᵀ = (xᵀU − τyᵀ)U'⁻¹,

V'U' = VU whatever unit vector x is, and the formula for U'⁻¹ needs (I − xxᵀ)Uy = 0 alone. So neither vector has to
be exact.

*correct_before*: this step alone contracts y so much (P = p + fHᵀΛH is nearly singular) that U⁻¹ cannot be known. Then
U is given the step without that direction, and V the rest. With H̃ = H(I − yyᵀ)

    U' = U(p + fHᵀΛH̃),    x = f·UHᵀΛHy,    bᵀ = yᵀU'⁻¹,    C' = C̃ + f·Hy·bᵀ,

C̃ and U'⁻¹ come from the same system as ever with H̃ in the place of Hr, which is well conditioned: its eigenvalues
are those of P on the complement of y. This holds for any unit vector y, too.

Letters: U (c, c), C (m, c) the solution that target rows are written with, Hr (m, c), τ = ‖U‖_F/√c, f and p the numbers
of the rule. One block of columns only: with momentum, segments are closed instead.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from widehead.arithmetic.gradient import OutputGradient
from widehead.arithmetic.small_state import SmallState
from widehead.arithmetic.solve import solve
from widehead.arithmetic.step import Figures, StepMade, figures_of, rows_in_segment
from widehead.arithmetic.step_rule import StepRule


@dataclass(frozen=True)
class Corrected:
    """The numbers of a step for V' = V(I + x·bᵀ).

    Attributes:
        small, solved, rows, figures: as in `StepMade`, for V'.
        x, b: (c,).
        values: (n, c) the target rows of V' before the step.
    """

    small: SmallState
    solved: Tensor
    x: Tensor
    b: Tensor
    values: Tensor
    rows: Tensor
    figures: Figures


# U⁻¹ has errors of its entries' rounding over σ/τ, in every direction. At a 50th the error of W was two to three times
# that of closing segments, at a tenth no larger, but fewer steps could do without a new segment.
SMALLEST = {torch.float32: 0.07, torch.float64: 0.03}


def correct(
    gradient: OutputGradient, rule: StepRule, small: SmallState, solved: Tensor, hr: Tensor, values: Tensor
) -> Corrected | None:
    """See `Arithmetic.correct`."""
    c, dtype, gain = small.columns, solved.dtype, rule.gain[0]
    x, column = _smallest(small.inverse, solved)
    size = torch.linalg.vector_norm(small.factor) * c**-0.5
    if not float(torch.linalg.vector_norm(column) * size) <= 1.0 / SMALLEST[dtype]:  # NaN too
        return None
    # In float64, as numbers of the size τ/σ are taken out of U⁻¹, whose rounding would stay.
    master, precise, scale = small.flushed().master.clone(), x.double(), size.double()
    factor, transposed = master[:c], master[2 * c + 2 :]
    column = transposed.T @ precise
    y = _unit(column)
    kept, read = precise @ factor, transposed @ y  # xᵀU, yᵀU⁻¹
    taken = read - (torch.dot(read, precise) + 1.0 / scale) * precise
    factor.addr_(precise, scale * y - kept)
    transposed.addr_(precise, column, alpha=-1.0).addr_(taken, y, alpha=-1.0)
    made = SmallState.of(master, dtype)
    rows = torch.addr(solved, solved @ x, x, alpha=-1.0).addr_(hr @ y.to(dtype), taken.to(dtype), alpha=-gain)
    return _with_rows(gradient, made, rows, x, _row_factor(made, (kept - scale * y).to(dtype)), hr, values, 0.0)


def correct_before(gradient: OutputGradient, rule: StepRule, before: SmallState, made: StepMade) -> Corrected | None:
    """Keep this step's most contracted direction out of U; None if the numbers are not finite. R is I.

    Args:
        before: the small state before the step.
        made: what the step made of it, flushed only if p is not 1.
    """
    small, solved, read = made.small, made.solved, gradient.read
    assert solved is not None, "a step without C is no step to correct"
    c, hidden, inverse_mix = small.columns, read.hidden, rule.inverse()
    y = _unit(_smallest(small.inverse, solved)[1])
    if inverse_mix is None or not math.isfinite(float(y.sum())):
        return None
    along = hidden @ y
    solution = solve(gradient, rule, before, torch.addr(hidden, along, y, alpha=-1.0))
    assert solution is not None
    x = read.products[:, :c].T @ (gradient.by_squared_norm * along) * rule.gain[0]
    added = small.added.clone()
    added[:c].addr_(x, y, alpha=-1.0)
    if rule.keeps:
        inverse_before = before.added[2 * c + 2 :]
    else:  # all has been flushed
        inverse_before, master = added[2 * c + 2 :].clone(), small.master.clone()
        master[2 * c + 2 :] = before.mixed(rule)[2 * c + 2 :]
        small = SmallState.of(master, solved.dtype)
    torch.addmm(inverse_before, solution.left.T, solution.right, alpha=-inverse_mix[0][0], out=added[2 * c + 2 :])
    small = small.with_added(added)
    b = _row_factor(small, y)
    rows = torch.addr(solution.rows, along, b, alpha=rule.gain[0])
    return _with_rows(gradient, small, rows, x, b, hidden, read.values, solution.contraction)


def _with_rows(
    gradient: OutputGradient,
    small: SmallState,
    solved: Tensor,
    x: Tensor,
    b: Tensor,
    hr: Tensor,
    values: Tensor,
    contraction: Tensor | float,
) -> Corrected:
    """With the target rows ``values`` (n, c) of V brought to V', and what the step makes of them."""
    values = torch.addr(values, values @ x, b)
    rows = rows_in_segment(gradient, solved, values)
    return Corrected(small, solved, x, b, values, rows, figures_of(small, rows, solved, hr, 1, contraction))


def _row_factor(made: SmallState, taken: Tensor) -> Tensor:
    """(c,) bᵀ = takenᵀ·U'⁻¹ for U' + x·takenᵀ = U; all rows get it, so U'⁻¹ is not taken at its word.

    One step of refinement with the residual in float64: the error is that of UU⁻¹, squared.
    """
    factor = made.master[: made.columns] + made.added[: made.columns]
    first = (taken @ made.inverse).double()
    residual = torch.sub(taken.double(), first @ factor).to(taken.dtype)
    return (first + (residual @ made.inverse).double()).to(taken.dtype)


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
    return vector / torch.linalg.vector_norm(vector)
