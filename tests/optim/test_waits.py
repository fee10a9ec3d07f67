"""On a GPU that the CPU plays: steps are proposed without a wait of the host, and remembered only if they were made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from support.played import Device, played_cuda

import widehead as wh
from widehead.errors import NonFiniteError
from widehead.optim.clipping import clip_factor

D, WIDTH = 40, 6
L = wh.losses
KINDS: dict[str, Callable[..., Any]] = {
    "SGD": lambda head, **options: wh.optim.SGD(head, **{"lr": 0.02, **options}),
    "momentum": lambda head, **options: wh.optim.SGD(head, **{"lr": 0.02, "momentum": 0.5, **options}),
    "Newton": lambda head, **options: wh.optim.Newton(head, ridge=0.1, **options),
    "Shampoo": lambda head, **options: wh.optim.Shampoo(head, **options),
    "Muon": lambda head, **options: wh.optim.Muon(head, **options),
}
EVERY = pytest.mark.parametrize("kind", KINDS)
LOSSES = pytest.mark.parametrize(
    "loss", [L.SquaredError(), L.SphericalSoftmax(), L.ZLoss()], ids=lambda x: type(x).__name__
)
WITH_MEMORY = pytest.mark.parametrize("kind", ["Newton", "Shampoo", "Muon"])


@pytest.fixture
def device() -> Iterator[Device]:
    with played_cuda() as played:
        yield played


def make(where: str, loss: wh.losses.Loss | None = None) -> wh.ExactHead:
    torch.manual_seed(0)
    head = wh.ExactHead(WIDTH, D, loss or L.SphericalSoftmax(), dtype=torch.float64)
    return head.to(where)


def backward(head: wh.ExactHead, m: int, seed: int, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    hidden = scale * torch.randn(m, WIDTH, generator=generator, dtype=torch.float64)
    ids = torch.randint(D, (m, 2), generator=generator)
    where = head.weights.values.device
    head(hidden.to(where), ids.to(where)).backward()


def on_device(number: float) -> torch.Tensor:
    return torch.tensor(number, dtype=torch.float64, device="cuda")


@EVERY
@LOSSES
@pytest.mark.parametrize(
    ("m", "as_tensors"),
    [(3, False), (9, True), *(pytest.param(*given, marks=pytest.mark.long) for given in ((9, False), (3, True)))],
)
def test_no_proposal_waits(kind: str, loss: wh.losses.Loss, m: int, as_tensors: bool, device: Device) -> None:
    """Clipped or not, R renewed or not, with lr, decay and momentum that the host knows or does not."""
    head = make("cuda", loss)
    optimizer = KINDS[kind](head, weight_decay=0.01)
    (group,) = optimizer.param_groups
    for step in range(13):
        backward(head, m, step)
        if step > 1:
            gradient = head.pending_gradient()
            assert gradient is not None
            with device.counting() as seen:
                gradient = gradient.scaled(clip_factor(gradient.norm(), 0.5))
                optimizer._propose(head, gradient, group)
            assert seen.waits == []
        optimizer.step()
        if as_tensors and step == 0:
            changing = {"lr", "weight_decay", "momentum"} & set(group) if kind != "SGD" else {"lr", "weight_decay"}
            group.update({name: on_device(group[name]) for name in changing})


@EVERY
@LOSSES
def test_weights_are_those_of_the_cpu(kind: str, loss: wh.losses.Loss, device: Device) -> None:
    heads = [make("cpu", loss), make("cuda", loss)]
    optimizers = [KINDS[kind](head, weight_decay=0.01, max_grad_norm=2.0) for head in heads]
    for step in range(14):
        for head, optimizer in zip(heads, optimizers, strict=True):
            backward(head, 3 if step % 2 else 9, step)
            optimizer.step()
    found, expected = heads[1].weight().cpu(), heads[0].weight()
    assert (found - expected).norm() < 1e-9 * expected.norm()
    if kind in ("Newton", "Shampoo", "Muon"):
        assert optimizers[0].trust() == optimizers[1].trust()


def refreshed(kind: str) -> dict[str, Any]:
    """Options with which the host's counts of steps do not matter."""
    return {"damping": 0.1} if kind == "Muon" else {"refresh_every": 1, "decay": 0.5}


@WITH_MEMORY
@pytest.mark.parametrize("blank", [0, 4])
def test_batches_that_say_nothing_change_nothing(kind: str, blank: int, device: Device) -> None:
    """As on a CPU, though the host does not know of them."""
    heads = [make("cpu"), make("cuda")]
    optimizers = [KINDS[kind](head, **refreshed(kind)) for head in heads]
    for step in range(8):
        for head, optimizer in zip(heads, optimizers, strict=True):
            backward(head, 5, step, float(step != blank))
            before = tensors(optimizer) if step == blank > 0 else {}
            weight = head.weight()
            optimizer.step()
            assert torch.equal(weight, head.weight()) == (step == blank)
            after = tensors(optimizer)
            assert all(torch.equal(before[name], after[name]) for name in before if name != "targets")
    assert torch.allclose(heads[1].weight().cpu(), heads[0].weight(), rtol=1e-9)


def tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    states = list(optimizer.state.values())
    return {k: v.clone() for state in states for k, v in state.items() if isinstance(v, torch.Tensor)}


@WITH_MEMORY
@pytest.mark.parametrize("bad", [0, 1, 5])
def test_a_batch_that_is_not_finite_leaves_no_trace(kind: str, bad: int, device: Device) -> None:
    """Not in the memory of a first step either; the error comes late."""
    heads = [make("cuda"), make("cuda")]
    optimizers = [KINDS[kind](head, **refreshed(kind)) for head in heads]
    errors = 0
    for step in range(8):
        for head, optimizer in zip(heads, optimizers, strict=True):
            if step == bad and head is heads[1]:
                backward(head, 5, step, float("nan"))
                optimizer.step()
            backward(head, 5, step)
            try:
                optimizer.step()
            except NonFiniteError:
                errors += 1
                optimizer.step()
    assert errors == 1
    assert torch.allclose(*(head.weight().cpu() for head in heads), rtol=1e-12)


@EVERY
@pytest.mark.parametrize("scale", [float("inf"), 1024.0], ids=["in this head", "in another"])
def test_steps_that_a_scaler_found_infinite_are_left_out_by_the_device(kind: str, scale: float, device: Device) -> None:
    heads = [make("cuda"), make("cuda")]
    optimizers = [
        KINDS[kind](head, **refreshed(kind) if kind in ("Newton", "Shampoo", "Muon") else {}) for head in heads
    ]
    for step in range(6):
        for head, optimizer in zip(heads, optimizers, strict=True):
            is_scaled = head is heads[1]
            if is_scaled or step != 3:
                backward(head, 5, step)
            if is_scaled:  # as in GradScaler.step
                head.scale_pending(scale if step == 3 else 1024.0)
                optimizer.found_inf, optimizer.grad_scale = on_device(float(step == 3)), on_device(1024.0)
            with device.counting() as seen:
                optimizer.step()
            assert step == 0 or seen.waits == []
    assert torch.allclose(*(head.weight().cpu() for head in heads), rtol=1e-12)
    heads[1].consolidate()  # nothing is left to report


def test_the_host_looks_at_one_step_in_a_hundred(device: Device) -> None:
    head, looked = make("cuda"), []
    optimizer = wh.optim.SGD(head, lr=1e-3)
    optimizer._watch = lambda head, *_: looked.append(head.weights.steps)  # type: ignore[method-assign]
    for step in range(102):
        backward(head, 2, step)
        optimizer.step()
    assert looked == [0, 100]


@EVERY
@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_numbers_in_tensors_make_the_steps_of_plain_ones(kind: str, where: str, device: Device) -> None:
    """Filled anew in each step, as schedules do it; a momentum that comes down to 0 and up again among them."""
    heads = [make(where), make(where)]
    optimizers = [KINDS[kind](head, weight_decay=0.01) for head in heads]
    groups = [optimizer.param_groups[0] for optimizer in optimizers]
    names = [name for name in ("lr", "weight_decay", "momentum") if groups[0].get(name)]
    groups[1].update({name: torch.tensor(groups[1][name], dtype=torch.float64, device=where) for name in names})
    for step in range(6):
        for name in names:
            groups[0][name] *= 0.0 if name == "momentum" and step == 2 else 0.9
            groups[0][name] = 0.3 if name == "momentum" and step == 4 else groups[0][name]
            groups[1][name].fill_(groups[0][name])
        for head, optimizer in zip(heads, optimizers, strict=True):
            backward(head, 5, step)
            optimizer.step()
    assert torch.allclose(heads[1].weight().cpu(), heads[0].weight().cpu(), rtol=1e-12)


@EVERY
def test_decay_that_would_wipe_out_the_weights_is_refused_of_a_tensor_too(kind: str) -> None:
    head = make("cpu")
    optimizer = KINDS[kind](head, lr=torch.tensor(0.5), weight_decay=2.0)
    backward(head, 4, 0)
    with pytest.raises(ValueError, match="below 1"):
        optimizer.step()


def test_a_momentum_in_a_tensor_comes_from_the_beginning() -> None:
    head = make("cpu")
    optimizer = wh.optim.SGD(head, lr=0.1)
    optimizer.param_groups[0]["momentum"] = torch.tensor(0.5)
    backward(head, 4, 0)
    with pytest.raises(ValueError, match="`momentum` should be above 0 from the beginning"):
        optimizer.step()
