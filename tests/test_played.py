"""The played CUDA device sees what a card would: waits with their line, mixed devices, launches, late copies."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from support.played import Device
from torch import Tensor, nn

from widehead.sampling.base import checked_frequencies


def weights() -> Tensor:
    return torch.arange(12.0, device="cuda").view(3, 4)


def test_a_planted_wait_is_seen_with_the_line_that_asks(played: Device) -> None:
    frequencies = torch.ones(5, device="cuda")
    with played.counting() as seen:
        checked_frequencies(frequencies, 5)
    (wait,) = seen.waits
    assert wait.operation == "_local_scalar_dense"
    assert wait.lines[0].startswith("sampling/base.py:")
    assert wait.lines[0].endswith(" checked_frequencies")


@pytest.mark.parametrize(
    ("ask", "waits"),
    [
        (lambda x: float(x.sum()), 1),
        (lambda x: bool((x > 0).all()), 1),
        (lambda x: x.tolist(), 1),
        (lambda x: x.cpu(), 1),
        (lambda x: x.to(torch.device("cpu"), torch.float64), 1),
        (lambda x: x[x > 3], 1),
        (lambda x: x.nonzero(), 1),
        (lambda x: torch.unique(x), 1),
        (lambda x: torch.linalg.eigh(x[:, :3]), 1),
        (lambda x: torch.linalg.cholesky(torch.eye(3, device=x.device)), 1),
        (lambda x: torch.linalg.cholesky_ex(torch.eye(3, device=x.device)), 0),
        (lambda x: torch.repeat_interleave(x[0].long()), 1),
        (lambda x: torch.repeat_interleave(x[0].long(), output_size=6), 0),
        (lambda x: torch.tensor([1.0, 2.0], device=x.device), 1),
        (lambda x: torch.ones(3).to(x), 1),
        (lambda x: torch.ones(3).to(x.device, non_blocking=True), 1),  # its memory is not pinned
        (lambda x: torch.ones(3).pin_memory().to(x.device, non_blocking=True), 0),
        (lambda x: torch.empty_like(x).copy_(torch.ones(3, 4).pin_memory(), non_blocking=True), 0),
        (lambda x: x.to("cpu", non_blocking=True), 0),
        (lambda x: torch.empty(3, 4, pin_memory=True).copy_(x, non_blocking=True), 0),
        (lambda x: torch.empty(3, 4).copy_(x, non_blocking=True), 1),
        (lambda x: x[torch.tensor([0, 1])], 1),
        (lambda x: (x @ x.T).exp().sum(), 0),
        (lambda x: torch.where(x > 1.0, x, torch.tensor(2.0)), 0),
        (lambda x: torch.cuda.synchronize(), 1),
    ],
)
def test_waits_of_operations(played: Device, ask: object, waits: int) -> None:
    x = weights()
    with played.counting() as seen:
        ask(x)  # type: ignore[operator]
    assert len(seen.waits) == waits, list(map(str, seen.waits))


@pytest.mark.parametrize(
    "mix",
    [
        lambda x: x + torch.ones(4),
        lambda x: x @ torch.ones(4),
        lambda x: torch.cat([x, torch.ones(1, 4)]),
        lambda x: x.index_add_(0, torch.tensor([1]), x[:1]),
        lambda x: x.index_put_((torch.tensor([1], device="cuda"),), torch.ones(4)),
        lambda x: torch.ones(3, 4)[x[0].long()],
        lambda x: nn.functional.embedding(torch.tensor([1]), x),
        lambda x: x.normal_(generator=torch.Generator()),
        lambda x: torch.randn(3, device="cuda", generator=torch.Generator()),
        lambda x: x.copy_(torch.ones(4)) * torch.ones(1),
    ],
)
def test_mixed_devices_are_refused(played: Device, mix: object) -> None:
    with pytest.raises(RuntimeError, match=r"Expected all tensors to be on the same device|device type for generator"):
        mix(weights())  # type: ignore[operator]


def test_launches_are_counted(played: Device) -> None:
    """A product, a bias in place, an exponential, a sum: views launch nothing, sorting more than one kernel."""
    x, bias = weights(), torch.ones(3, device="cuda")
    with played.counting() as seen:
        (x @ x.T).add_(bias).exp().view(9)[2:].sum()
    assert (seen.launches, dict(seen.kernels)) == (4, {"mm": 1, "add_": 1, "exp": 1, "sum": 1})
    with played.counting() as seen:
        torch.sort(x)
    assert seen.launches > 1


def test_a_copy_to_the_host_comes_when_it_was_waited_for(played: Device) -> None:
    ids = torch.tensor([3, 4], device="cuda")
    kept, event = ids.to("cpu", non_blocking=True), torch.cuda.Event()
    event.record()
    ids.zero_()
    played.late_queries = 2
    event.record()
    assert [event.query(), event.query()] == [False, False]
    assert kept.tolist() != [3, 4]
    with played.counting() as seen:
        assert event.query()
    assert (kept.tolist(), seen.waits) == ([3, 4], [])
    late, event = ids.to("cpu", non_blocking=True), torch.cuda.Event()
    event.record()
    with played.counting() as seen:
        event.synchronize()
    assert (late.tolist(), len(seen.waits)) == ([0, 0], 1)


def test_modules_gradients_and_optimizers_are_those_of_the_host(played: Device) -> None:
    torch.manual_seed(0)
    on_host = nn.Sequential(nn.Linear(4, 6, bias=False), nn.ReLU(), nn.Linear(6, 3))
    on_device = copy.deepcopy(on_host).to("cuda")
    assert {p.device.type for p in on_device.parameters()} == {"cuda"}
    for network in (on_host, on_device):
        optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
        for step in range(3):
            x = torch.linspace(-1.0, 1.0 + step, 8).view(2, 4).requires_grad_()
            network(x.to(next(network.parameters()).device)).square().sum().backward()
            assert x.grad is not None
            assert x.grad.device.type == "cpu"
            optimizer.step()
    for a, b in zip(on_host.parameters(), on_device.parameters(), strict=True):
        assert torch.equal(a, b.cpu())
    file = io.BytesIO()
    torch.save(on_device.state_dict(), file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    assert again["0.weight"].device.type == "cuda"
    assert torch.equal(again["0.weight"].cpu(), on_host[0].weight)


def test_generators_draw_on_the_device(played: Device) -> None:
    generator = torch.Generator(device="cuda").manual_seed(3)
    drawn = torch.randn(3, device="cuda", generator=generator)
    assert (drawn.device.type, generator.device.type) == ("cuda", "cuda")
    assert torch.equal(drawn.cpu(), torch.randn(3, generator=torch.Generator().manual_seed(3)))
    assert isinstance(torch.Generator(), torch.Generator)


def test_numpy_reads_nothing_of_the_device(played: Device) -> None:
    with pytest.raises(TypeError, match=r"Use Tensor\.cpu"):
        weights().numpy()
