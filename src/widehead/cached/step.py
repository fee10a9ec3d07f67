"""A step of a cached weight record: planned first, applied second, whole or not at all; the device alone knows which.

Letters (docs/notation.md): X = W or [W, M] (D, c) with rows x = y + ω, T = ΛO + σ1ᵀ + S, Hr = HR, p (order × order)
and f (order) the numbers of a `StepRule`, f̂ = f ⊗ I. The step is X ← X(p⊗I) + TᵀHr f̂. It is the same for rows of the
cache, for U and ω, which stand for all other rows, and for Q = XᵀX and x̄ = Xᵀ1:

    rows of the cache   y ← y(p⊗I) + y_w HᵀΛHr f̂ + (SᵀHr f̂)_y
    U, ω                U ← U(p⊗I) + U_w HᵀΛHr f̂,   ω ← ω(p⊗I) + (ω_w HᵀΛ + σᵀ)Hr f̂
    x̄                   x̄ ← x̄(p⊗I) + (T1)ᵀHr f̂
    Q                   Q ← (p⊗I)ᵀQ(p⊗I) + Zᵀ(Hr f̂) + (Hr f̂)ᵀZ,   Z = TX(p⊗I) + ½TTᵀHr f̂

`_left_factors` and `_mixed` are what `arithmetic/step.py` and `small_state.py` have for the CPU, where parts of tensors
are written in place (``out=``) and numbers are plain. torch.compile takes no such ``out=``, and here numbers may be
tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from widehead.arithmetic import OutputGradient, StepRule

if TYPE_CHECKING:
    from widehead.cached.weights import CachedWeights


@dataclass
class CachedChange:
    """All new values of a step.

    Attributes:
        revision: of the weights it was planned for.
        master: (2c + 2, c) float64 U, ω, x̄ and Q; ``sums``: the same in the working type.
        cache: (n, c) its rows.
        shifts: whether ω changes.
        wanted: () whether anybody wants the step; None if so.
        sound: () whether it is finite.
        allowed: () whether it may be written, which is both.
    """

    revision: int
    master: Tensor
    sums: Tensor
    cache: Tensor
    shifts: bool
    wanted: Tensor | None
    sound: Tensor
    allowed: Tensor


def plan_step(
    weights: CachedWeights,
    gradient: OutputGradient,
    rule: StepRule,
    hr: Tensor | None,
    gram_hr: Tensor | None,
    skip: Tensor | None,
) -> CachedChange:
    """Compute a step without writing anything; `apply_step` writes it, unless it is not finite. No wait."""
    assert weights.order == rule.order, "the record should keep momentum exactly if the rule has it"
    hr = gradient.read.hidden if hr is None else hr
    rule = StepRule(rule.mix, tuple(g.to(hr.dtype) if isinstance(g, Tensor) else g for g in rule.gain))
    named = gradient.read.plan.transposed_times(gradient.sparse, hr)
    weighted = gradient.weighted_hidden
    gram_hr = gradient.gram_times(hr, named, weighted) if gram_hr is None else gram_hr
    gained = [hr * gain for gain in rule.gain]
    gained_hr = gained[0] if len(gained) == 1 else torch.cat(gained, dim=1)
    master = _new_sums(weights, gradient, rule, gram_hr, gained_hr)
    sums = master.to(weights.dtype)
    cache = _new_cache(weights, rule, weighted, named, gained_hr)
    # Q has a part of every number of the step. A sum meets every NaN and infinity.
    sound = sums.sum() * 0.0 == 0.0
    wanted = None if skip is None else skip.to(sums.device).reshape(()) == 0
    allowed = sound if wanted is None else sound & wanted
    return CachedChange(weights.revision, master, sums, cache, gradient.constant is not None, wanted, sound, allowed)


def apply_step(weights: CachedWeights, change: CachedChange, others: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Write a planned step if it may be written, and so may these ``others``: () whether it was, and () whether it is
    finite or nobody wants it.
    """
    assert weights.revision == change.revision, "a step was planned for other weights"
    written = change.allowed
    for other in others:
        written = written & other
    small, cache = weights.small, weights.kept.cache
    for old, new in ((small.master, change.master), (small.value, change.sums), (cache, change.cache)):
        torch.where(written, new, old, out=old)
    return written, change.sound if change.wanted is None else change.sound | ~change.wanted


