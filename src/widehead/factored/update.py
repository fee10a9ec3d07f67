"""The exact step X ← X(p⊗I) + TᵀHR(f⊗I) in O(d²) an example, without forming T (m × D) or W (D × d).

Letters (docs/method.md): X = V·U + 1ωᵀ, whose rows are w, or (w, m) where momentum is kept; Q = XᵀX, x̄ = Xᵀ1,
T = ΛO + σ1ᵀ + S, Hr = HR; p (order × order) and f (order) are the plain numbers of a `StepRule`. For SGD p = 1,
f = −η, and the step is W ← W − ηTᵀH.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from widehead.errors import NonFiniteError
from widehead.factored.gradient import OutputGradient
from widehead.factored.rule import StepRule
from widehead.factored.weights import FactoredWeights, Squares

__all__ = ["Change", "apply_step", "plan_step"]

# A segment is closed when one of these is passed (κ_F = ‖U‖_F ‖U⁻¹‖_F / d alone hides one
# strongly contracted direction among many, and W's error in float32 was ten times larger with it alone):
# amplification max_b ‖C_b‖ / ‖(Hr)_b‖ · ‖U‖_F / √d, by which rounding errors of the rows written now are magnified;
_AMPLIFICATION_LIMIT = {torch.float32: 8.0, torch.float64: 64.0}
# κ_F, which bounds it for the hidden layers to come; and the drift ‖UU⁻¹x − x‖ / ‖x‖ of the inverse.
_CONDITION_LIMIT = {torch.float32: 30.0, torch.float64: 1000.0}
_DRIFT_LIMIT = {torch.float32: 1e-5, torch.float64: 1e-13}
# U alone may also become small or large (weight decay, momentum that runs out) with κ_F as it was.
_SMALLEST_SCALE, _LARGEST_SCALE = 1e-10, 1e4


@dataclass
class Change:
    """All new values of a step, computed before any is written, so that a failed step changes nothing."""

    version: int  # of the weights it was planned for
    class_ids: Tensor  # (n,) target classes
    rows: Tensor  # (n, order·d) their new rows of V
    factor: Squares
    inverse: Squares | None  # None: the segment has to be closed with this step
    basis: float  # of the segment that begins where this one is closed
    shift: Squares
    gram: Squares
    column_sum: Squares


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
    gram_right = gradient.gram_times(weights, right) if gram_right is None else gram_right
    change = _plan(weights, gradient, rule, right, gram_right)
    _check_finite(change, gradient)
    return change


def apply_step(weights: FactoredWeights, change: Change) -> None:
    """Write a planned step: the only place where W changes, and Q, w̄, U and U⁻¹ with it. Then sweep a few rows."""
    assert weights.version == change.version, "a step was planned for other weights"
    weights.factor, weights.shift = change.factor, change.shift
    weights.gram, weights.column_sum = change.gram, change.column_sum
    weights.segment_steps += 1
    weights.steps += 1
    if change.inverse is None:
        weights.close_segment(change.basis)
    else:
        weights.inverse = change.inverse
    generations = weights.generations
    weights.rows.write(change.class_ids, change.rows)
    generations.stamps.index_fill_(0, change.class_ids, generations.newest)
    weights.version += 1
    generations.sweep(weights.rows, generations.rows_due(change.class_ids.numel()))
    weights.absorb_rounding()


def _plan(
    weights: FactoredWeights, gradient: OutputGradient, rule: StepRule, right: Tensor, gram_right: Tensor
) -> Change:
    read, d, dtype = gradient.read, weights.width, weights.dtype
    dense_outputs = gradient.curvature * read.hidden_shift + gradient.constant
    shift = _advanced(weights.shift.master, rule, dense_outputs @ right)
    column_sum = _advanced(weights.column_sum.master, rule, gradient.total(weights) @ right)
    gram = _new_gram(weights, gradient, rule, right, gram_right)
    factor, inverse, solved = _new_factors(weights, gradient, rule, right)
    new_factor = Squares.of(factor, dtype)
    new_inverse = None if inverse is None else Squares.of(inverse, dtype)
    if new_inverse is None or not _well_conditioned(new_factor, new_inverse, solved, right, rule):
        # The dense part first, close, then the sparse part at the beginning of a segment, where no inverse is needed.
        new_inverse = None
        rows = read.values @ new_factor.value
        added = read.plan.transposed_times(gradient.sparse, right)
        for block, gain in zip(rows.split(d, dim=1), rule.gain, strict=True):
            block.add_(added, alpha=gain)
        if rule.order == 2:
            rows[:, :d].add_(rows[:, d:], alpha=rule.basis())
    else:
        rows = read.values + read.plan.transposed_times(gradient.sparse, solved)
    return Change(
        version=weights.version,
        class_ids=read.plan.class_ids,
        rows=rows,
        factor=new_factor,
        inverse=new_inverse,
        basis=rule.basis(),
        shift=Squares.of(shift, dtype),
        gram=Squares.of(gram, dtype),
        column_sum=Squares.of(column_sum, dtype),
    )


def _new_gram(
    weights: FactoredWeights, gradient: OutputGradient, rule: StepRule, right: Tensor, gram_right: Tensor
) -> Tensor:
    """Q ← (p⊗I)ᵀQ(p⊗I) + (Hr f̂)ᵀZ + Zᵀ(Hr f̂) with f̂ = f⊗I and Z = TX(p⊗I) + ½ TTᵀHr f̂ (m × order·d)."""
    read = gradient.by_hidden
    if rule.order == 2:
        read = torch.cat([read, gradient.by_momentum(weights)], dim=1)
    z = _mixed(read, rule.mix)
    z = z + torch.cat([gram_right * (0.5 * gain) for gain in rule.gain], dim=1)
    half = right.T @ z
    added = torch.cat([half * gain for gain in rule.gain])
    transposed = tuple(zip(*rule.mix, strict=True))
    kept = _mixed_rows(_mixed(weights.gram.master, rule.mix), transposed, weights.width)
    return kept + (added + added.T)


def _new_factors(
    weights: FactoredWeights, gradient: OutputGradient, rule: StepRule, right: Tensor
) -> tuple[Tensor, Tensor | None, Tensor]:
    """New U and U⁻¹ (float64) and C = Hr f̂ U_new⁻¹, by m × m systems where m ≤ d and d × d ones otherwise.

    U ← UP with P = p̂ + E HᵀΛHr f̂, p̂ = p⊗I, f̂ = f⊗I, E = (I, 0)ᵀ the columns of W. With φ = fp⁻¹ and κ = φ₁,
    Woodbury and the push-through identity give C = (I + κHrHᵀΛ)⁻¹ Hr(φ⊗I)U⁻¹ and U⁻¹ ← p̂⁻¹(U⁻¹ − EHᵀΛC). Where P is
    singular the results are infinite or NaN, which the caller meets as ill conditioned; U⁻¹ is None where p is.
    """
    hidden, lam, d = gradient.read.hidden, gradient.curvature, weights.width
    scaled = lam[:, None] * hidden  # ΛH
    dense = (lam[:, None] * gradient.read.hidden_factor).T @ right  # U_w HᵀΛHr
    factor = _advanced(weights.factor.master, rule, dense)
    mix_inverse = rule.inverse()
    if mix_inverse is None:
        return factor, None, right
    phi = tuple(sum(g * row[j] for g, row in zip(rule.gain, mix_inverse, strict=True)) for j in range(rule.order))
    leading = _combined(weights.inverse.value.split(d), phi)  # (φ⊗I)U⁻¹, d × order·d
    solved, removed = _solve(hidden, right, scaled, leading, phi[0])
    inverse = weights.inverse.master.clone()
    inverse[:d] -= removed
    return factor, _mixed_rows(inverse, mix_inverse, d), solved


def _solve(hidden: Tensor, right: Tensor, scaled: Tensor, leading: Tensor, kappa: float) -> tuple[Tensor, Tensor]:
    """C (m × order·d) and HᵀΛC (d × order·d)."""
    m, d = hidden.shape
    if kappa == 0.0:  # heavy-ball: W is back from M alone
        solved = right @ leading
    elif m <= d:
        system = torch.eye(m, dtype=hidden.dtype, device=hidden.device).addmm_(right, scaled.T, alpha=kappa)
        # An inverse and a product take half the time of a solve with d right-hand sides, and where the system is so
        # ill conditioned that it matters, the step does without.
        solved = torch.linalg.inv_ex(system).inverse @ (right @ leading)
    else:
        curvature = scaled.T @ right  # HᵀΛHr
        system = torch.eye(d, dtype=hidden.dtype, device=hidden.device).add_(curvature, alpha=kappa)
        inner = torch.linalg.inv_ex(system).inverse @ leading
        return right @ inner, curvature @ inner
    return solved, scaled.T @ solved


def _advanced(master: Tensor, rule: StepRule, added: Tensor) -> Tensor:
    """master·(p⊗I) + added·(f⊗I), for a float64 vector or matrix whose last dimension has ``order`` blocks."""
    if rule.order == 1:
        return torch.add(_mixed(master, rule.mix), added, alpha=rule.gain[0])
    return _mixed(master, rule.mix) + torch.cat([added * gain for gain in rule.gain], dim=-1)


def _mixed(matrix: Tensor, mix: tuple[tuple[float, ...], ...]) -> Tensor:
    """matrix·(mix⊗I)."""
    if len(mix) == 1:
        return matrix if mix[0][0] == 1.0 else matrix * mix[0][0]
    blocks = matrix.chunk(len(mix), dim=-1)
    return torch.cat([_combined(blocks, tuple(row[j] for row in mix)) for j in range(len(mix))], dim=-1)


def _mixed_rows(matrix: Tensor, mix: tuple[tuple[float, ...], ...], d: int) -> Tensor:
    """(mix⊗I)·matrix."""
    if len(mix) == 1:
        return matrix if mix[0][0] == 1.0 else matrix * mix[0][0]
    return torch.cat([_combined(matrix.split(d), row) for row in mix])


def _combined(blocks: tuple[Tensor, ...], numbers: tuple[float, ...]) -> Tensor:
    """Σ_j numbers_j · blocks_j."""
    out = blocks[0] * numbers[0]
    for block, number in zip(blocks[1:], numbers[1:], strict=True):
        if number != 0.0:
            out.add_(block, alpha=number)
    return out


def _well_conditioned(factor: Squares, inverse: Squares, solved: Tensor, right: Tensor, rule: StepRule) -> bool:
    """Whether rows can go on in this segment: see the limits above.

    Norms are taken block by block, because the blocks of (w, m) have different units and those of V shrink at
    different rates; a scale that a whole block of V has is no matter of conditioning.
    """
    k, dtype = rule.order, factor.value.dtype
    d = factor.value.shape[0] // k
    sizes = _block_norms(factor.value, d) / d**0.5  # (k, k)
    inverse_sizes = _block_norms(inverse.value, d) / d**0.5
    condition = torch.diagonal(inverse_sizes @ sizes).max()
    lengths = torch.linalg.vector_norm(right, dim=1).clamp_min(torch.finfo(dtype).tiny)
    growth = torch.linalg.vector_norm(solved.view(-1, k, d), dim=2) / lengths[:, None]
    amplification = growth @ sizes / _natural_gain(rule, growth)
    good = condition <= _CONDITION_LIMIT[dtype]
    if amplification.numel():
        good &= amplification.max() <= _AMPLIFICATION_LIMIT[dtype]
    scales = torch.diagonal(sizes)
    good &= (scales.max() < _LARGEST_SCALE) & (scales.min() > _SMALLEST_SCALE)
    return bool(good & (_drift(factor, inverse, d) <= _DRIFT_LIMIT[dtype]))


def _natural_gain(rule: StepRule, like: Tensor) -> Tensor:
    """(order,) the size that rows' changes have at the beginning of a segment, per unit of the gradient."""
    if rule.order == 1:
        return like.new_tensor([abs(rule.gain[0])]).clamp_min(torch.finfo(like.dtype).tiny)
    settled = abs(rule.gain[0] + rule.basis() * rule.gain[1])
    sizes = (settled + abs(rule.basis() * rule.gain[1]), abs(rule.gain[1]))
    return like.new_tensor(sizes).clamp_min(torch.finfo(like.dtype).tiny)


