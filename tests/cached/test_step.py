"""A step on a device: kernels, waits of the host, and what torch.compile makes of it."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._dynamo  # before a device is played: it makes lists of functions as they are
from support.played import Count, Device
from support.properties import TABLE, Row
from torch.fx.experimental.proxy_tensor import make_fx

import widehead as wh
from widehead.arithmetic import StepRule
from widehead.cached import CachedWeights, cached_everywhere
from widehead.cached.step import plan_step
from widehead.errors import WideheadWarning
from widehead.factored import output_gradient
from widehead.targets import SparseTargets

D, WIDTH, M = 400, 12, 8
OPTIMIZERS: dict[str, Callable[[wh.ExactHead], Any]] = {
    "sgd": lambda head: wh.optim.SGD(head, lr=0.01),
    "decay": lambda head: wh.optim.SGD(head, lr=0.01, weight_decay=0.01),
    "momentum": lambda head: wh.optim.SGD(head, lr=0.01, momentum=0.9),
    "clipped": lambda head: wh.optim.SGD(head, lr=0.01, max_grad_norm=1.0),
    "newton": lambda head: wh.optim.Newton(head, lr=0.5),
    "shampoo": lambda head: wh.optim.Shampoo(head, lr=0.01),
    "muon": lambda head: wh.optim.Muon(head, lr=0.01),
}
SQUARED = TABLE[0]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", WideheadWarning)
        yield


def warm_step(device: Device, row: Row, kind: str, steps: int = 11) -> dict[str, Count]:
    """What a step counts in each of its parts, after ``steps`` − 1 others."""
    torch.manual_seed(0)
    head = wh.ExactHead(WIDTH, D, row.make(), device="cuda")
    optimizer = OPTIMIZERS[kind](head)
    found: dict[str, Count] = {}
    for _ in range(steps):
        hidden = torch.randn(M, WIDTH, device="cuda").requires_grad_()
        on_host = SparseTargets(torch.randint(D, (M,)), torch.arange(M + 1), torch.ones(M) if row.valued else None)
        targets = head.prepare_targets(on_host).to("cuda")
        with device.counting() as found["forward"]:
            loss = head(hidden, targets)
        with device.counting() as found["backward"]:
            loss.backward()
        with device.counting() as found["step"]:
            optimizer.step()
    return found


def launches(found: dict[str, Count]) -> int:
    return sum(count.launches for count in found.values())


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
@pytest.mark.parametrize("kind", ["sgd", "newton"])
def test_nothing_waits_whatever_the_loss(played: Device, row: Row, kind: str) -> None:
    found = warm_step(played, row, kind)
    waits = [wait for count in found.values() for wait in count.waits]
    assert waits == [], "\n".join(map(str, waits))


#: waits of the host in (forward, backward, step), and the most kernels of all three
ALLOWED = {
    "sgd": ((0, 0, 0), 75),
    "decay": ((0, 0, 0), 80),
    "momentum": ((0, 0, 0), 110),
    "clipped": ((0, 0, 0), 100),
    "newton": ((0, 0, 0), 106),
    "shampoo": ((0, 0, 0), 114),
    "muon": ((0, 0, 0), 170),
}
RENEWED = {"newton": 124, "shampoo": 175}  # the most kernels of a step that makes R anew: the twelfth, not the eleventh


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_waits_and_kernels_of_a_step(played: Device, kind: str) -> None:
    found = warm_step(played, SQUARED, kind)
    waits = [wait for count in found.values() for wait in count.waits]
    expected, most = ALLOWED[kind]
    assert tuple(len(count.waits) for count in found.values()) == expected, "\n".join(map(str, waits))
    lines = sum((count.kernels_by_line for count in found.values()), start=Counter[str]())
    assert launches(found) <= most, lines.most_common()


@pytest.mark.parametrize("kind", RENEWED)
def test_kernels_of_a_step_that_renews(played: Device, kind: str) -> None:
    found = warm_step(played, SQUARED, kind, steps=12)
    assert [wait for count in found.values() for wait in count.waits] == []
    assert ALLOWED[kind][1] < launches(found) <= RENEWED[kind]


def test_a_wait_in_a_training_step_is_seen(played: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    real = CachedWeights.plan

    def looks(self: CachedWeights, gradient: Any, *rest: Any, **options: Any) -> Any:
        assert bool(torch.isfinite(gradient.by_hidden).all())
        return real(self, gradient, *rest, **options)

    monkeypatch.setattr(CachedWeights, "plan", looks)
    found = warm_step(played, SQUARED, "sgd")
    assert [len(count.waits) for count in found.values()] == [0, 0, 1]


def test_segments_end_and_all_rows_move_without_a_wait(played: Device) -> None:
    """All boundaries are used up."""
    head = wh.ExactHead(WIDTH, D, wh.losses.SquaredError(), device="cuda")
    optimizer = wh.optim.SGD(head, lr=0.01)
    targets = SparseTargets(torch.arange(M), torch.arange(M + 1)).to("cuda")
    hidden = torch.randn(M, WIDTH, device="cuda")
    head(hidden, targets).backward()
    optimizer.step()
    weights = head.weights
    assert isinstance(weights, CachedWeights)
    with played.counting() as seen:
        for _ in range(4 * 32):
            head(hidden, targets).backward()
            optimizer.step()
    assert (weights.closes, weights.moved_rows) == (4, D)
    assert [str(wait) for wait in seen.waits if "cached/" in str(wait)] == []
    assert len(seen.waits) <= 4, "the optimiser looks at the curvature once in a hundred steps"


# -- torch.compile ------------------------------------------------------------------------------------------------


def cached_head(momentum: bool) -> tuple[wh.ExactHead, CachedWeights]:
    """A head in the middle of a segment, some boundaries old."""
    torch.manual_seed(0)
    with cached_everywhere():
        head = wh.ExactHead(WIDTH, D, wh.losses.SquaredError(), dtype=torch.float64)
        optimizer = wh.optim.SGD(head, lr=0.01, momentum=0.9 if momentum else 0.0)
        for step in range(4):
            head(torch.randn(M, WIDTH, dtype=torch.float64), torch.randint(D, (M, 2))).backward()
            optimizer.step()
            if step % 2:
                head.weights.close_segment()  # type: ignore[attr-defined]
    head(torch.randn(M, WIDTH, dtype=torch.float64), torch.randint(D, (M, 2))).backward()
    assert isinstance(head.weights, CachedWeights)
    return head, head.weights


def compiled(function: Callable[..., Any], backend: str = "eager") -> Callable[..., Any]:
    torch._dynamo.reset()
    made: Callable[..., Any] = torch.compile(function, fullgraph=True, backend=backend)
    return made


COMPILED = [(momentum, shifted, "eager") for momentum in (False, True) for shifted in (False, True)]
COMPILED += [pytest.param(both, both, "inductor", marks=pytest.mark.long) for both in (False, True)]


@pytest.mark.parametrize(("momentum", "shifted", "backend"), COMPILED)
def test_a_step_compiles_into_one_graph(momentum: bool, shifted: bool, backend: str) -> None:
    head, weights = cached_head(momentum)
    pending = head.pending_gradient()
    assert pending is not None
    rule = StepRule.heavy_ball(0.01, 0.9) if momentum else StepRule.sgd(0.01, 0.1)
    constant = torch.randn(M, dtype=torch.float64) if shifted else None

    def step(lam: torch.Tensor, sparse: torch.Tensor) -> tuple[torch.Tensor, ...]:
        gradient = output_gradient(weights, pending.read, lam, constant, sparse)
        change = plan_step(weights, gradient, rule, None, None, None)
        return change.master, change.cache, change.allowed

    parts = pending.by_squared_norm, pending.sparse
    expected = step(*parts)
    # Fake tensors have no numbers: whoever reads one is refused.
    graph = make_fx(step, tracing_mode="fake", _allow_non_fake_inputs=True)(*parts)
    for made in (compiled(step, backend), graph):
        for found, wanted in zip(made(*parts), expected, strict=True):
            assert torch.allclose(found, wanted, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("what", ["forward", "close", "sweep"])
def test_so_do_the_end_of_a_segment_and_the_pass_over_v(what: str) -> None:
    outcomes = []
    for wrap in (lambda function: function, compiled):
        weights = cached_head(False)[1]
        kept, factor = weights.kept, weights.small.factor
        hidden, targets = torch.randn(M, WIDTH, dtype=torch.float64), SparseTargets.from_ids(torch.arange(M))
        functions: dict[str, Callable[[], Any]] = {
            "forward": lambda w=weights, h=hidden, t=targets: w.forward(h, t).outputs,
            "close": lambda k=kept, f=factor: k.close(f, lambda rows, names, first: rows),
            "sweep": lambda k=kept: k.sweep(lambda rows, names: rows),
        }
        if what == "sweep":
            weights.close_segment()
        wrap(functions[what])()
        outcomes.append([kept.rows.stored, kept.stamps, kept.transforms, kept.cache, weights.dense()])
    for found, wanted in zip(*outcomes, strict=True):
        assert torch.equal(found, wanted)
