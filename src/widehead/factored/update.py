"""The exact step X ← X(p⊗I) + TᵀHR(f⊗I) in O(d²) an example, without forming T (m × D) or W (D × d).

Letters (docs/notation.md): X = V·U + 1ωᵀ, whose rows are w, or (w, m) where momentum is kept; Q = XᵀX, x̄ = Xᵀ1,
T = ΛO + σ1ᵀ + S, Hr = HR; p (order × order) and f (order) are the plain numbers of a `StepRule`. For SGD p = 1,
f = −η, and the step is W ← W − ηTᵀH.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from widehead import kernels
from widehead.errors import NonFiniteError
from widehead.factored.conditioning import judge, judge_figures
from widehead.factored.deflation import Deflation, deflate, deflate_rows, withhold
from widehead.factored.gradient import OutputGradient
from widehead.factored.rule import StepRule
from widehead.factored.solve import Solution, solve
from widehead.factored.squares import Squares, mix_blocks
from widehead.factored.weights import FactoredWeights

__all__ = ["Change", "apply_step", "plan_step"]

_MOST_BENDS = 2  # in one step; where they do not help, the segment is closed
_TINY_GAIN = 1e-30  # a smaller f is not divided by


@dataclass
class Change:
    """All new values of a step, computed before any is written, so that a failed step changes nothing."""

    version: int  # of the weights it was planned for
    class_ids: Tensor  # (n,) target classes
    rows: Tensor  # (n, order·d) their new rows of V
    squares: Squares
    closes: bool  # the segment, with this step
    basis: float  # of the segment that begins where this one is closed
    bends: tuple[Deflation, ...] = ()  # V ← V(I + x·bᵀ) for each, with this step


def plan_step(
    weights: FactoredWeights,
    gradient: OutputGradient,
    rule: StepRule,
    right: Tensor | None = None,
    gram_right: Tensor | None = None,
) -> Change:
    """Compute a step without writing anything; `apply_step` writes it.

    Args:
        weights: the record, of the rule's order; must be as it was when ``gradient`` was made.
        gradient: T by its factors.
        rule: what becomes of W (and M) and the gradient.
        right: (m, d) HR for a symmetric positive definite R (d, d), or None for R = I.
        gram_right: (m, d) TTᵀHR, where it is known already.

    Raises:
        NonFiniteError: something in the step is NaN or infinite.
    """
    assert weights.order == rule.order, "the record should keep momentum exactly where the rule has it"
    largest = torch.finfo(weights.dtype).max ** 0.5  # squares enter the step
    if not rule.is_finite or max(abs(gain) for gain in rule.gain) >= largest:
        raise NonFiniteError(
            f"A step should be finite. Found lr = {abs(rule.gain[0])}, which is too large. The weights are unchanged."
        )
    right = gradient.read.hidden if right is None else right
    ids, basis, folds = gradient.read.plan.class_ids, rule.basis(), _folds(weights, rule)
    squares, solved, rows, figures = _numbers(weights, gradient, rule, right, gram_right)
    if solved is not None and rows is not None:
        made = squares.fold() if folds else squares
        if _is_sound(made, rows, solved, right, rule, folds, figures):
            return Change(weights.version, ids, rows, made, closes=False, basis=basis)
        change = bent(weights, gradient, rule, right, squares, solved)
        if change is not None:
            return change
    rows = _rows_at_close(weights, gradient, rule, right, squares)
    _check_finite(squares, rows, gradient)
    return Change(weights.version, ids, rows, squares, closes=True, basis=basis)


def _numbers(
    weights: FactoredWeights, gradient: OutputGradient, rule: StepRule, right: Tensor, gram_right: Tensor | None
) -> tuple[Squares, Tensor | None, Tensor | None, tuple[float, ...] | None]:
    """New squares, C and new target rows in the open segment, None where there is no C, and figures of a kernel."""
    quick = _by_kernel(weights, gradient, rule, right) if gram_right is None else None
    if quick is not None:
        squares = Squares(weights.squares.master, weights.squares.base, quick.added, quick.value)
        return squares, quick.solved, quick.rows, quick.figures
    gram_right = gradient.gram_times(weights, right) if gram_right is None else gram_right
    solution = solve(weights, gradient, rule, right)
    squares = _new_squares(weights, gradient, rule, right, gram_right, solution)
    if solution is None:
        return squares, None, None, None
    return squares, solution.rows, _rows_in_segment(gradient, solution.rows), None


def _by_kernel(
    weights: FactoredWeights, gradient: OutputGradient, rule: StepRule, right: Tensor
) -> kernels.StepOutputs | None:
    """The step's numbers all at once, where there is a kernel for it."""
    read, plan, squares = gradient.read, gradient.read.plan, weights.squares
    if not (rule.keeps and _has_kernel(weights, right)):
        return None
    parts = {
        "hidden": read.hidden,
        "right": right,
        "curvature": gradient.curvature,
        "constant": gradient.constant,
        "sparse": gradient.sparse,
        "offsets": plan.offsets,
        "positions": plan.positions,
        "class_offsets": plan.class_offsets,
        "by_class": plan.by_class,
        "examples_by_class": plan.examples_by_class,
        "products": read.products,
        "left": gradient.left,
        "others": gradient.others,
        "by_hidden": gradient.by_hidden,
        "values": read.values,
        "squares_base": squares.base,
        "squares_added": squares.added,
        "inverse_rows": squares.value[2 * squares.columns + 2 :],
    }
    return kernels.step(parts, weights.num_classes, rule.gain[0])