def _block_norms(matrix: Tensor, d: int) -> Tensor:
    """(order, order) Frobenius norms of the d × d blocks."""
    k = matrix.shape[0] // d
    norms: Tensor = torch.linalg.vector_norm(matrix.view(k, d, k, d), dim=(1, 3))
    return norms


def _drift(factor: Squares, inverse: Squares, d: int) -> Tensor:
    """() ‖UU⁻¹x − x‖ for x of length 1 in each block of V in turn, seen in that block; the largest."""
    probe = _probe(d, factor.master.device)
    found = [
        torch.linalg.vector_norm(rows @ (columns @ probe) - probe)
        for rows, columns in zip(factor.master.split(d), inverse.master.split(d, dim=1), strict=True)
    ]
    return torch.stack(found).max()


@cache
def _probe(d: int, device: torch.device) -> Tensor:
    """(d,) a fixed vector of length 1 with no preferred direction."""
    vector = torch.cos(1.7 * torch.arange(1.0, d + 1.0, dtype=torch.float64, device=device))
    unit: Tensor = vector / torch.linalg.vector_norm(vector)
    return unit


def _check_finite(change: Change, gradient: OutputGradient) -> None:
    parts = (change.factor.value, change.rows, change.shift.value, change.gram.value, change.column_sum.value)
    if bool(torch.isfinite(torch.stack([part.sum() for part in parts])).all()):  # a sum meets every NaN and infinity
        return
    named = {
        "the hidden layer": gradient.read.hidden,
        "the loss's derivative by q": gradient.curvature,
        "the loss's derivative by s": gradient.constant,
        "the loss's derivative by the targets' outputs": gradient.sparse,
    }
    found = [name for name, part in named.items() if not bool(torch.isfinite(part).all())]
    cause = " and ".join(found) if found else "the updated weights (the lr is too large)"
    raise NonFiniteError(f"A step should be finite. Found NaN or infinity in {cause}. The weights are unchanged.")
