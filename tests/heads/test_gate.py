"""Threads that read an exact head while another brings its rows up to date."""

from __future__ import annotations

import copy
import importlib
import pickle
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch

import widehead as wh
from widehead.cached import cached_everywhere
from widehead.heads.gate import Gate


def trained(momentum: float = 0.0) -> wh.ExactHead:
    torch.manual_seed(0)
    head = wh.ExactHead(16, 6000, wh.losses.SphericalSoftmax())
    optimizer = wh.optim.SGD(head, lr=2.0, momentum=momentum)
    for _ in range(40):
        head(torch.randn(32, 16), torch.randint(0, 6000, (32,))).backward()
        optimizer.step()
    return head.eval()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_reading_is_right_while_rows_are_rewritten(momentum: float) -> None:
    head, hidden, classes = trained(momentum), torch.randn(4, 16), torch.randint(0, 6000, (4, 50))
    train = wh.optim.SGD(head, lr=0.5, momentum=momentum)
    wrong: list[str] = []
    for turn in range(4):
        head.train()
        for _ in range(6):
            head(torch.randn(32, 16), torch.randint(0, 6000, (32,))).backward()
            train.step()
        head.eval()
        reads: dict[str, Callable[[], torch.Tensor]] = {
            "top_k": lambda: head.top_k(hidden, 5)[0],
            "scores": lambda: head.scores(hidden),
            "log_prob": lambda: head.log_prob(hidden, classes),
            "weight": head.weight,
        }
        expected, done = {name: read() for name, read in reads.items()}, threading.Event()

        def look(name: str) -> None:
            while not done.is_set():  # noqa: B023
                if not torch.allclose(reads[name](), expected[name], atol=1e-3):  # noqa: B023
                    wrong.append(f"{name} in turn {turn}")  # noqa: B023

        threads = [threading.Thread(target=look, args=(name,)) for name in reads]
        for thread in threads:
            thread.start()
        for _ in range(3):
            head.consolidate()
        done.set()
        for thread in threads:
            thread.join()
    assert not wrong


def test_a_writer_is_alone_and_comes_to_its_turn() -> None:
    gate, inside, seen = Gate(), [0], []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            with gate:
                seen.append(inside[0])

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for _ in range(20):
        with gate.writing():
            inside[0] = 1
            inside[0] = 0
    stop.set()
    for reader in readers:
        reader.join(timeout=10)
    assert set(seen) <= {0}
    for other in (copy.deepcopy(gate), pickle.loads(pickle.dumps(gate))):  # noqa: S301
        with other.writing():
            pass


def test_an_error_inside_leaves_the_gate_open() -> None:
    gate = Gate()
    for enter in (lambda: gate, gate.writing):
        with pytest.raises(RuntimeError, match="inside"), enter():
            raise RuntimeError("inside")
    with gate.writing():
        pass
    with gate:
        pass


@pytest.mark.parametrize("record", [nullcontext, cached_everywhere], ids=["factored", "cached"])
@pytest.mark.parametrize("disturbance", ["weight", "state_dict", "consolidate", "top_k"])
@pytest.mark.parametrize("steps", [25, pytest.param(100, marks=pytest.mark.long)])
def test_training_is_right_whatever_other_threads_ask_for(
    disturbance: str, record: Callable[[], AbstractContextManager[None]], steps: int
) -> None:
    torch.manual_seed(0)
    with record():
        head, alone = (wh.ExactHead(6, 50, wh.losses.SquaredError(), dtype=torch.float64) for _ in range(2))
    alone.load_state_dict(copy.deepcopy(head.state_dict()))
    done, problems = threading.Event(), []

    def disturb() -> None:
        while not done.is_set():
            try:
                head.top_k(torch.ones(2, 6), 3) if disturbance == "top_k" else getattr(head, disturbance)()
            except Exception as error:  # noqa: BLE001  it is told in the other thread
                problems.append(error)
                return

    threads, before = [threading.Thread(target=disturb) for _ in range(2)], sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        for thread in threads:
            thread.start()
        optimizers = [wh.optim.SGD(one, lr=0.01) for one in (head, alone)]
        for _ in range(steps):
            hidden, targets = torch.randn(4, 6, dtype=torch.float64), torch.randint(50, (4, 2))
            for one, optimizer in zip((head, alone), optimizers, strict=True):
                one(hidden, targets).backward()
                optimizer.step()
    finally:
        done.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(before)
    assert not problems
    assert head.audit().gram < 1e-12
    assert torch.allclose(head.weight(), alone.weight(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("record", [nullcontext, cached_everywhere], ids=["factored", "cached"])
def test_whatever_works_on_the_weights_holds_the_gate(
    record: Callable[[], AbstractContextManager[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a writer, if passes write."""
    with record():
        head = wh.ExactHead(6, 50, wh.losses.SquaredError())
    optimizer, kind = wh.optim.SGD(head, lr=0.01), type(head.weights)
    seen: dict[str, set[bool]] = {}

    def noted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*arguments: Any, **options: Any) -> Any:
            is_writing = head._gate._waiting
            seen.setdefault(name, set()).add(is_writing if kind.forward_writes else head._gate._readers > 0)
            return real(*arguments, **options)

        return noting

    for name in ("forward", "gradient", "plan", "apply", "factored"):
        monkeypatch.setattr(kind, name, noted(name, getattr(kind, name)))
    for place in ("exact_state.factored.pack", "pending.factored.accumulate"):
        owner = importlib.import_module(f"widehead.heads.{place.split('.')[0]}")
        for part in place.split(".")[1:-1]:
            owner = getattr(owner, part)
        name = place.rsplit(".", 1)[1]
        monkeypatch.setattr(owner, name, noted(place, getattr(owner, name)))
    head(torch.randn(4, 6), [[1], [2], [], [3]]).backward()
    head.grad_norm()
    optimizer.step()
    head.state_dict()
    assert len(seen) == 7
    assert all(held == {True} for held in seen.values()), seen
