"""Heads under torch.amp.GradScaler: the steps of the unscaled loss, bit for bit, or none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from support.small_head import WIDTH, data, make
from torch.amp import GradScaler

import widehead as wh
from widehead.errors import NonFiniteError
from widehead.optim import HeadOptimizer

Made = Callable[[wh.ExactHead], HeadOptimizer]
KINDS = {
    "SGD": lambda head: wh.optim.SGD(head, lr=0.05, weight_decay=0.01),
    "momentum": lambda head: wh.optim.SGD(head, lr=0.02, momentum=0.9, max_grad_norm=0.5),
    "Newton": lambda head: wh.optim.Newton(head, max_grad_norm=0.5),
    "Shampoo": lambda head: wh.optim.Shampoo(head, lr=0.05),
    "Muon": lambda head: wh.optim.Muon(head, lr=0.05),
}
EVERY = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def pair(kind: Made) -> tuple[wh.ExactHead, HeadOptimizer, wh.ExactHead, HeadOptimizer]:
    """A head and its twin that knows no scaler, with their optimisers."""
    head, twin = (make(wh.losses.SphericalSoftmax(), torch.float32) for _ in range(2))
    return head, kind(head), twin, kind(twin)


def loss(head: wh.ExactHead, seed: int, factor: float = 1.0) -> torch.Tensor:
    hidden, ids = data(6, seed)
    return head(factor * hidden.float(), ids)


@EVERY
@pytest.mark.parametrize("parts", [1, 3], ids=["one pass", "accumulation"])
def test_scaled_steps_are_the_unscaled_ones(kind: Made, parts: int) -> None:
    head, optimizer, twin, theirs = pair(kind)
    scaler = GradScaler("cpu", growth_interval=2)
    for step in range(6):
        for part in range(parts):
            scaler.scale(loss(head, 10 * step + part)).backward()
            loss(twin, 10 * step + part).backward()
        scaler.step(optimizer)
        scaler.update()
        theirs.step()
        assert torch.equal(head.weight(), twin.weight())
    assert scaler.get_scale() == 2.0**19


@EVERY
def test_unscaling_before_clipping_by_our_own_function(kind: Made) -> None:
    head, optimizer, twin, theirs = pair(kind)
    scaler, norms = GradScaler("cpu"), []
    for step in range(4):
        scaler.scale(loss(head, step)).backward()
        scaler.unscale_(optimizer)
        norms.append(wh.optim.clip_grad_norm_([], head, 0.05))
        scaler.step(optimizer)
        scaler.update()
        loss(twin, step).backward()
        norms.append(wh.optim.clip_grad_norm_([], twin, 0.05))
        theirs.step()
        assert torch.equal(norms[-2], norms[-1])
        assert torch.equal(head.weight(), twin.weight())


def test_unscaling_before_a_further_backward_pass_and_by_the_hand() -> None:
    head, optimizer, twin, theirs = pair(KINDS["SGD"])
    scaler = GradScaler("cpu", init_scale=1024.0)
    scaler.scale(loss(head, 1)).backward()
    scaler.unscale_(optimizer)
    loss(head, 2).backward()  # unscaled itself
    scaler.step(optimizer)
    scaler.update()
    for seed in (1, 2):
        loss(twin, seed).backward()
    theirs.step()
    scaler.scale(loss(head, 3)).backward()
    head.scale_pending(1.0 / scaler.get_scale())
    optimizer.step()
    loss(twin, 3).backward()
    theirs.step()
    assert torch.equal(head.weight(), twin.weight())


@EVERY
def test_a_scale_that_overflows_leaves_the_step_out_and_comes_down(kind: Made) -> None:
    head, optimizer, twin, theirs = pair(kind)
    scaler, weight = GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-100), head.weight()
    scaler.scale(loss(head, 1) * 1e3).backward()
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(head.weight(), weight)
    assert head.pending_gradient() is None
    assert scaler.get_scale() == 2.0**27
    for step in range(3):
        scaler.scale(loss(head, step)).backward()
        scaler.step(optimizer)
        scaler.update()
        loss(twin, step).backward()
        theirs.step()
    assert torch.equal(head.weight(), twin.weight())


def test_a_hidden_layer_that_is_not_finite_leaves_the_step_out() -> None:
    head, optimizer, _, _ = pair(KINDS["SGD"])
    scaler, weight = GradScaler("cpu"), head.weight()
    scaler.scale(loss(head, 1, float("inf"))).backward()
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(head.weight(), weight)
    assert scaler.get_scale() == 2.0**15


def test_encoder_and_head_by_one_scaler() -> None:
    """And an infinity in the encoder alone leaves the encoder's step out alone, as with two optimisers of torch."""
    heads, encoders = [], []
    for scaled in (True, False):
        head = make(wh.losses.SphericalSoftmax(), torch.float32)
        encoder = torch.nn.Linear(WIDTH, WIDTH)
        torch.nn.init.eye_(encoder.weight)
        torch.nn.init.zeros_(encoder.bias)
        optimizers = torch.optim.SGD(encoder.parameters(), lr=0.1), wh.optim.Newton(head)
        scaler = GradScaler("cpu", enabled=scaled)
        for step in range(4):
            hidden, ids = data(6, step)
            for optimizer in optimizers:
                optimizer.zero_grad()
            scaler.scale(head(encoder(hidden.float()), ids)).backward()
            if step == 2:
                encoder.bias.grad.fill_(torch.inf)  # type: ignore[union-attr]
            for optimizer in optimizers:
                if scaled or step != 2 or optimizer is optimizers[1]:
                    scaler.step(optimizer)
            scaler.update()
        heads.append(head.weight())
        encoders.append(encoder.weight)
    assert torch.equal(*heads)
    assert torch.equal(*encoders)


@EVERY
@pytest.mark.parametrize(("scale", "parts"), [(2.0**16, 1), (2.0**16, 8), (256.0, 1)])
def test_a_step_past_the_scaler_is_refused(kind: Made, scale: float, parts: int) -> None:
    head, optimizer, twin, theirs = pair(kind)
    scaler, weight = GradScaler("cpu", init_scale=scale), head.weight()
    scaler.scale(loss(head, 1) / parts).backward()
    with pytest.raises(RuntimeError, match=r"scaler\.step\(optimizer\)"):
        optimizer.step()
    assert torch.equal(head.weight(), weight)
    scaler.step(optimizer)
    (loss(twin, 1) / parts).backward()
    theirs.step()
    assert torch.equal(head.weight(), twin.weight())


@pytest.mark.parametrize("options", [{"enabled": False}, {}], ids=["disabled", "of another model"])
def test_losses_that_no_scaler_scaled_are_stepped_whatever_they_weigh(options: dict) -> None:
    head, optimizer, twin, theirs = pair(KINDS["Muon"])
    scaler = GradScaler("cpu", **options)
    scaler.scale(torch.ones(()))
    for one, steps in ((head, optimizer), (twin, theirs)):
        hidden, ids = data(20)
        one(hidden.float(), ids, reduction="sum").backward()
        steps.step()
    assert torch.equal(head.weight(), twin.weight())
    assert head.weights.steps == 1


@pytest.mark.parametrize("factor", [1e30, float("inf")])
def test_a_loss_that_is_no_scalers_is_told_as_what_it_is_beside_a_scaler(factor: float) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    scaler.scale(torch.ones(()))
    head = wh.ExactHead(4, 20, wh.losses.SquaredError())
    optimizer = wh.optim.SGD(head, lr=0.1)
    (head(torch.ones(3, 4), [[1], [2], [3]]) * factor).backward()
    with pytest.raises(NonFiniteError):
        optimizer.step()
