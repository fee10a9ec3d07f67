"""What tests of compiled steps share: heads in the middle of a segment, a step by C and its comparison with torch's."""

from __future__ import annotations

import math

import pytest
import torch

import widehead as wh
from support import reference
from support.properties import TABLE, Row, batch, head_loss, make_head
from widehead.arithmetic import TORCH, Corrected, OutputGradient, RowSums, StepMade, StepRule, find_compiled
from widehead.factored import FactoredWeights
from widehead.heads.exact import ExactHead
from widehead.losses import sum_over_targets

COMPILED = find_compiled()
D = 300


def _balanced(q: torch.Tensor, s: torch.Tensor, a: torch.Tensor, targets: wh.SparseTargets) -> torch.Tensor:
    return 0.5 * q + 0.3 * s - 10.0 * sum_over_targets(a, targets)


def _balanced_dense(o: torch.Tensor, ids: list[list[int]], _: list[list[float]] | None) -> torch.Tensor:
    return (0.5 * o**2 + 0.3 * o - 10.0 * reference.dense_targets(ids, o.shape[1]) * o).sum(1)


# Squares, sums and targets weigh alike, so that each product of two of them is seen in what a step adds to Q.
BALANCED = Row("balanced", lambda: wh.losses.SphericalLoss(_balanced), _balanced_dense)
ROWS = [row for row in TABLE if row.name in ("squared, values", "spherical softmax", "taylor softmax")] + [BALANCED]


def trained(row: Row, m: int, d: int) -> ExactHead:
    """A head in the middle of a segment, whose rows stand at several boundaries."""
    head, _ = make_head(row, d, D, torch.float32)
    optimizer = wh.optim.SGD(head, lr=0.02)
    generator = torch.Generator().manual_seed(1)
    for step in range(6):
        loss, _ = head_loss(head, batch(row, generator, m, d, D))
        loss.backward()
        optimizer.step()
        if step % 2 == 1 and step < 5:
            head.weights.close_segment()
    return head


def stepped(weights: FactoredWeights, gradient: OutputGradient, rule: StepRule, hr: torch.Tensor) -> StepMade | None:
    """What the compiled step makes; None if it leaves the step to torch's operations."""
    assert COMPILED is not None
    return COMPILED._step(gradient, rule, weights.small, hr)[0]


def compare_written(weights: FactoredWeights, step: StepMade) -> None:
    """Rows that are made as they are written are those of the twin, and nothing else is written."""
    assert COMPILED is not None
    assert isinstance(step.rows, RowSums)
    assert step.figures is not None
    ids, rows = step.rows.plan.class_ids, step.rows.made()
    bound = step.figures.sums[1]
    assert math.isfinite(bound)
    assert not rows.numel() or float(rows.abs().max()) <= bound * 1.0001
    sizes = [float(part.double().norm()) for part in (step.rows.values, step.rows.sparse, step.rows.solved)]
    assert bound == pytest.approx(sizes[0] + sizes[1] * sizes[2], rel=1e-4)
    tables = [weights.values.clone() for _ in range(2)]
    versions = [weights.versions.versions.clone() for _ in range(2)]
    for arithmetic, table, version in zip((COMPILED, TORCH), tables, versions, strict=True):
        arithmetic.write_rows(table, version, ids, step.rows, 3)
    torch.testing.assert_close(tables[0], tables[1], rtol=1e-5, atol=1e-6 * float(tables[1].abs().max()))
    assert torch.equal(versions[0], versions[1])
    assert set(versions[0][ids].tolist()) <= {3}


def compare_figures(mine: StepMade | Corrected, theirs: StepMade | Corrected) -> None:
    assert mine.figures is not None
    assert theirs.figures is not None
    for name in ("factor", "inverse", "growth"):
        assert getattr(mine.figures, name) == pytest.approx(getattr(theirs.figures, name), rel=1e-3), name
    assert mine.figures.sums[0] == pytest.approx(theirs.figures.sums[0], rel=1e-3, abs=1e-2)
    if not isinstance(mine.rows, RowSums):
        assert mine.figures.sums[1] == pytest.approx(theirs.figures.sums[1], rel=1e-3, abs=1e-2)
    assert mine.figures.contraction == pytest.approx(theirs.figures.contraction, rel=1e-3, abs=1e-4)
