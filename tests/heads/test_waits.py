"""How often a training step of each head makes the host wait for a GPU, and why; on the device that the CPU plays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.head_table import RAGGED, TABLE, VALUES, WIDTH, D, Row, make
from support.played import Device
from torch import Tensor

import widehead as wh

# In forward, backward and the step of an optimiser of torch. A head that is not named here never waits.
WAITS: dict[str, tuple[int, str]] = {
    "hierarchical two-level": (1, "the host cuts the table into the clusters that are needed"),
    "hierarchical huffman": (1, "how many inner nodes there are above the targets, which are at different depths"),
    "adaptive": (1, "how many targets there are in each cluster, and of how many examples"),
    "sampled quadratic": (1, "how many blocks were drawn: each is read once"),
    "retrieved": (1, "how many classes there are among those found, drawn and named: each is read once"),
}
TARGETS = {
    "ids": lambda: torch.tensor([3, 17, 59, 4, 0, 33]),
    "ragged": lambda: wh.SparseTargets.from_lists(RAGGED),
    "values": lambda: wh.SparseTargets.from_lists(RAGGED, VALUES),
    "on the device": lambda: wh.SparseTargets.from_lists(RAGGED, VALUES).to("cuda"),
}


def optimizer_of(head: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(head.parameters(), lr=0.1) if head.sparse else torch.optim.Adam(head.parameters())


@pytest.mark.parametrize("row", [row for row in TABLE if row.name != "exact"], ids=lambda row: row.name)
@pytest.mark.parametrize("form", TARGETS)
def test_waits_of_a_training_step(played: Device, row: Row, form: str) -> None:
    head = make(row, torch.float32).to("cuda")
    optimizer, hidden = optimizer_of(head), torch.randn(6, WIDTH, device="cuda", requires_grad=True)
    for step in range(4):
        targets = TARGETS[form]()
        with played.counting() as seen:
            optimizer.zero_grad()
            head(hidden, targets).backward()
            optimizer.step()
        number, _ = WAITS.get(row.name, (0, ""))
        assert step == 0 or len(seen.waits) == number, "\n".join(map(str, seen.waits))


def test_no_head_waits_twice_and_all_say_why() -> None:
    assert all(0 < number <= 1 and reason for number, reason in WAITS.values())


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_losses_and_gradients_are_those_of_the_host(played: Device, row: Row) -> None:
    def trained(device: str) -> list[Tensor]:
        head, hidden = make(row), torch.linspace(-1.0, 1.0, 6 * WIDTH, dtype=torch.float64).view(6, WIDTH)
        head, hidden = head.to(device), hidden.to(device).requires_grad_()
        torch.manual_seed(3)
        loss = head(hidden, TARGETS["values"]())
        loss.backward()
        own = [p.grad.to_dense() for p in head.parameters() if p.grad is not None and p.numel()]
        assert hidden.grad is not None
        return [part.cpu() for part in (loss.detach(), hidden.grad, *own)]

    for host, device in zip(trained("cpu"), trained("cuda"), strict=True):
        torch.testing.assert_close(device, host, rtol=1e-9, atol=1e-12)


def test_ids_on_the_device_are_read_once(played: Device) -> None:
    head = wh.FullSoftmaxHead(WIDTH, D, device="cuda")
    with played.counting() as seen:
        head(torch.randn(2, WIDTH, device="cuda"), torch.tensor([3, 5]).pin_memory().to("cuda", non_blocking=True))
    assert [wait.operation for wait in seen.waits] == ["copy to the host"]
