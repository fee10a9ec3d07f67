"""The full softmax against torch's own, with the outputs kept and not, in one block of classes and in several."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

import widehead as wh

D, WIDTH = 700, 8
SIZES = pytest.mark.parametrize("m", [1, WIDTH, 30], ids=["one", "outputs kept", "outputs computed twice"])
BLOCKS = pytest.mark.parametrize("block", [1, 1 << 22], ids=["blocks of 256", "one block"])


def problem(m: int, bias: bool, scale: float = 1.0) -> tuple[wh.FullSoftmaxHead, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    head = wh.FullSoftmaxHead(WIDTH, D, bias=bias, dtype=torch.float64)
    with torch.no_grad():
        head.table.add_(torch.randn_like(head.table))
    hidden = (scale * torch.randn(m, WIDTH, dtype=torch.float64)).requires_grad_()
    ids = torch.randint(0, D, (m,))
    ids[0] = -100 if m > 1 else 5
    return head, hidden, ids, torch.rand(m, dtype=torch.float64)


def torch_losses(table: Tensor, hidden: Tensor, ids: Tensor) -> Tensor:
    bias = table[:, WIDTH] if table.shape[1] > WIDTH else None
    return cross_entropy(linear(hidden, table[:, :WIDTH], bias), ids, reduction="none")


@SIZES
@BLOCKS
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_losses_and_gradients_are_those_of_torch(m: int, block: int, bias: bool, scale: float) -> None:
    head, hidden, ids, weight = problem(m, bias, scale)
    head.outputs_at_once = block
    losses = head(hidden, ids, reduction="none")
    expected = torch_losses(head.table, hidden, ids)
    assert torch.allclose(losses, expected, rtol=1e-10, atol=1e-9)
    ours = torch.autograd.grad((losses * weight).sum(), (hidden, head.table), retain_graph=True)
    theirs = torch.autograd.grad((expected * weight).sum(), (hidden, head.table))
    again = torch.autograd.grad((losses * weight).sum(), (hidden, head.table))
    for a, b, c in zip(ours, theirs, again, strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-10)
        assert torch.equal(a, c)


@SIZES
@BLOCKS
@pytest.mark.parametrize(
    "fast", [True, pytest.param(False, marks=pytest.mark.long)], ids=["in random directions", "in every one"]
)
def test_gradcheck_in_all_weights(m: int, block: int, fast: bool) -> None:
    torch.manual_seed(1)
    head = wh.FullSoftmaxHead(3, 260, dtype=torch.float64)
    head.outputs_at_once = block
    m = min(m, 5)
    lists = [[1, 259, 1], [], [256], [0, 5], [7]][:m]
    values = [[1.0, 2.0, 0.5], [], [3.0], [0.0, 1.0], [2.0]][:m]
    targets = wh.SparseTargets.from_lists(lists, values)
    hidden = torch.randn(m, 3, dtype=torch.float64)

    def losses(hidden: Tensor, table: Tensor) -> Tensor:
        call = torch.func.functional_call(head, {"table": table}, (hidden, targets), {"reduction": "none"})
        assert isinstance(call, Tensor)
        return call

    given = (hidden.requires_grad_(), head.table.detach().requires_grad_())
    assert torch.autograd.gradcheck(losses, given, fast_mode=fast)


@pytest.mark.skipif(not hasattr(torch.nn, "LinearCrossEntropyOptions"), reason="needs torch 2.13")
def test_the_same_loss_as_torchs_chunked_one() -> None:
    from torch.nn.functional import linear_cross_entropy

    head, hidden, ids, _ = problem(30, bias=False)
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=7)
    expected = linear_cross_entropy(hidden, head.table, ids, options=options)
    loss = head(hidden, ids)
    assert torch.allclose(loss, expected)
    ours = torch.autograd.grad(loss, (hidden, head.table))
    theirs = torch.autograd.grad(expected, (hidden, head.table))
    assert all(torch.allclose(a, b) for a, b in zip(ours, theirs, strict=True))


def test_log_prob_is_differentiable_as_the_loss_is() -> None:
    head, hidden, _, _ = problem(5, bias=True)
    ids = torch.tensor([1, 2, 3, 699, 0])
    ours = torch.autograd.grad(-head.log_prob(hidden, ids).sum(), (hidden, head.table))
    theirs = torch.autograd.grad(head(hidden, ids, reduction="sum"), (hidden, head.table))
    assert all(torch.allclose(a, b) for a, b in zip(ours, theirs, strict=True))
