"""Compiled rank-one corrections beside torch's."""

from __future__ import annotations

import pytest
import torch
from support.compiled_steps import COMPILED, compare_figures, stepped, trained
from support.properties import TABLE, pending_gradient, relative

from widehead.arithmetic import TORCH, Arithmetic, Corrected, OutputGradient, SmallState, StepRule

pytestmark = pytest.mark.skipif(COMPILED is None, reason="needs a C compiler, and Linux")


def corrected(
    arithmetic: Arithmetic, gradient: OutputGradient, gain: float, small: SmallState, solved: torch.Tensor
) -> Corrected | None:
    read = gradient.read
    return arithmetic.correct(gradient, StepRule.sgd(-gain), small, solved, read.hidden, read.values)


@pytest.mark.parametrize(("m", "d"), [(3, 5), (20, 33), (70, 64), (40, 20)])
def test_a_direction_is_taken_out_as_by_the_twin(m: int, d: int, threads: int) -> None:
    row = TABLE[0]
    head = trained(row, m, d)
    gradient = pending_gradient(head, row, m)
    hidden, weights = gradient.read.hidden, head.weights
    # U is made small in one direction: a step that leaves a tenth of it there.
    gain = -0.9 / float(torch.linalg.eigvalsh(hidden.T @ (gradient.by_squared_norm[:, None] * hidden))[-1])
    step = stepped(weights, gradient, StepRule.sgd(-gain), hidden)
    assert step is not None
    assert step.solved is not None
    assert COMPILED is not None
    mine, expected = (corrected(one, gradient, gain, step.small, step.solved) for one in (COMPILED, TORCH))
    assert mine is not None
    assert expected is not None
    sign = torch.sign(torch.dot(mine.x, expected.x))
    assert relative(sign * mine.x, expected.x) < 1e-3  # any vector near the singular one does
    before = step.small.flushed().master
    for found in (mine, expected):
        both = torch.eye(d, dtype=torch.float64) + torch.outer(found.x.double(), found.b.double())
        factor = found.small.master[:d]
        assert relative(both @ factor, before[:d]) < 2e-6, "V(I + xbᵀ)U' should be VU"
        assert relative(found.small.inverse.double() @ factor, torch.eye(d, dtype=torch.float64)) < 2e-4
        assert relative(found.values, gradient.read.values @ both.float()) < 1e-5
        # The rows in the new segment's numbers, brought back, are those that the step wants.
        wanted = gradient.read.values.double() @ before[:d]
        wanted += gain * gradient.read.plan.transposed_times(gradient.sparse, hidden).double()
        assert relative(found.rows.double() @ factor, wanted) < 2e-5
        assert relative(found.small.master[d : 2 * d + 2], before[d : 2 * d + 2]) < 1e-12
        norms = [torch.linalg.vector_norm(x, dim=1) for x in (found.solved, hidden)]
        assert found.figures.growth[0] == pytest.approx(float((norms[0] / norms[1]).max()), rel=1e-4)
    compare_figures(mine, expected)


def test_what_v_is_corrected_with_does_not_take_the_inverse_at_its_word() -> None:
    head = trained(TABLE[0], 20, 24)
    gradient = pending_gradient(head, TABLE[0], 20)
    hidden, master = gradient.read.hidden, head.weights.small.flushed().master
    inexact = master.clone()
    inexact[50:] *= 1.0 + 1e-3 * torch.randn(24, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    small = SmallState.of(inexact, torch.float32)
    assert COMPILED is not None
    found = corrected(COMPILED, gradient, -0.1, small, -0.1 * hidden @ small.inverse)
    assert found is not None
    both = torch.eye(24, dtype=torch.float64) + torch.outer(found.x.double(), found.b.double())
    assert relative(both @ found.small.master[:24], master[:24]) < 1e-7


def test_a_direction_that_is_gone_is_not_taken_out() -> None:
    head = trained(TABLE[0], 20, 24)
    gradient = pending_gradient(head, TABLE[0], 20)
    assert COMPILED is not None
    for spoiled in (1e-6, float("nan")):
        master = head.weights.small.flushed().master.clone()
        master[2 * 24 + 2 :] /= spoiled
        solved = gradient.read.hidden @ master[2 * 24 + 2 :].T.float()
        assert corrected(COMPILED, gradient, 1.0, SmallState.of(master, torch.float32), solved) is None
