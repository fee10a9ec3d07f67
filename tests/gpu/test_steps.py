"""A warm step of the exact head: it waits for nothing, rounds nothing to TF32, and is the same when it is captured."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from support.properties import relative
from torch import Tensor

import widehead as wh
from gpu.device import DEVICE, no_waits, note, share_of

CLASSES, WIDTH, EXAMPLES, TARGETS = 5_000, 64, 32, 3
OPTIMIZERS: dict[str, Callable[[wh.ExactHead], torch.optim.Optimizer]] = {
    "sgd": lambda head: wh.optim.SGD(head, lr=0.01),
    "momentum": lambda head: wh.optim.SGD(head, lr=0.01, momentum=0.9),
    "newton": lambda head: wh.optim.Newton(head),
}


def made(loss: wh.losses.Loss | None = None) -> wh.ExactHead:
    torch.manual_seed(0)
    return wh.ExactHead(WIDTH, CLASSES, loss or wh.losses.SphericalSoftmax(), device=DEVICE)


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    """Hidden layers on the device and class ids on the host."""
    generator = torch.Generator().manual_seed(1)
    shapes = (EXAMPLES, WIDTH), (EXAMPLES, TARGETS)
    drawn = [
        (torch.randn(shapes[0], generator=generator), torch.randint(CLASSES, shapes[1], generator=generator))
        for _ in range(count)
    ]
    return [(hidden.to(DEVICE), ids) for hidden, ids in drawn]


def test_a_warm_step_waits_for_nothing() -> None:
    for name, make in OPTIMIZERS.items():
        head = made()
        optimizer, drawn = make(head), batches(6)
        ready = [(hidden.requires_grad_(), wh.SparseTargets.from_ids(ids)) for hidden, ids in drawn]

        def step(hidden: Tensor, targets: wh.SparseTargets, head: Any = head, optimizer: Any = optimizer) -> None:
            optimizer.zero_grad()
            head(hidden, targets).backward()
            optimizer.step()

        for hidden, targets in ready:
            step(hidden, targets)
        try:
            with no_waits():
                for _ in range(share_of(10)):
                    for hidden, targets in ready:
                        step(hidden, targets)
        except (RuntimeError, AssertionError) as error:
            raise AssertionError(f"{name}: {error}") from error
        assert head.audit().finite


def weight_off(precision: str) -> dict[str, float]:
    """How far W is from dense float64 after steps under a setting of torch's float32 products."""
    off = {}
    torch.set_float32_matmul_precision(precision)
    try:
        for name in ("sgd", "momentum"):
            head = made(wh.losses.SquaredError())
            optimizer, weight = OPTIMIZERS[name](head), head.weight().double()
            speed = torch.zeros_like(weight)
            for hidden, ids in batches(share_of(60)):
                head(hidden.clone().requires_grad_(), ids).backward()
                optimizer.step()
                wide, names = hidden.double(), ids.to(DEVICE)
                by_outputs = 2.0 / EXAMPLES * (wide @ weight.T)
                rows = torch.arange(EXAMPLES, device=DEVICE)[:, None].expand_as(names)
                by_outputs.index_put_((rows, names), weight.new_full((), -2.0 / EXAMPLES), accumulate=True)
                speed = (0.9 if name == "momentum" else 0.0) * speed + by_outputs.T @ wide
                weight = weight - 0.01 * speed
            off[name] = relative(head.weight(), weight.cpu())
    finally:
        torch.set_float32_matmul_precision("highest")
    return off


def test_a_program_that_lets_torch_round_products_loses_no_digits() -> None:
    full, rounded = weight_off("highest"), weight_off("high")
    note(weight_off_by={"highest": full, "high": rounded})
    for name in full:
        assert rounded[name] <= 2.0 * full[name] + 1e-7, (name, full, rounded)


def captured_and_eager(name: str, steps: int) -> dict[str, float]:
    """How far apart losses and W are after so many steps, replayed and made one operation after the other."""
    torch.manual_seed(3)
    encoder = torch.nn.Sequential(torch.nn.Linear(WIDTH, WIDTH), torch.nn.Tanh()).to(DEVICE)
    sides = []
    for _ in range(2):
        head, own = made(), copy.deepcopy(encoder)
        sides.append((own, head, [torch.optim.SGD(own.parameters(), lr=0.01), OPTIMIZERS[name](head)]))
    graphed = wh.cuda.GraphedStep(*sides[0])
    own, head, optimizers = sides[1]
    worst = torch.zeros((), device=DEVICE)
    for hidden, ids in batches(4) * (steps // 4):
        replayed = graphed(hidden, ids)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = head(own(hidden), ids)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        worst = torch.maximum(worst, ((replayed - loss.detach()) / loss.detach()).abs())
    return {
        "loss": float(worst),
        "weight": relative(sides[0][1].weight(), head.weight().cpu()),
        "encoder": relative(sides[0][0][0].weight, own[0].weight.detach().cpu()),
    }


def test_two_hundred_replays_are_the_steps_made_one_by_one() -> None:
    off = {name: captured_and_eager(name, share_of(200)) for name in OPTIMIZERS}
    note(off_by=off)
    for name, parts in off.items():
        # Scattered sums are added in another order each time; what differs by the last bits grows with the steps.
        assert max(parts.values()) < 1e-4, (name, parts)
