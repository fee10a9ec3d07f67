"""Everything that a step keeps up to date, computed again from W: how far has it drifted?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from widehead.factored.record import WeightRecord


@dataclass(frozen=True)
class Audit:
    """Relative drift (Frobenius norm of the difference / norm of the recomputed value) and the state of the rows.

    Attributes:
        gram: of Q against WᵀW.
        column_sum: of w̄ against Wᵀ1, relative to √D ‖W‖_F.
        inverse: of UU⁻¹ against I. (If momentum is kept, X = [W, M] stands in the place of W.)
        finite: whether every entry of W is finite.
        live_boundaries: boundaries that rows may stand at.
        closes: segments closed since the beginning.
        moved_rows: rows rewritten by sweeps.
        segment_steps: steps in the open segment.
    """

    gram: float
    column_sum: float
    inverse: float
    finite: bool
    live_boundaries: int
    closes: int
    moved_rows: int
    segment_steps: int


def audit(weights: WeightRecord) -> Audit:
    """Recompute Q, w̄ and, if there is a U⁻¹, UU⁻¹ densely in float64, O(D d²), block by block; changes nothing."""
    size, master = weights.rows.width, weights.small.flushed().master
    factor, _, column_sum, gram, inverse = master.split([size, 1, 1, size, len(master) - 2 * size - 2])
    found_gram, found_sum = weights.recomputed()
    eye = torch.eye(size, dtype=torch.float64, device=gram.device)
    scale = (weights.num_classes * torch.trace(found_gram)).sqrt()
    drift = factor @ inverse.T - eye if len(inverse) else torch.zeros_like(eye)
    return Audit(
        gram=_relative(gram - found_gram, torch.linalg.matrix_norm(found_gram)),
        column_sum=_relative(column_sum - found_sum, scale),
        inverse=_relative(drift, torch.linalg.matrix_norm(eye)),
        finite=bool(torch.isfinite(found_sum).all()),  # a sum meets every NaN and infinity
        live_boundaries=weights.live_boundaries,
        closes=weights.closes,
        moved_rows=weights.moved_rows,
        segment_steps=weights.segment_steps,
    )


def gram_and_sum(blocks: Iterable[Tensor], zero: Tensor) -> tuple[Tensor, Tensor]:
    """WᵀW (d, d) and Wᵀ1 (1, d) in float64, from W in blocks of rows; ``zero`` is a float64 zero vector (1, d)."""
    gram, total = zero.T @ zero, zero.clone()
    for rows in blocks:
        block = rows.to(torch.float64)
        gram.addmm_(block.T, block)
        total += block.sum(0)
    return gram, total


def _relative(difference: Tensor, scale: Tensor) -> float:
    size = float(torch.linalg.vector_norm(difference))
    return size / float(scale) if float(scale) > 0.0 else size
