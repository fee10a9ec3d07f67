"""The numbers of the exact step X ← X(p⊗I) + TᵀHR(f⊗I) in O(d²) an example, without T (m × D) or W (D × d).

Letters (docs/notation.md): X = V·U + 1ωᵀ, whose rows are w, or (w, m) if momentum is kept; Q = XᵀX, x̄ = Xᵀ1,
T = ΛO + σ1ᵀ + S, Hr = HR; p (order × order) and f (order) are the plain numbers of a `StepRule`. For SGD p = 1,
f = −η, and the step is W ← W − ηTᵀH.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from widehead.arithmetic.gradient import OutputGradient
from widehead.arithmetic.small_state import SmallState, mix_blocks
from widehead.arithmetic.solve import Solution, solve
from widehead.arithmetic.step_rule import StepRule
from widehead.arithmetic.sums import ExampleSums, times_rows
from widehead.arithmetic.target_plan import TargetPlan

_TINY_GAIN = 1e-30  # a smaller f is not divided by


class Figures(NamedTuple):
    """What tells how sound the numbers of a step are (`versions.conditioning`).

    Norms are taken block by block, because the blocks of (w, m) have different units and those of V shrink at
    different rates; a scale that a whole block of V has is no matter of conditioning.

    Attributes:
        factor, inverse: (order²,) Frobenius norms of the d × d blocks of U and U⁻¹, divided by √d.
        growth: (order,) max ‖C_b‖ / ‖(HR)_b‖, by the blocks of C.
        sums: of ω, x̄ and Q, and of the new rows: a sum meets every NaN and infinity. Of `RowSums` there is a bound,
            which does so too.
        contraction: mean of 1/σ − 1 over the directions of the step, for σ what it leaves of each.
    """

    factor: tuple[float, ...]
    inverse: tuple[float, ...]
    growth: tuple[float, ...]
    sums: tuple[float, float]
    contraction: float


@dataclass(frozen=True)
class RowSums:
    """(n, c) V + SᵀC: new target rows that are made as they are written, so that nothing of their size stands between.

    Attributes:
        plan: the targets, n classes; ``sparse`` (nnz,): their g.
        solved: (m, c) C.
        values: (n, c) the rows of V.
    """

    plan: TargetPlan
    sparse: Tensor
    solved: Tensor
    values: Tensor

    def made(self) -> Tensor:
        """(n, c) their numbers."""
        return self.plan.transposed_times(self.sparse, self.solved, self.values)


class StepMade(NamedTuple):
    """New numbers of a step.

    Attributes:
        small: the new small state.
        solved: (m, order·d) C, by which target rows are written; None if p is singular, so that no U⁻¹ is possible.
        rows: (n, order·d) new target rows of V in the open segment, or what makes them; None without C.
        figures: how sound they are, None without C.
    """

    small: SmallState
    solved: Tensor | None
    rows: Tensor | RowSums | None
    figures: Figures | None


def step(
    gradient: OutputGradient,
    rule: StepRule,
    small: SmallState,
    hr: Tensor,
    gram_hr: Tensor | None,
    sums: ExampleSums | None = None,
) -> StepMade:
    """See `Arithmetic.step`; ``sums`` if they are known."""
    if len(hr) > hr.shape[1]:
        if sums is None:
            sums = gradient.read.arithmetic.sums(gradient, small, hr, named=gram_hr is None)
        solution = solve(gradient, rule, small, hr, sums.curvature)
        made = _state_by_columns(gradient, rule, small, hr, sums, gram_hr, solution)
    else:
        gram_hr = gradient.gram_times(hr) if gram_hr is None else gram_hr
        solution = solve(gradient, rule, small, hr)
        made = _state_by_examples(gradient, rule, small, hr, gram_hr, solution)
    if solution is None:
        return StepMade(made, None, None, None)
    rows = rows_in_segment(gradient, solution.rows)
    figures = figures_of(made, rows, solution.rows, hr, rule.order, solution.contraction)
    return StepMade(made, solution.rows, rows, figures)


def rows_in_segment(gradient: OutputGradient, solved: Tensor, values: Tensor | None = None) -> Tensor:
    """(n, order·d) V + SᵀC: new target rows in the open segment."""
    values = gradient.read.values if values is None else values
    return gradient.read.by_rows(gradient.sparse, solved, values)


def figures_of(
    small: SmallState, rows: Tensor, solved: Tensor, hr: Tensor, order: int, contraction: Tensor | float
) -> Figures:
    """The figures of new numbers, which are read with one wait for the device."""
    k, c, tiny = order, small.columns, torch.finfo(solved.dtype).tiny
    growth = torch.linalg.vector_norm(solved.view(-1, k, c // k), dim=2)  # (m, k)
    growth = growth / torch.linalg.vector_norm(hr, dim=1).clamp_min_(tiny)[:, None]
    parts = [
        _block_norms(small.factor, k),
        _block_norms(small.value[2 * c + 2 :], k),
        growth.amax(0) if growth.numel() else growth.new_zeros(k),
        small.value[c : 2 * c + 2].sum()[None],
        rows.sum()[None],
        torch.as_tensor(contraction, dtype=solved.dtype, device=solved.device)[None],
    ]
    found = torch.cat(parts).tolist()
    factor, inverse, rest = found[: k * k], found[k * k : 2 * k * k], found[2 * k * k :]
    return Figures(tuple(factor), tuple(inverse), tuple(rest[:k]), (rest[k], rest[k + 1]), rest[k + 2])


def _block_norms(matrix: Tensor, k: int) -> Tensor:
    """(k²,) Frobenius norms of the d × d blocks of a (kd, kd) matrix, divided by √d."""
    d = matrix.shape[0] // k
    if k == 1:  # the same by a quicker way
        return torch.dot(matrix.view(-1), matrix.view(-1)).sqrt_().mul_(d**-0.5)[None]
    norms: Tensor = torch.linalg.vector_norm(matrix.view(k, d, k, d), dim=(1, 3)).flatten()
    return norms.mul_(d**-0.5)


def _state_by_examples(
    gradient: OutputGradient, rule: StepRule, small: SmallState, hr: Tensor, gram_hr: Tensor, solution: Solution | None
) -> SmallState:
    """U ← U(p⊗I) + U_wHᵀΛHr f̂, with ω, x̄ and Q likewise (`_fill_dense_part`), and U⁻¹ ← p̂⁻¹(U⁻¹ − EHᵀΛC); f̂ = f⊗I.

    E = (I, 0)ᵀ are the columns of W. Each is a product with Hr or H; for plain SGD all are one product.
    """
    old, c = small.added, small.columns
    left = hr.new_empty(hr.shape[0], 3 * c + 2)
    dense = left[:, : 2 * c + 2]
    _fill_dense_part(dense, gradient, rule, small, gram_hr)
    inverse = rule.inverse()
    plain = rule.keeps and abs(rule.gain[0]) > _TINY_GAIN
    if plain and solution is not None and inverse is not None and solution.right is hr:
        torch.mul(solution.left, -inverse[0][0] / rule.gain[0], out=left[:, 2 * c + 2 :])
        return small.with_added(torch.addmm(old, left.T, hr, alpha=rule.gain[0]))
    added = old.clone() if rule.keeps else torch.zeros_like(old)
    _add_product(added[: 2 * c + 2], dense.T, hr, rule.gain)
    return _with_inverse(small, rule, added, solution)


def _state_by_columns(
    gradient: OutputGradient,
    rule: StepRule,
    small: SmallState,
    hr: Tensor,
    sums: ExampleSums,
    gram_hr: Tensor | None,
    solution: Solution | None,
) -> SmallState:
    """The same from sums over the examples, which are more than d: products of d × d numbers are nearly all there is.

    ZᵀHr = (p⊗I)ᵀ(TX)ᵀHr + ½ f̂ᵀ HrᵀTTᵀHr.
    """
    old, c, d = small.added, small.columns, hr.shape[1]
    added = old.clone() if rule.keeps else torch.zeros_like(old)
    _add_product(added[:c], small.factor[:, :d], sums.curvature, rule.gain)
    by_rows, means = hr.new_empty(c + 2, d), hr.new_empty(len(hr), 2)
    _fill_means(means, gradient, c)
    torch.mm(means.T, hr, out=by_rows[:2])
    by_outputs = sums.by_outputs(small)
    square = sums.square(gradient, hr, by_outputs) if gram_hr is None else gram_hr.T @ hr
    mix_blocks(by_outputs, rule.mix, 0, by_rows[2:])
    for block, gain in zip(by_rows[2:].split(d), rule.gain, strict=True):
        block.add_(square, alpha=0.5 * gain)
    for block, number in zip(added[c : 2 * c + 2].split(d, dim=1), rule.gain, strict=True):
        block.add_(by_rows, alpha=number)
    return _with_inverse(small, rule, added, solution)


def _with_inverse(small: SmallState, rule: StepRule, added: Tensor, solution: Solution | None) -> SmallState:
    """``added`` with what U⁻¹ loses, in the small state."""
    inverse = rule.inverse()
    if solution is not None and inverse is not None:
        numbers = tuple(-row[0] for row in inverse)
        _add_product(added[2 * small.columns + 2 :], solution.left.T, solution.right, numbers)
    return small.advanced(rule, added)


def _fill_means(out: Tensor, gradient: OutputGradient, columns: int) -> None:
    """(m, 2) ΛHω + σ and T1: what Hr is multiplied with for ω and x̄."""
    products = gradient.read.products[:, columns : columns + 2]
    torch.mul(products, gradient.by_squared_norm[:, None], out=out)
    if gradient.constant is not None:
        out[:, 0] += gradient.constant
    out[:, 1] += gradient.constant_sums


def _add_product(out: Tensor, left: Tensor, right: Tensor, numbers: tuple[float, ...]) -> None:
    """out += left·right·(numbers⊗I)ᵀ: one block of d columns for each number."""
    if len(numbers) == 1:
        out.addmm_(left, right, alpha=numbers[0])
        return
    for block, number in zip(out.split(right.shape[1], dim=1), numbers, strict=True):
        if number != 0.0:
            block.addmm_(left, right, alpha=number)


def _fill_dense_part(out: Tensor, gradient: OutputGradient, rule: StepRule, small: SmallState, gram_hr: Tensor) -> None:
    """(m, 2c + 2) what Hr is multiplied with from the left, for U, ω, x̄ and Q: ΛHU_wᵀ, ΛHω + σ, T1 and Z.

    Q ← (p⊗I)ᵀQ(p⊗I) + (Hr f̂)ᵀZ + Zᵀ(Hr f̂) with Z = TX(p⊗I) + ½ TTᵀHr f̂, (m, c).
    """
    read, c, d = gradient.read, small.columns, gradient.read.hidden.shape[1]
    torch.mul(read.products[:, :c], gradient.by_squared_norm[:, None], out=out[:, :c])
    _fill_means(out[:, c : c + 2], gradient, c)
    if rule.keeps:
        torch.add(gradient.by_hidden, gram_hr, alpha=0.5 * rule.gain[0], out=out[:, c + 2 :])
        return
    mix_blocks(times_rows(gradient, small), rule.mix, 1, out[:, c + 2 :])
    for block, gain in zip(out[:, c + 2 :].split(d, dim=1), rule.gain, strict=True):
        block.add_(gram_hr, alpha=0.5 * gain)