def _new_sums(
    weights: CachedWeights, gradient: OutputGradient, rule: StepRule, gram_hr: Tensor, gained_hr: Tensor
) -> Tensor:
    """(2c + 2, c) float64 U, ω, x̄ and Q."""
    c = weights.columns
    left = _left_factors(weights, gradient, rule, gram_hr)
    added = left.T @ gained_hr
    master = _mixed_sums(weights.small.master, rule, c) + added
    master[c + 2 :].add_(added[c + 2 :].T)
    return master


def _left_factors(weights: CachedWeights, gradient: OutputGradient, rule: StepRule, gram_hr: Tensor) -> Tensor:
    """(m, 2c + 2) what Hr f̂ is multiplied with from the left: ΛHU_wᵀ, ΛHω + σ, T1 and Z."""
    read, c = gradient.read, weights.columns
    scaled = read.products[:, : c + 2] * gradient.by_squared_norm[:, None]
    if gradient.constant is not None:
        scaled[:, c] += gradient.constant
    scaled[:, c + 1] += gradient.constant_sums
    by_rows = gradient.by_hidden
    if rule.order == 2:
        by_rows = torch.cat([by_rows, _by_momentum(weights, gradient)], dim=1)
    by_rows = by_rows if rule.keeps else _mixed(by_rows, rule)
    blocks = zip(by_rows.split(weights.width, dim=1), rule.gain, strict=True)
    return torch.cat([scaled, *(_plus(block, gram_hr, gain, 0.5) for block, gain in blocks)], dim=1)


def _by_momentum(weights: CachedWeights, gradient: OutputGradient) -> Tensor:
    """(m, d) TM, as ∇H = TW with M in the place of W."""
    d, c, read = weights.width, weights.columns, gradient.read
    made = torch.addcmul(gradient.left[:, d:c], gradient.by_squared_norm[:, None], read.products[:, c + 2 + d :])
    if weights.shifted:
        made.addr_(gradient.sparse_sums, weights.small.shift[d:])
    return made if gradient.constant is None else made.addr_(gradient.constant, weights.small.column_sum[d:])


def _new_cache(weights: CachedWeights, rule: StepRule, weighted: Tensor, named: Tensor, gained_hr: Tensor) -> Tensor:
    """(n, c) rows of the cache, what a dense layer's rows would become; ``weighted`` is ΛH, ``named`` is SᵀHr."""
    old, d = weights.kept.cache, weights.width
    start = old if rule.keeps else _mixed(old, rule)
    if weighted.shape[0] <= d:
        rows = torch.addmm(start, old[:, :d] @ weighted.T, gained_hr)
    else:
        rows = torch.addmm(start, old[:, :d], weighted.T @ gained_hr)
    if rule.order == 1:
        return _plus(rows, named, rule.gain[0])
    return rows + torch.cat([named * gain for gain in rule.gain], dim=1)


def _plus(matrix: Tensor, other: Tensor, gain: Any, factor: float = 1.0) -> Tensor:
    """matrix + factor·gain·other, whether the host knows the gain or the device alone."""
    if isinstance(gain, Tensor):
        return torch.addcmul(matrix, other, gain, value=factor)
    return torch.add(matrix, other, alpha=gain * factor)


def _mixed(matrix: Tensor, rule: StepRule) -> Tensor:
    """matrix·(p⊗I): (k, order·d)."""
    blocks = matrix.chunk(rule.order, dim=1)
    columns = [
        sum((block * row[j] for block, row in zip(blocks[1:], rule.mix[1:], strict=True)), blocks[0] * rule.mix[0][j])
        for j in range(rule.order)
    ]
    return columns[0] if rule.order == 1 else torch.cat(columns, dim=1)


def _mixed_sums(master: Tensor, rule: StepRule, c: int) -> Tensor:
    """U, ω and x̄ times p⊗I, and (p⊗I)ᵀQ(p⊗I)."""
    if rule.keeps:
        return master
    out = _mixed(master, rule)
    out[c + 2 :] = _mixed(out[c + 2 :].T, rule).T
    return out
