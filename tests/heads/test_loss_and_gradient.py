"""`ExactHead.loss_and_gradient` against its twin: forward and backward."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from support.properties import DEVICE, DTYPES, TABLE, Batch, Row, batch, make_head

import widehead as wh
from widehead.arithmetic import Arithmetic, using
from widehead.errors import NonFiniteError, StaleGraphError, UnstableStepWarning

D, WIDTH = 80, 12
SIZES = [9, 25, 1, 9]  # of batches: both forms of a step
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda head: wh.optim.SGD(head, lr=0.02),
    "clipped": lambda head: wh.optim.SGD(head, lr=0.02, max_grad_norm=0.01),
    "momentum, decay": lambda head: wh.optim.SGD(head, lr=0.02, momentum=0.9, weight_decay=0.01),
    "newton": wh.optim.Newton,
    "shampoo": wh.optim.Shampoo,
    "muon": wh.optim.Muon,
}
ROWS = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnstableStepWarning)
        yield


def given(b: Batch, dtype: torch.dtype) -> torch.Tensor:
    return b.hidden.to(device=DEVICE, dtype=dtype, copy=True)


def by_autograd(head: wh.ExactHead, hidden: torch.Tensor, targets: Any, **options: Any) -> tuple[Any, Any]:
    """The twin."""
    hidden = hidden.detach().requires_grad_()
    loss = head(hidden, targets, **options)
    loss.backward()
    return loss.detach(), hidden.grad


def twins(row: Row, dtype: torch.dtype) -> tuple[wh.ExactHead, wh.ExactHead]:
    head, _ = make_head(row, WIDTH, D, dtype)
    return head, copy.deepcopy(head)


def assert_same(found: tuple[torch.Tensor, torch.Tensor], expected: tuple[torch.Tensor, torch.Tensor]) -> None:
    assert found[0].shape == ()
    assert not found[0].requires_grad
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert found[1].dtype == expected[1].dtype


@ROWS
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_same_numbers_to_the_last_bit(row: Row, dtype: torch.dtype, kind: str) -> None:
    head, twin = twins(row, dtype)
    optimizer, other = OPTIMIZERS[kind](head), OPTIMIZERS[kind](twin)
    generator = torch.Generator().manual_seed(7)
    for size in SIZES:
        b = batch(row, generator, size, WIDTH, D, dominant=3.0)
        found = head.loss_and_gradient(given(b, dtype), b.targets())
        assert_same(found, by_autograd(twin, given(b, dtype), b.targets()))
        optimizer.step()
        other.step()
        assert torch.equal(head.weight(), twin.weight())
    assert head.weights.steps == len(SIZES)


@ROWS
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
def test_weights_and_reductions(row: Row, reduction: Any, weighted: bool) -> None:
    head, twin = twins(row, torch.float32)
    b = batch(row, torch.Generator().manual_seed(3), 9, WIDTH, D)
    weight = torch.linspace(0.0, 2.0, 9, device=DEVICE) if weighted else None
    options = {"weight": weight, "reduction": reduction}
    found = head.loss_and_gradient(given(b, torch.float32), b.targets(), **options)
    assert_same(found, by_autograd(twin, given(b, torch.float32), b.targets(), **options))
    assert float(head.grad_norm()) == float(twin.grad_norm()) > 0.0


def test_examples_that_have_no_loss_count_for_nothing() -> None:
    head, twin = twins(next(row for row in TABLE if row.make().needs_targets), torch.float32)
    hidden = torch.randn(2, WIDTH, device=DEVICE)
    assert_same(head.loss_and_gradient(hidden, [[], []]), by_autograd(twin, hidden, [[], []]))
    assert float(head.grad_norm()) == 0.0


@ROWS
def test_no_examples(row: Row) -> None:
    head, twin = twins(row, torch.float32)
    hidden = torch.empty(0, WIDTH, device=DEVICE)
    assert_same(head.loss_and_gradient(hidden, []), by_autograd(twin, hidden, []))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_hidden_layers_of_more_dimensions_and_of_other_types(dtype: torch.dtype) -> None:
    head = wh.ExactHead(WIDTH, D, wh.losses.SphericalSoftmax(), bias=True, device=DEVICE, dtype=torch.float32)
    twin = copy.deepcopy(head)
    hidden = torch.randn(3, 4, WIDTH).to(DEVICE, dtype)
    targets, weight = torch.arange(12).view(3, 4), torch.rand(3, 4, device=DEVICE)
    found = head.loss_and_gradient(hidden, targets, weight=weight)
    assert found[1].shape == hidden.shape
    assert_same(found, by_autograd(twin, hidden, targets, weight=weight))


def test_passes_add_up_whichever_way_they_were_made() -> None:
    head, twin = twins(TABLE[0], torch.float32)
    optimizer, other = wh.optim.SGD(head, lr=0.02), wh.optim.SGD(twin, lr=0.02)
    generator = torch.Generator().manual_seed(5)
    batches = [batch(TABLE[0], generator, 9, WIDTH, D) for _ in range(3)]
    for number, b in enumerate(batches):
        (by_autograd if number == 1 else wh.ExactHead.loss_and_gradient)(head, given(b, torch.float32), b.targets())
        by_autograd(twin, given(b, torch.float32), b.targets())
    optimizer.step()
    other.step()
    assert torch.equal(head.weight(), twin.weight())


def test_an_encoder_takes_the_gradient() -> None:
    head, twin = twins(TABLE[0], torch.float32)
    encoder = torch.nn.Linear(5, WIDTH, device=DEVICE)
    other = copy.deepcopy(encoder)
    x, ids = torch.randn(4, 5, device=DEVICE), torch.arange(4)
    hidden = encoder(x)
    hidden.backward(head.loss_and_gradient(hidden, ids)[1])
    twin(other(x), ids).backward()
    assert torch.equal(encoder.weight.grad, other.weight.grad)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_not_finite_changes_nothing(dtype: torch.dtype) -> None:
    head, _ = make_head(TABLE[0], WIDTH, D, dtype)
    optimizer, before = wh.optim.SGD(head, lr=0.02), head.weight()
    hidden = torch.full((2, WIDTH), torch.nan, device=DEVICE, dtype=dtype)
    loss, _ = head.loss_and_gradient(hidden, [[1], [2]])
    assert loss.isnan()
    with pytest.raises(NonFiniteError, match="the hidden layer"):
        optimizer.step()
    assert torch.equal(head.weight(), before)
    optimizer.zero_grad()
    head.loss_and_gradient(torch.ones_like(hidden), [[1], [2]])
    optimizer.step()
    assert not torch.equal(head.weight(), before)


@pytest.mark.parametrize("rest", [wh.ExactHead.eval, lambda head: head.requires_grad_(False)], ids=["eval", "frozen"])
def test_a_head_that_does_not_learn_keeps_no_step(rest: Callable[[wh.ExactHead], Any]) -> None:
    head, twin = twins(TABLE[0], torch.float32)
    rest(head), rest(twin)
    hidden = torch.randn(2, WIDTH, device=DEVICE)
    assert_same(head.loss_and_gradient(hidden, [[1], [2, 3]]), by_autograd(twin, hidden, [[1], [2, 3]]))
    assert head.pending_gradient() is None


def test_weights_that_a_loss_changes_are_stale() -> None:
    """As between forward and backward."""
    head = wh.ExactHead(WIDTH, D, wh.losses.SphericalLoss(lambda q, s, a, targets: q), device=DEVICE)
    head.loss.fn = lambda q, s, a, targets: (head.load_weight(head.weight()), q)[1]  # type: ignore[attr-defined]
    with pytest.raises(StaleGraphError, match="changed between forward and backward"):
        head.loss_and_gradient(torch.ones(2, WIDTH, device=DEVICE), [[1], [2]])


def test_bad_input_is_refused() -> None:
    head, _ = make_head(TABLE[0], WIDTH, D, torch.float32)
    hidden = torch.ones(2, WIDTH, device=DEVICE)
    none: Any = "none"
    with pytest.raises(ValueError, match=r"`reduction` should be .* Found 'none'"):
        head.loss_and_gradient(hidden, [[1], [2]], reduction=none)
    with pytest.raises(ValueError, match=r"`hidden` should be a tensor of shape \(m, 12\)"):
        head.loss_and_gradient(hidden[:, :5], [[1], [2]])
    with pytest.raises(ValueError, match="targets for 2 examples"):
        head.loss_and_gradient(hidden, [[1]])
    with pytest.raises(ValueError, match=r"`weight` should have shape \(2,\)"):
        head.loss_and_gradient(hidden, [[1], [2]], weight=torch.ones(3))
    with pytest.raises(ValueError, match=r"`weight` should have shape \(1, 2\)"):
        head.loss_and_gradient(hidden[None], [[[1], [2]]], weight=torch.ones(2, 1))
    assert head.pending_gradient() is None


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_step_is_left_where_autograd_is_off(mode: Any) -> None:
    head, twin = twins(TABLE[0], torch.float32)
    optimizer, other = wh.optim.SGD(head, lr=0.02), wh.optim.SGD(twin, lr=0.02)
    hidden = torch.randn(2, WIDTH, device=DEVICE)
    with mode():
        found = head.loss_and_gradient(hidden, [[1], [2, 3]])
        optimizer.step()
    assert_same(found, by_autograd(twin, hidden, [[1], [2, 3]]))
    other.step()
    assert torch.equal(head.weight(), twin.weight())


@pytest.mark.parametrize("around", [nullcontext(), using(Arithmetic())], ids=["chosen", "torch's operations"])
def test_inside_autocast_nothing_is_rounded(around: AbstractContextManager[None]) -> None:
    head, twin = twins(TABLE[0], torch.float32)
    b = batch(TABLE[0], torch.Generator().manual_seed(3), 9, WIDTH, D)
    with around:
        with torch.autocast(torch.device(DEVICE).type, dtype=torch.bfloat16):
            found = head.loss_and_gradient(given(b, torch.float32), b.targets())
        assert_same(found, twin.loss_and_gradient(given(b, torch.float32), b.targets()))