def _has_kernel(weights: FactoredWeights, right: Tensor) -> bool:
    return weights.rows.is_resident and kernels.applies(right, weights.values)


def _rows_in_segment(gradient: OutputGradient, solved: Tensor, values: Tensor | None = None) -> Tensor:
    """(n, order·d) V + SᵀC: new target rows in the open segment."""
    values = gradient.read.values if values is None else values
    return gradient.read.plan.transposed_times(gradient.sparse, solved).add_(values)


def apply_step(weights: FactoredWeights, change: Change) -> None:
    """Write a planned step: the only place where W changes, and Q, w̄, U and U⁻¹ with it. Then sweep a few rows."""
    assert weights.version == change.version, "a step was planned for other weights"
    weights.squares = change.squares
    weights.segment_steps += 1
    weights.steps += 1
    if change.closes:
        weights.close_segment(change.basis)
    for bend in change.bends:
        weights.bend_segment(bend.x, bend.b)
    weights.generations.write(weights.rows, change.class_ids, change.rows)
    weights.version += 1
    weights.generations.upkeep(weights.rows, change.class_ids.numel())
    weights.absorb_rounding()


def _folds(weights: FactoredWeights, rule: StepRule) -> bool:
    """Whether what was added joins the float64 sums with this step; where p is not 1 these are rewritten anyway."""
    return weights.squares.is_due(weights.steps + 1) or not rule.keeps


def bent(
    weights: FactoredWeights,
    gradient: OutputGradient,
    rule: StepRule,
    right: Tensor,
    squares: Squares,
    solved: Tensor,
) -> Change | None:
    """The step in well-conditioned numbers, where few directions are at fault, and that is cheap to see to."""
    # What rounding of rows does to Q is told in the basis of one boundary, which a bend would change half way.
    if rule.order == 2 or not right.numel() or weights.rows.is_narrow:
        return None
    bends: list[Deflation] = []
    values, quick = gradient.read.values, _has_kernel(weights, right)
    while len(bends) < _MOST_BENDS:
        found = _deflated(gradient, rule, right, squares, solved, values, quick)
        if found is None and not bends and right is gradient.read.hidden:
            bend = withhold(weights, gradient, rule, squares, solved)
            found = None if bend is None else _with_rows(gradient, bend, values)
        if found is None:
            return None
        bend, values, rows, figures = found
        bends.append(bend)
        squares, solved = bend.squares, bend.solved
        made = squares.fold() if _folds(weights, rule) else squares
        if _is_sound(made, rows, solved, right, rule, _folds(weights, rule), figures):
            ids = gradient.read.plan.class_ids
            return Change(weights.version, ids, rows, made, closes=False, basis=0.0, bends=tuple(bends))
    return None


_Bent = tuple[Deflation, Tensor, Tensor, tuple[float, ...] | None]  # with target rows before and after, and figures


def _deflated(
    gradient: OutputGradient,
    rule: StepRule,
    right: Tensor,
    squares: Squares,
    solved: Tensor,
    values: Tensor,
    quick: bool,
) -> _Bent | None:
    if quick:
        found = deflate_rows(squares, solved, right, rule.gain[0], gradient, values)
        return None if found is None else (found[0], found[1].values, found[1].rows, found[1].figures)
    bend = deflate(squares, solved, right, rule.gain[0])
    return None if bend is None else _with_rows(gradient, bend, values)


def _with_rows(gradient: OutputGradient, bend: Deflation, values: Tensor) -> _Bent:
    values = torch.addr(values, values @ bend.x, bend.b)
    return bend, values, _rows_in_segment(gradient, bend.solved, values), None


def _is_sound(
    squares: Squares,
    rows: Tensor,
    solved: Tensor,
    right: Tensor,
    rule: StepRule,
    probe: bool,
    figures: tuple[float, ...] | None,
) -> bool:
    """`judge`, from the figures of a kernel where there are some and no probe is asked for."""
    if figures is None or probe:
        return judge(squares, rows, solved, right, rule, probe)
    return judge_figures(figures, rule, squares.columns)


def _rows_at_close(
    weights: FactoredWeights, gradient: OutputGradient, rule: StepRule, right: Tensor, squares: Squares
) -> Tensor:
    """(n, order·d) new target rows where the segment is closed with this step.

    The dense part first, close, then the sparse part at the beginning of a segment, where no inverse is needed.
    """
    d, read = weights.width, gradient.read
    rows = read.values @ squares.factor
    added = read.plan.transposed_times(gradient.sparse, right)
    for block, gain in zip(rows.split(d, dim=1), rule.gain, strict=True):
        block.add_(added, alpha=gain)
    if rule.order == 2:
        rows[:, :d].add_(rows[:, d:], alpha=rule.basis())
    return rows


