"""Everything that a step keeps up to date, computed again from W: how far has it drifted?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from widehead.factored.record import gram_and_sum, relative

if TYPE_CHECKING:
    from widehead.factored.weights import FactoredWeights


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


def audit(weights: FactoredWeights) -> Audit:
    """Recompute Q, w̄ and UU⁻¹ densely in float64, O(D d²), block by block; changes nothing."""
    blocks = (rows for _, rows in weights.blocks(slice(None)))
    size = weights.order * weights.width
    master = weights.small.flushed().master
    factor, _, column_sum, gram, inverse = master.split([size, 1, 1, size, size])
    found_gram, found_sum = gram_and_sum(blocks, torch.zeros_like(column_sum[0]))
    eye = torch.eye(size, dtype=torch.float64, device=gram.device)
    scale = (weights.num_classes * torch.trace(found_gram)).sqrt()
    versions = weights.versions
    return Audit(
        gram=relative(gram - found_gram, torch.linalg.matrix_norm(found_gram)),
        column_sum=relative(column_sum - found_sum, scale),
        inverse=relative(factor @ inverse.T - eye, torch.linalg.matrix_norm(eye)),
        finite=bool(torch.isfinite(found_sum).all()),  # a sum meets every NaN and infinity
        live_boundaries=len(versions.live),
        closes=versions.closes,
        moved_rows=versions.moved_rows,
        segment_steps=weights.segment_steps,
    )
