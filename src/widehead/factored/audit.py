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
        inverse: of UU⁻¹ against I. (If momentum is kept, X = [W, M] stands in the place of W, and the blocks of UU⁻¹
            that lead from one to the other count in units in which both are alike, whatever the loss is multiplied by.)
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
    drift = _drift(factor, inverse.T, weights.width) if len(inverse) else torch.zeros_like(eye)
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


def _drift(factor: Tensor, inverse: Tensor, d: int) -> Tensor:
    """UU⁻¹ − I (c, c), with the units of w and m taken from it if there are both.

    The block from w to m has the unit of a curvature, and that from m to w its inverse. Each is divided by the sizes of
    the products that it is a sum of, which cancel there, and multiplied by the geometric mean of both, if above 1.
    """
    drift = factor @ inverse - torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
    w, m = slice(0, d), slice(d, None)
    if not len(factor[m]):
        return drift
    sizes = [
        sum(torch.linalg.matrix_norm(factor[i, k]) * torch.linalg.matrix_norm(inverse[k, j]) for k in (w, m))
        for i, j in ((w, m), (m, w))
    ]
    mean = (sizes[0].sqrt() * sizes[1].sqrt()).clamp_min(1.0)
    for block, size in zip((drift[w, m], drift[m, w]), sizes, strict=True):
        block.mul_(mean / size.where(size > 0.0, 1.0))
    return drift


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
