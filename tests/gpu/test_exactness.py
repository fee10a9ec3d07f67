"""W after many float32 steps on the device, beside dense float64 and dense float32."""

from __future__ import annotations

import math
import warnings

import torch
from support import reference
from support.properties import TABLE, batch, dense_loss, dense_mean, head_loss, make_head, relative
from torch import Tensor

import widehead as wh
from gpu.device import DEVICE, note, share_of

CLASSES, WIDTH, EXAMPLES, TARGETS = 3_000, 32, 16, 2
#: kinds of hidden layers, and lr in parts of the largest stable one
HOSTILE = [("ordinary", 0.1), ("ordinary", 0.5), ("dominant", 0.5), ("dominant", 0.9), ("rank one", 0.5)]


def test_every_loss_steps_as_a_dense_layer() -> None:
    """Losses × SGD and momentum, ragged targets, batches smaller and larger than the width."""
    worst = {}
    for options in ({"lr": 0.02}, {"lr": 0.02, "momentum": 0.9}, {"lr": 0.02, "momentum": 0.8, "nesterov": True}):
        for row in TABLE:
            head, weight = make_head(row, 12, 80, torch.float32)
            optimizer = wh.optim.SGD(head, **options)
            twin = reference.DenseSGD(weight, **options)
            generator = torch.Generator().manual_seed(7)
            for step in range(share_of(80)):
                b = batch(row, generator, 25 if step % 5 == 4 else 9, 12, 80, dominant=3.0)
                head_loss(head, b)[0].backward()
                losses, _, leaf = dense_loss(row, twin.weight, b)
                dense_mean(losses, row, b).backward()
                twin.parameter.grad = leaf.grad
                twin.optimizer.step()
                optimizer.step()
            name = f"{row.name}, momentum {options.get('momentum', 0.0)}"
            worst[name] = max(worst.get(name, 0.0), relative(head.weight(), twin.weight))
    note(weight_off_by=worst)
    assert max(worst.values()) < 1e-5, worst


def hidden_of(kind: str, step: int, generator: torch.Generator) -> Tensor:
    """(m, d) in float64."""
    noise = torch.randn(EXAMPLES, WIDTH, generator=generator, dtype=torch.float64)
    if kind == "ordinary":
        return 0.5 * noise
    direction = torch.cos(torch.arange(WIDTH, dtype=torch.float64) * (1.0 + 1e-4 * step))
    direction *= math.sqrt(WIDTH) / direction.norm()
    if kind == "rank one":
        return 0.02 * noise + 0.5 * direction
    lengths = 1.0 + 0.2 * torch.randn(EXAMPLES, 1, generator=generator, dtype=torch.float64)
    return 0.3 * noise + 0.3 * lengths * direction


def largest_stable(kind: str) -> float:
    generator = torch.Generator().manual_seed(99)
    return min(EXAMPLES / float(torch.linalg.matrix_norm(hidden_of(kind, 0, generator), 2)) ** 2 for _ in range(50))


def dense_step(weight: Tensor, hidden: Tensor, ids: Tensor, lr: float) -> Tensor:
    """The squared error's step of a dense layer, in the type of its weights."""
    by_outputs = 2.0 / EXAMPLES * (hidden.to(weight) @ weight.T)
    rows = torch.arange(EXAMPLES, device=ids.device)[:, None].expand_as(ids)
    by_outputs.index_put_((rows, ids), weight.new_full((), -2.0 / EXAMPLES), accumulate=True)
    return weight - lr * (by_outputs.T @ hidden.to(weight))


def hostile_errors(kind: str, share: float) -> tuple[float, float]:
    """How far W is from dense float64 after many steps: the head's, and that of a dense float32 layer."""
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(CLASSES, WIDTH, generator=generator, dtype=torch.float64) / math.sqrt(WIDTH)
    exact, plain = start.to(DEVICE), start.to(DEVICE, torch.float32)
    head = wh.ExactHead(WIDTH, CLASSES, wh.losses.SquaredError(), device=DEVICE)
    head.load_weight(plain)
    exact.copy_(plain)
    optimizer = wh.optim.SGD(head, lr=share * largest_stable(kind))
    lr = optimizer.param_groups[0]["lr"]
    for step in range(share_of(300)):
        hidden = hidden_of(kind, step, generator).float()
        level = torch.rand(EXAMPLES, TARGETS, generator=generator)
        ids = torch.expm1(level * math.log1p(CLASSES)).long().clamp_(max=CLASSES - 1)
        ids[:, 1] = (ids[:, 0] + 1 + ids[:, 1] // 2) % CLASSES  # two that are not the same
        there, names = hidden.to(DEVICE), ids.to(DEVICE)
        exact, plain = dense_step(exact, there, names, lr), dense_step(plain, there, names, lr)
        head(there.clone().requires_grad_(), ids).backward()
        optimizer.step()
    return relative(head.weight(), exact.cpu()), relative(plain, exact.cpu())


def test_hostile_hidden_layers_cost_no_digits() -> None:
    """W is off by at most twice what a dense float32 layer is off by, and the last two bits of a number."""
    warnings.simplefilter("ignore", wh.errors.UnstableStepWarning)
    found = {f"{kind}, {share} of the largest stable lr": hostile_errors(kind, share) for kind, share in HOSTILE}
    note(weight_off_by={name: {"head": ours, "dense float32": dense} for name, (ours, dense) in found.items()})
    for name, (ours, dense) in found.items():
        assert ours <= 2.0 * dense + 2.4e-7, (name, ours, dense)


def test_state_goes_to_the_cpu_and_back() -> None:
    row = TABLE[4]
    head, _ = make_head(row, 12, 80, torch.float32)
    optimizer = wh.optim.SGD(head, lr=0.02)
    for seed in range(20):
        head_loss(head, batch(row, torch.Generator().manual_seed(seed), 9, 12, 80))[0].backward()
        optimizer.step()
    before = head.weight().cpu()
    on_cpu = wh.ExactHead(12, 80, row.make())
    on_cpu.load_state_dict(head.state_dict())
    again = wh.ExactHead(12, 80, row.make(), device=DEVICE)
    again.load_state_dict(on_cpu.state_dict())
    off = relative(on_cpu.weight(), before), relative(again.weight(), before)
    note(weight_off_by=off)
    assert max(off) < 1e-6