def _new_squares(
    weights: FactoredWeights,
    gradient: OutputGradient,
    rule: StepRule,
    right: Tensor,
    gram_right: Tensor,
    solution: Solution | None,
) -> Squares:
    """U ← U(p⊗I) + U_wHᵀΛHr f̂, with ω, x̄ and Q likewise (`_fill_dense_part`), and U⁻¹ ← p̂⁻¹(U⁻¹ − EHᵀΛC); f̂ = f⊗I.

    E = (I, 0)ᵀ are the columns of W. Each is a product with Hr or H; for plain SGD all are one product.
    """
    squares = weights.squares
    old, c, d = squares.added, squares.columns, weights.width
    left = right.new_empty(right.shape[0], 3 * c + 2)
    dense = left[:, : 2 * c + 2]
    _fill_dense_part(dense, weights, gradient, rule, gram_right)
    inverse = rule.inverse()
    plain = rule.keeps and abs(rule.gain[0]) > _TINY_GAIN
    if plain and solution is not None and inverse is not None and solution.right is right:
        torch.mul(solution.left, -inverse[0][0] / rule.gain[0], out=left[:, 2 * c + 2 :])
        return squares.with_added(torch.addmm(old, left.T, right, alpha=rule.gain[0]))
    added = old.clone() if rule.keeps else torch.zeros_like(old)
    if solution is not None and solution.curvature is not None:  # the d × d form of U_wHᵀΛHr, as m > d
        _add_product(added[:c], weights.squares.factor[:, :d], solution.curvature, rule.gain)
        _add_product(added[c : 2 * c + 2], dense[:, c:].T, right, rule.gain)
    else:
        _add_product(added[: 2 * c + 2], dense.T, right, rule.gain)
    if solution is not None and inverse is not None:
        _add_product(added[2 * c + 2 :], solution.left.T, solution.right, tuple(-row[0] for row in inverse))
    return squares.advanced(rule, added)


def _add_product(out: Tensor, left: Tensor, right: Tensor, numbers: tuple[float, ...]) -> None:
    """out += left·right·(numbers⊗I)ᵀ: one block of d columns for each number."""
    if len(numbers) == 1:
        out.addmm_(left, right, alpha=numbers[0])
        return
    for block, number in zip(out.split(right.shape[1], dim=1), numbers, strict=True):
        if number != 0.0:
            block.addmm_(left, right, alpha=number)


def _fill_dense_part(
    out: Tensor, weights: FactoredWeights, gradient: OutputGradient, rule: StepRule, gram_right: Tensor
) -> None:
    """(m, 2c + 2) what Hr is multiplied with from the left, for U, ω, x̄ and Q: ΛHU_wᵀ, ΛHω + σ, T1 and Z.

    Q ← (p⊗I)ᵀQ(p⊗I) + (Hr f̂)ᵀZ + Zᵀ(Hr f̂) with Z = TX(p⊗I) + ½ TTᵀHr f̂, (m, c).
    """
    read, c = gradient.read, weights.squares.columns
    torch.mul(read.products[:, : c + 2], gradient.curvature[:, None], out=out[:, : c + 2])
    if gradient.constant is not None:
        out[:, c] += gradient.constant
    out[:, c + 1] += gradient.constant_sums(weights)
    if rule.keeps:
        torch.add(gradient.by_hidden, gram_right, alpha=0.5 * rule.gain[0], out=out[:, c + 2 :])
        return
    by_rows = [gradient.by_hidden] if rule.order == 1 else [gradient.by_hidden, gradient.by_momentum(weights)]
    mix_blocks(torch.cat(by_rows, dim=1), rule.mix, 1, out[:, c + 2 :])
    for block, gain in zip(out[:, c + 2 :].split(weights.width, dim=1), rule.gain, strict=True):
        block.add_(gram_right, alpha=0.5 * gain)


def _check_finite(squares: Squares, rows: Tensor, gradient: OutputGradient) -> None:
    known = squares.value[: 2 * squares.columns + 2]  # without U⁻¹, which a closed segment has no use for
    if bool(torch.isfinite(known.sum() + rows.sum())):  # a sum meets every NaN and infinity
        return
    named = {
        "the hidden layer": gradient.read.hidden,
        "the loss's derivative by q": gradient.curvature,
        "the loss's derivative by s": gradient.constant,
        "the loss's derivative by the targets' outputs": gradient.sparse,
    }
    found = [name for name, part in named.items() if part is not None and not bool(torch.isfinite(part).all())]
    cause = " and ".join(found) if found else "the updated weights (the lr is too large)"
    raise NonFiniteError(f"A step should be finite. Found NaN or infinity in {cause}. The weights are unchanged.")
