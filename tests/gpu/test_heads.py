"""Every head on the device beside the same head on the CPU."""

from __future__ import annotations

import copy
from typing import Any

import torch
from support.properties import relative

import widehead as wh
from gpu.device import DEVICE, note, share_of
from widehead.names import HEADS

CLASSES, WIDTH, EXAMPLES = 400, 16, 8


def made(name: str, bias: bool) -> Any:
    torch.manual_seed(0)
    loss = {"loss": wh.losses.SphericalSoftmax()} if name == "exact" else {}
    return HEADS[name](WIDTH, CLASSES, bias=bias, **loss)


def beside(name: str, bias: bool) -> float:
    """The largest relative difference between the CPU and the device, of whatever is not drawn."""
    on_cpu = made(name, bias).eval()
    there = copy.deepcopy(on_cpu).to(DEVICE)
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(EXAMPLES, WIDTH, generator=generator)
    ids = torch.randint(CLASSES, (EXAMPLES, 3), generator=generator)
    found: list[tuple[Any, Any]] = [(there.scores(hidden.to(DEVICE)), on_cpu.scores(hidden))]
    if getattr(on_cpu, "has_probabilities", True):
        found.append((there.log_prob(hidden.to(DEVICE), ids.to(DEVICE)), on_cpu.log_prob(hidden, ids)))
        losses = [head(h, ids, reduction="none") for head, h in ((there, hidden.to(DEVICE)), (on_cpu, hidden))]
        found.append((losses[0], losses[1]))
    scores, classes = there.top_k(hidden.to(DEVICE), 7)
    best = on_cpu.scores(hidden).topk(7, dim=1).values
    found += [(scores, best), (on_cpu.scores(hidden).gather(1, classes.cpu()), best)]
    return max(relative(ours, theirs) for ours, theirs in found)


def trained(name: str) -> tuple[float, float]:
    """Loss at the beginning and at the end of some steps on what can be learnt."""
    head = made(name, False).to(DEVICE)
    torch.manual_seed(2)
    encoder = torch.nn.Sequential(torch.nn.Embedding(CLASSES, WIDTH), torch.nn.Tanh()).to(DEVICE)
    optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(encoder.parameters(), lr=0.05)]
    if name == "exact":
        optimizers.append(wh.optim.Newton(head))
    elif head.sparse:
        optimizers.append(wh.optim.RowAdam(head.parameters(), lr=0.05))
    else:
        optimizers.append(torch.optim.Adam(head.parameters(), lr=0.05))
    losses = []
    for step in range(share_of(60)):
        inputs = torch.randint(CLASSES, (64,), generator=torch.Generator().manual_seed(step))
        loss = head(encoder(inputs.to(DEVICE)), inputs)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.detach())
    told = torch.stack(losses).cpu()
    return float(told[:2].mean()), float(told[-2:].mean())


def test_values_are_those_of_the_cpu() -> None:
    off = {f"{name}{', bias' * bias}": beside(name, bias) for name in HEADS for bias in (False, True)}
    note(off_by=off)
    assert max(off.values()) < 1e-4, off


def test_every_head_trains() -> None:
    found = {name: trained(name) for name in HEADS}
    note(loss=found)
    for name, (first, last) in found.items():
        assert last < first, (name, first, last)
