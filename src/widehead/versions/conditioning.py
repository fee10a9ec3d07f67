"""Whether rows can go on in the open segment: limits on how far rounding errors are magnified.

Letters: U (c, c) factor of the segment, C (m, c) what target rows are written with, Hr (m, d); c = order·d.
"""

import math
from functools import cache

import torch
from torch import Tensor

from widehead.arithmetic import Figures, SmallState, StepRule

# A step goes on in its segment unless one of these is passed; then few directions are corrected, or the segment is
# closed (factored/step.py). κ_F = ‖U‖_F ‖U⁻¹‖_F / d alone hides one strongly contracted direction among many, and W's
# error in float32 was ten times larger with it alone. So there is the
# amplification max_b ‖C_b‖ / ‖(Hr)_b‖ · ‖U‖_F / √d, by which rounding errors of the rows written now are magnified;
_AMPLIFICATION_LIMIT = {torch.float32: 8.0, torch.float64: 64.0}
# κ_F, which bounds it for the hidden layers to come; and the drift ‖UU⁻¹x − x‖ / ‖x‖ of the inverse.
_CONDITION_LIMIT = {torch.float32: 30.0, torch.float64: 1000.0}
_DRIFT_LIMIT = {torch.float32: 1e-5, torch.float64: 1e-13}
# U alone may also become small or large (weight decay, momentum that runs out) with κ_F as it was.
_SMALLEST_SCALE, _LARGEST_SCALE = 1e-10, 1e4
# And if it is a sum, as without these, it keeps the rounding of its size at the beginning: some steps that leave a
# tenth of all directions each left nothing of U but that. The same goes for a product of corrections.
_SMALLEST_SUM = {torch.float32: 0.05, torch.float64: 1e-3}
# A step that leaves little of most directions: what is left of U is rounding as large as U, and no longer the inverse
# of U⁻¹, which none of the other figures sees. A ridge regression was 8 % off after Newton's first step.
_CONTRACTION_LIMIT = {torch.float32: 16.0, torch.float64: 1e6}


def is_sound(figures: Figures, rule: StepRule, dtype: torch.dtype, drift: float) -> bool:
    """Whether a step's new numbers are all finite, and well enough conditioned to go on in the segment.

    Args:
        figures: of the new numbers.
        dtype: what they are computed in.
        drift: `drift_of` the inverse, or 0.0 if nobody looked.
    """
    k, sizes = rule.order, figures.factor
    natural = _natural_gain(rule, torch.finfo(dtype).tiny)
    conditions = [sum(figures.inverse[j * k + i] * sizes[j * k + i] for j in range(k)) for i in range(k)]
    amplifications = [sum(figures.growth[i] * sizes[i * k + j] for i in range(k)) / natural[j] for j in range(k)]
    return (
        all(math.isfinite(number) for number in figures.sums)
        and all(number <= _CONDITION_LIMIT[dtype] for number in conditions)
        and all(number <= _AMPLIFICATION_LIMIT[dtype] for number in amplifications)
        and all(_SMALLEST_SCALE < sizes[i * k + i] < _LARGEST_SCALE for i in range(k))
        and not (rule.keeps and cancels(sizes[0], dtype))
        and drift <= _DRIFT_LIMIT[dtype]
        and not contracts_too_much(figures, dtype)
    )


def cancels(size: float, dtype: torch.dtype) -> bool:
    """Whether a c × c matrix that is I and what was added to it has become so small: ``size`` is its norm over √c."""
    return size < _SMALLEST_SUM[dtype]


def contracts_too_much(figures: Figures, dtype: torch.dtype) -> bool:
    """Whether the step leaves little of most directions, so that nothing about U⁻¹ can be relied on."""
    return not abs(figures.contraction) <= _CONTRACTION_LIMIT[dtype]  # NaN too


def _natural_gain(rule: StepRule, least: float) -> tuple[float, ...]:
    """(order,) the size that rows' changes have at the beginning of a segment, per unit of the gradient."""
    if rule.order == 1:
        return (max(abs(rule.gain[0]), least),)
    settled = abs(rule.gain[0] + rule.basis() * rule.gain[1])
    return max(settled + abs(rule.basis() * rule.gain[1]), least), max(abs(rule.gain[1]), least)


def drift_of(small: SmallState, order: int) -> float:
    """The largest ‖UU⁻¹x − x‖ for x of length 1 in each block of V, seen in that block; ``small`` is flushed."""
    c, master = small.columns, small.master
    d = c // order
    probe = _probe(d, master.device)
    found = [
        torch.linalg.vector_norm(rows @ (transposed.T @ probe) - probe)
        for rows, transposed in zip(master[:c].split(d), master[2 * c + 2 :].split(d), strict=True)
    ]
    return float(torch.stack(found).max())


@cache
def _probe(d: int, device: torch.device) -> Tensor:
    """(d,) a fixed vector of length 1 with no preferred direction."""
    vector = torch.cos(1.7 * torch.arange(1.0, d + 1.0, dtype=torch.float64, device=device))
    return vector / torch.linalg.vector_norm(vector)
