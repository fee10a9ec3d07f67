"""Whether rows can go on in the open segment: limits on how far rounding errors are magnified.

Letters: U (c, c) factor of the segment, C (m, c) what target rows are written with, Hr (m, d); c = order·d.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from widehead.factored.rule import StepRule
from widehead.factored.squares import Squares

__all__ = ["judge", "judge_figures"]

# A segment is closed when one of these is passed (κ_F = ‖U‖_F ‖U⁻¹‖_F / d alone hides one
# strongly contracted direction among many, and W's error in float32 was ten times larger with it alone):
# amplification max_b ‖C_b‖ / ‖(Hr)_b‖ · ‖U‖_F / √d, by which rounding errors of the rows written now are magnified;
_AMPLIFICATION_LIMIT = {torch.float32: 8.0, torch.float64: 64.0}
# κ_F, which bounds it for the hidden layers to come; and the drift ‖UU⁻¹x − x‖ / ‖x‖ of the inverse.
_CONDITION_LIMIT = {torch.float32: 30.0, torch.float64: 1000.0}
_DRIFT_LIMIT = {torch.float32: 1e-5, torch.float64: 1e-13}
# U alone may also become small or large (weight decay, momentum that runs out) with κ_F as it was.
_SMALLEST_SCALE, _LARGEST_SCALE = 1e-10, 1e4


def judge(squares: Squares, rows: Tensor, solved: Tensor, right: Tensor, rule: StepRule, probe: bool) -> bool:
    """Whether a step's new numbers are all finite, and well enough conditioned to go on in the segment.

    Norms are taken block by block, because the blocks of (w, m) have different units and those of V shrink at
    different rates; a scale that a whole block of V has is no matter of conditioning.

    Args:
        squares: the new ones.
        rows: (n, c) new rows of V.
        solved: (m, c) C.
        right: (m, d) Hr.
        probe: whether to look at the drift of U⁻¹ too; ``squares`` should be folded then.
    """
    k, dtype, c = rule.order, squares.base.dtype, squares.columns
    tiny = torch.finfo(dtype).tiny
    growth = torch.linalg.vector_norm(solved.view(-1, k, c // k), dim=2)  # (m, k)
    growth = growth / torch.linalg.vector_norm(right, dim=1).clamp_min_(tiny)[:, None]
    figures = [
        _block_norms(squares.factor, k),
        _block_norms(squares.value[2 * c + 2 :], k),
        growth.amax(0) if growth.numel() else growth.new_zeros(k),
        squares.value[c : 2 * c + 2].sum()[None],  # a sum meets every NaN and infinity
        rows.sum()[None],
    ]
    if probe:
        figures.append(_drift(squares, k)[None])
    found = torch.cat(figures).tolist()  # one wait for the device
    sizes, inverse_sizes, found = found[: k * k], found[k * k : 2 * k * k], found[2 * k * k :]
    return _is_sound(sizes, inverse_sizes, found[:k], found[k:], rule, dtype)


def judge_figures(figures: tuple[float, ...], rule: StepRule, width: int) -> bool:
    """The same, without a probe, from what the kernels found: see `kernels.StepOutputs`."""
    factor, inverse, growth, *sums = figures
    sizes = [math.sqrt(square / width) if square >= 0.0 else math.nan for square in (factor, inverse)]
    return _is_sound(sizes[:1], sizes[1:], [growth], sums, rule, torch.float32)


def _is_sound(
    sizes: list[float],
    inverse_sizes: list[float],
    grown: list[float],
    rest: list[float],
    rule: StepRule,
    dtype: torch.dtype,
) -> bool:
    """Whether all limits are kept.

    Args:
        sizes, inverse_sizes: (k²,) norms of the blocks of U and U⁻¹.
        grown: (k,) the most growth of a row.
        rest: two sums that should be finite and, where it was looked at, the drift.
    """
    k = rule.order
    natural = _natural_gain(rule, torch.finfo(dtype).tiny)
    conditions = [sum(inverse_sizes[j * k + i] * sizes[j * k + i] for j in range(k)) for i in range(k)]
    amplifications = [sum(grown[i] * sizes[i * k + j] for i in range(k)) / natural[j] for j in range(k)]
    return (
        all(math.isfinite(number) for number in rest)
        and all(number <= _CONDITION_LIMIT[dtype] for number in conditions)
        and all(number <= _AMPLIFICATION_LIMIT[dtype] for number in amplifications)
        and all(_SMALLEST_SCALE < sizes[i * k + i] < _LARGEST_SCALE for i in range(k))
        and all(drift <= _DRIFT_LIMIT[dtype] for drift in rest[2:])
    )


def _natural_gain(rule: StepRule, least: float) -> tuple[float, ...]:
    """(order,) the size that rows' changes have at the beginning of a segment, per unit of the gradient."""
    if rule.order == 1:
        return (max(abs(rule.gain[0]), least),)
    settled = abs(rule.gain[0] + rule.basis() * rule.gain[1])
    return max(settled + abs(rule.basis() * rule.gain[1]), least), max(abs(rule.gain[1]), least)


def _block_norms(matrix: Tensor, k: int) -> Tensor:
    """(k²,) Frobenius norms of the d × d blocks of a (kd, kd) matrix, divided by √d."""
    d = matrix.shape[0] // k
    if k == 1:  # the same by a quicker way
        return torch.dot(matrix.view(-1), matrix.view(-1)).sqrt_().mul_(d**-0.5)[None]
    norms: Tensor = torch.linalg.vector_norm(matrix.view(k, d, k, d), dim=(1, 3)).flatten()
    return norms.mul_(d**-0.5)


def _drift(squares: Squares, k: int) -> Tensor:
    """() ‖UU⁻¹x − x‖ for x of length 1 in each block of V in turn, seen in that block; the largest."""
    c, master = squares.columns, squares.master
    d = c // k
    probe = _probe(d, master.device)
    found = [
        torch.linalg.vector_norm(rows @ (transposed.T @ probe) - probe)
        for rows, transposed in zip(master[:c].split(d), master[2 * c + 2 :].split(d), strict=True)
    ]
    return torch.stack(found).max().to(squares.base.dtype)


@cache
def _probe(d: int, device: torch.device) -> Tensor:
    """(d,) a fixed vector of length 1 with no preferred direction."""
    vector = torch.cos(1.7 * torch.arange(1.0, d + 1.0, dtype=torch.float64, device=device))
    unit: Tensor = vector / torch.linalg.vector_norm(vector)
    return unit
