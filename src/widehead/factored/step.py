"""A step of a factored weight record: planned first, applied second, whole or not at all.

Letters (docs/notation.md): X = V·U + 1ωᵀ, whose rows are w, or (w, m) if momentum is kept; T = ΛO + σ1ᵀ + S, Hr = HR;
p (order × order) and f (order) are the numbers of a `StepRule`: X ← X(p⊗I) + TᵀHR(f⊗I).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from widehead.arithmetic import Corrected, OutputGradient, RowSums, SmallState, StepMade, StepRule, correct_before
from widehead.errors import NonFiniteError
from widehead.versions import cancels, contracts_too_much, drift_of, is_sound

if TYPE_CHECKING:
    from widehead.factored.weights import FactoredWeights

_MOST_CORRECTIONS = 2  # in one step; if they do not help, the segment is closed


@dataclass
class Change:
    """All new values of a step, computed before any is written, so that a failed step changes nothing.

    Attributes:
        revision: of the weights it was planned for.
        class_ids: (n,) target classes; ``rows``: (n, order·d) their new rows of V, or what makes them.
        small: the new small state.
        closes: the segment, with this step.
        basis: of the segment that begins if this one is closed.
        corrections: V ← V(I + x·bᵀ) for each, with this step.
    """

    revision: int
    class_ids: Tensor
    rows: Tensor | RowSums
    small: SmallState
    closes: bool
    basis: float
    corrections: tuple[Corrected, ...] = ()

    #: a tensor in records of which the device alone knows whether a step may be written; this one raises at once
    allowed: ClassVar[None] = None


def plan_step(
    weights: FactoredWeights,
    gradient: OutputGradient,
    rule: StepRule,
    hr: Tensor | None = None,
    gram_hr: Tensor | None = None,
) -> Change:
    """Compute a step without writing anything; `apply_step` writes it.

    Args:
        weights: the record, of the rule's order; must be as it was when ``gradient`` was made.
        gradient: T by its factors.
        rule: what becomes of W (and M) and the gradient; what is a tensor in it is read, as the rest decides by it.
        hr: (m, d) HR for a symmetric positive definite R (d, d), or None for R = I.
        gram_hr: (m, d) TTᵀHR, if it is known already.

    Raises:
        NonFiniteError: something in the step is NaN or infinite.
    """
    assert weights.order == rule.order, "the record should keep momentum exactly if the rule has it"
    rule = rule.known()
    check_size(rule, weights.dtype)
    hr = gradient.read.hidden if hr is None else hr
    made = gradient.read.arithmetic.step(gradient, rule, weights.small, hr, gram_hr)
    change = _in_segment(weights, gradient, rule, made)
    if change is None:
        with gradient.read.arithmetic.phase("closing"):
            change = _corrected(weights, gradient, rule, made, hr)
    return _closing(weights, gradient, rule, made.small, hr) if change is None else change


def apply_step(weights: FactoredWeights, change: Change) -> None:
    """Write a planned step: the only place in which W changes, and Q, w̄, U and U⁻¹ with it. Then sweep a few rows."""
    assert weights.revision == change.revision, "a step was planned for other weights"
    weights.small = change.small
    weights.segment_steps += 1
    weights.steps += 1
    phase = weights.rows.arithmetic.phase
    if change.closes or change.corrections:
        with phase("closing"):
            _close(weights, change)
    weights.versions.write(weights.rows, change.class_ids, change.rows)
    weights.revision += 1
    with phase("moving"):
        weights.versions.upkeep(weights.rows, change.class_ids.numel())
    weights.absorb_rounding()


def _close(weights: FactoredWeights, change: Change) -> None:
    """Begin a new segment, or correct the open one."""
    if change.closes:
        weights.close_segment(change.basis)
    for correction in change.corrections:
        weights.correct_segment(correction.x, correction.b)


def _in_segment(
    weights: FactoredWeights,
    gradient: OutputGradient,
    rule: StepRule,
    made: StepMade | Corrected,
    corrections: tuple[Corrected, ...] = (),
) -> Change | None:
    """The step with these numbers, if they are sound."""
    if made.rows is None or made.figures is None:
        return None
    small, drift = made.small, 0.0
    if small.is_due(weights.steps + 1):
        small = small.flushed()
        drift = drift_of(small, rule.order)
    if not is_sound(made.figures, rule, weights.dtype, drift):
        return None
    ids = gradient.read.written
    return Change(weights.revision, ids, made.rows, small, closes=False, basis=rule.basis(), corrections=corrections)


def _corrected(
    weights: FactoredWeights, gradient: OutputGradient, rule: StepRule, made: StepMade, hr: Tensor
) -> Change | None:
    """The step in well-conditioned numbers, if few directions are at fault, and that is cheap to see to."""
    # What rounding of rows does to Q is told in the basis of one boundary, which a correction would change half way.
    if rule.order == 2 or not hr.numel() or weights.rows.is_narrow:
        return None
    # c corrections may take from V in all directions: what is left of rows is rounding then, as of a sum.
    before = weights.versions.corrections
    if len(before) >= weights.small.columns and cancels(before.size(), weights.dtype):
        return None
    if _shrinks_evenly(made, weights.small.columns, weights.dtype):
        return None
    corrections: list[Corrected] = []
    for found in _corrections(weights, gradient, rule, made, hr):
        corrections.append(found)
        change = _in_segment(weights, gradient, rule, found, tuple(corrections))
        if change is not None:
            return change
    return None


def _shrinks_evenly(made: StepMade, columns: int, dtype: torch.dtype) -> bool:
    """Whether U became small in many directions, as by Newton's steps: then few that are given its mean length τ do not
    make it large enough, and nothing is gained by trying them.
    """
    assert made.figures is not None
    lengthened = made.figures.factor[0] * (1.0 + _MOST_CORRECTIONS / columns) ** 0.5
    return cancels(lengthened, dtype) and abs(made.figures.contraction) < 1.0


def _corrections(
    weights: FactoredWeights, gradient: OutputGradient, rule: StepRule, made: StepMade, hr: Tensor
) -> Iterator[Corrected]:
    """One correction after the other, each of the numbers that the one before left."""
    assert made.solved is not None, "p is never singular without momentum"
    assert made.figures is not None
    small, solved, values, found = made.small, made.solved, gradient.read.values, None
    if not contracts_too_much(made.figures, weights.dtype):
        found = gradient.read.arithmetic.correct(gradient, rule, small, solved, hr, values)
    if found is None and hr is gradient.read.hidden:
        found = correct_before(gradient, rule, weights.small, made)
    for _ in range(_MOST_CORRECTIONS - 1):
        if found is None:
            return
        yield found
        found = gradient.read.arithmetic.correct(gradient, rule, found.small, found.solved, hr, found.values)
    if found is not None:
        yield found


def _closing(
    weights: FactoredWeights, gradient: OutputGradient, rule: StepRule, small: SmallState, hr: Tensor
) -> Change:
    """The dense part first, close, then the sparse part at the beginning of a segment: no inverse is needed there."""
    d, read = weights.width, gradient.read
    rows = read.values @ small.factor
    added = read.by_rows(gradient.sparse, hr)
    for block, gain in zip(rows.split(d, dim=1), rule.gain, strict=True):
        block.add_(added, alpha=gain)
    if rule.order == 2:
        rows[:, :d].add_(rows[:, d:], alpha=rule.basis())
    _check_finite(small, rows, gradient)
    return Change(weights.revision, read.written, rows, small, closes=True, basis=rule.basis())


def check_size(rule: StepRule, dtype: torch.dtype) -> None:
    """NonFiniteError if the numbers of the rule are too large."""
    largest = torch.finfo(dtype).max ** 0.5  # squares enter the step
    if not rule.is_finite or max(abs(gain) for gain in rule.gain) >= largest:
        raise NonFiniteError(
            f"A step should be finite. Found lr = {abs(rule.gain[0])}, which is too large. The weights are unchanged."
        )


def _check_finite(small: SmallState, rows: Tensor, gradient: OutputGradient) -> None:
    known = small.value[: 2 * small.columns + 2]  # without U⁻¹, which a closed segment has no use for
    if bool(torch.isfinite(known.sum() + rows.sum())):  # a sum meets every NaN and infinity
        return
    named = {
        "the hidden layer": gradient.read.hidden,
        "the loss's derivative by q": gradient.by_squared_norm,
        "the loss's derivative by s": gradient.constant,
        "the loss's derivative by the targets' outputs": gradient.sparse,
    }
    found = [name for name, part in named.items() if part is not None and not bool(torch.isfinite(part).all())]
    cause = " and ".join(found) if found else "the updated weights (the lr is too large)"
    raise NonFiniteError(f"A step should be finite. Found NaN or infinity in {cause}. The weights are unchanged.")
