"""The exact step W ← cW − η TᵀHR in O(d²) an example, without forming T (m × D) or W (D × d).

Letters (docs/method.md): W = V·U + 1ωᵀ, Q = WᵀW, w̄ = Wᵀ1, T = ΛO + σ1ᵀ + S, Hr = HR, η step size,
c = 1 − η·decay. A step with decay is the step with η/c followed by W ← cW.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from widehead.errors import NonFiniteError
from widehead.factored.gradient import OutputGradient
from widehead.factored.weights import FactoredWeights, Squares

__all__ = ["Change", "apply_step", "exact_step", "plan_step"]

# A segment is closed when one of these is passed (κ_F = ‖U‖_F ‖U⁻¹‖_F / d alone hides one
# strongly contracted direction among many, and W's error in float32 was ten times larger with it alone):
# amplification max_b ‖C_b‖ / ‖(Hr)_b‖ · ‖U‖_F / √d, by which rounding errors of the rows written now are magnified;
_AMPLIFICATION_LIMIT = {torch.float32: 8.0, torch.float64: 64.0}
# κ_F, which bounds it for the hidden layers to come; and the drift ‖UU⁻¹x − x‖ / ‖x‖ of the inverse.
_CONDITION_LIMIT = {torch.float32: 30.0, torch.float64: 1000.0}
_DRIFT_LIMIT = {torch.float32: 1e-5, torch.float64: 1e-13}
_SCALE_LIMIT = 1e4  # U alone may also become small or large (weight decay) with κ_F as it was


@dataclass
class Change:
    """All new values of a step, computed before any is written, so that a failed step changes nothing."""

    version: int  # of the weights it was planned for
    class_ids: Tensor  # (n,) target classes
    rows: Tensor  # (n, d) their new rows of V
    factor: Squares
    inverse: Squares | None  # None: the segment has to be closed with this step
    shift: Squares
    gram: Squares
    column_sum: Squares


def plan_step(
    weights: FactoredWeights,
    gradient: OutputGradient,
    lr: float,
    *,
    weight_decay: float = 0.0,
    preconditioner: Tensor | None = None,
) -> Change:
    """Compute W ← (1 − lr·weight_decay) W − lr TᵀHR without writing anything; `apply_step` writes it.

    Args:
        weights: the record; must be as it was when ``gradient`` was made.
        gradient: T by its factors.
        lr: η. weight_decay: coupled decay, as in torch.optim.SGD.
        preconditioner: R (d, d) symmetric positive definite, or None for the identity.

    Raises:
        NonFiniteError: something in the step is NaN or infinite.
        ValueError: lr · weight_decay is 1 or more, which would wipe W out.
    """
    keep = 1.0 - lr * weight_decay
    if keep <= 0.0:
        raise ValueError(f"lr * weight_decay should be below 1. Found {lr} * {weight_decay} = {lr * weight_decay}.")
    if not lr / keep < torch.finfo(weights.values.dtype).max ** 0.5:  # its square enters the step
        raise NonFiniteError(
            f"A step should be finite. Found lr = {lr}, which is too large. The weights are unchanged."
        )
    hidden = gradient.read.hidden
    right = hidden if preconditioner is None else hidden @ preconditioner
    change = _plan(weights, gradient, right, lr / keep, keep)
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
        weights.close_segment()
    else:
        weights.inverse = change.inverse
    generations = weights.generations
    weights.values.index_copy_(0, change.class_ids, change.rows)
    generations.stamps.index_fill_(0, change.class_ids, generations.newest)
    weights.version += 1
    generations.sweep(weights.values, generations.rows_due(change.class_ids.numel()))


def exact_step(weights: FactoredWeights, gradient: OutputGradient, lr: float, *, weight_decay: float = 0.0) -> None:
    """Plan and apply one plain step."""
    apply_step(weights, plan_step(weights, gradient, lr, weight_decay=weight_decay))


def _plan(weights: FactoredWeights, gradient: OutputGradient, right: Tensor, eta: float, keep: float) -> Change:
    read = gradient.read
    dtype = weights.values.dtype
    z = torch.add(eta * gradient.by_hidden, gradient.gram_times(weights, right), alpha=-0.5 * eta * eta)
    half = right.T @ z
    gram = weights.gram.master - (half + half.T)
    dense_outputs = gradient.curvature * read.hidden_shift + gradient.constant
    shift = weights.shift.master - eta * (dense_outputs @ right)
    column_sum = weights.column_sum.master - eta * (gradient.total(weights) @ right)

    factor, inverse, solved = _new_factors(weights, gradient, right, eta)
    if keep != 1.0:  # W ← cW
        factor, inverse, gram, shift, column_sum = (
            factor * keep,
            inverse / keep,
            gram * keep**2,
            shift * keep,
            column_sum * keep,
        )
    new_factor, new_inverse = Squares.of(factor, dtype), Squares.of(inverse, dtype)
    good = _well_conditioned(new_factor, new_inverse, solved, right)
    if good:
        rows = read.values - eta * read.plan.transposed_times(gradient.sparse, solved)
    else:  # the dense part first, close, then the sparse part at U = I, where no inverse is needed
        rows = read.values @ new_factor.value
        rows -= (eta * keep) * read.plan.transposed_times(gradient.sparse, right)
    return Change(
        version=weights.version,
        class_ids=read.plan.class_ids,
        rows=rows,
        factor=new_factor,
        inverse=new_inverse if good else None,
        shift=Squares.of(shift, dtype),
        gram=Squares.of(gram, dtype),
        column_sum=Squares.of(column_sum, dtype),
    )


def _new_factors(
    weights: FactoredWeights, gradient: OutputGradient, right: Tensor, eta: float
) -> tuple[Tensor, Tensor, Tensor]:
    """New U and U⁻¹ (float64) and C = Hr U_new⁻¹, by m × m systems where m ≤ d and d × d ones otherwise.

    U ← UP with P = I − ηHᵀΛHr; push-through: Hr P⁻¹ = (I − ηHrHᵀΛ)⁻¹ Hr, hence U⁻¹ ← U⁻¹ + ηHᵀΛC. Where P is
    singular the results are infinite or NaN, which the caller meets as ill conditioned.
    """
    hidden, lam = gradient.read.hidden, gradient.curvature
    u, u_inv = weights.factor, weights.inverse
    m, d = hidden.shape
    scaled = (eta * lam)[:, None] * hidden  # ηΛH
    if m <= d:
        system = torch.eye(m, dtype=hidden.dtype, device=hidden.device) - right @ scaled.T
        # An inverse and a product take half the time of a solve with d right-hand sides, and where the system is so
        # ill conditioned that it matters, the step does without.
        solved = torch.linalg.inv_ex(system).inverse @ (right @ u_inv.value)
        factor = u.master - ((eta * lam)[:, None] * gradient.read.hidden_factor).T @ right
        inverse = u_inv.master + scaled.T @ solved
    else:
        curvature = scaled.T @ right  # ηB
        system = torch.eye(d, dtype=hidden.dtype, device=hidden.device) - curvature
        gained = torch.linalg.inv_ex(system).inverse @ (curvature @ u_inv.value)
        factor = u.master - u.value @ curvature
        inverse = u_inv.master + gained
        solved = right @ inverse.to(hidden.dtype)
    return factor, inverse, solved


def _well_conditioned(factor: Squares, inverse: Squares, solved: Tensor, right: Tensor) -> bool:
    dtype, d = factor.value.dtype, factor.value.shape[0]
    scale = torch.linalg.matrix_norm(factor.value) / d**0.5
    condition = scale * torch.linalg.matrix_norm(inverse.value) / d**0.5
    lengths = torch.linalg.vector_norm(right, dim=1)
    growth = torch.linalg.vector_norm(solved, dim=1) / lengths.clamp_min(torch.finfo(dtype).tiny)
    amplification = scale * growth.max() if growth.numel() else scale.new_zeros(())
    probe = _probe(d, factor.master.device)
    drift = torch.linalg.vector_norm(factor.master @ (inverse.master @ probe) - probe)
    good = (amplification <= _AMPLIFICATION_LIMIT[dtype]) & (condition <= _CONDITION_LIMIT[dtype])
    good &= (drift <= _DRIFT_LIMIT[dtype]) & (scale < _SCALE_LIMIT) & (scale > 1.0 / _SCALE_LIMIT)
    return bool(good)


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
