"""Outputs of rows that are up to date: large blocks, nothing copied, and what the dense W gives."""

from __future__ import annotations

import pytest
import torch

import widehead as wh

D, WIDTH = 20_001, 6


def trained(bias: bool) -> wh.ExactHead:
    """A head whose rows have a shift: Σo has a gradient."""
    torch.manual_seed(0)
    head = wh.ExactHead(WIDTH, D, wh.losses.SphericalLoss(lambda q, s, a, t: (q + 3.0 * s) / D), bias=bias)
    optimizer = wh.optim.SGD(head, lr=20.0)
    for _ in range(3):
        head(torch.randn(4, WIDTH, requires_grad=True), torch.randint(0, D, (4,))).backward()
        optimizer.step()
    return head


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("m", [1, 3, 200])
def test_they_are_those_of_the_dense_weights(m: int, bias: bool) -> None:
    head, hidden = trained(bias), torch.randn(m, WIDTH)
    before = head.scores(hidden)
    head.consolidate()
    assert head.weights.small.shift.abs().max() > 1e-3
    blocks = list(head.weights.outputs(head._widened(hidden)))
    assert [start for start, _ in blocks] == torch.tensor([0, *(o.shape[1] for _, o in blocks)]).cumsum(0)[:-1].tolist()
    dense = torch.nn.functional.linear(hidden, head.weight(), head.bias())
    torch.testing.assert_close(torch.cat([o for _, o in blocks], dim=1), dense, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head.scores(hidden), before, rtol=1e-4, atol=1e-5)
    assert len(blocks) < 6  # not one for each 2,048 rows


def test_rows_that_are_not_up_to_date_are_read_as_before() -> None:
    head, hidden = trained(False), torch.randn(2, WIDTH)
    torch.testing.assert_close(head.scores(hidden), hidden @ head.weight().T, rtol=1e-4, atol=1e-5)
