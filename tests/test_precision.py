"""Heads multiply float32 in float32, whatever a program lets torch do, and leave what it set as it was."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from support.head_table import ROWS, Row, make
from support.small_head import WIDTH, D
from torch.utils._python_dispatch import TorchDispatchMode

import widehead as wh
from widehead.precision import _BACKENDS, in_full_precision

IDS = torch.tensor([[3, 4], [5, 3], [0, 9]])
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "mv", "dot", "addmv")
SETTINGS: dict[str, Callable[[], Any]] = {
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "allow_tf32": lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
    "fp32_precision": lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
    "all backends": lambda: setattr(torch.backends, "fp32_precision", "tf32"),
}


def settings() -> tuple[str, str]:
    return torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision


@pytest.fixture
def restored() -> Iterator[None]:
    """Afterwards products are as they are in a new program."""
    yield
    torch.set_float32_matmul_precision("highest")
    for backend in (torch.backends, torch.backends.mkldnn, *_BACKENDS):  # type: ignore[attr-defined]
        backend.fp32_precision = "none"


@pytest.fixture(params=SETTINGS)
def rounded(request: pytest.FixtureRequest, restored: None) -> tuple[str, str]:
    """A program that lets torch round products."""
    SETTINGS[request.param]()
    return settings()


class Products(TorchDispatchMode):
    """Notes the settings under which products are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[str, str]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name.removeprefix("aten::") in PRODUCTS:
            self.seen.add(settings())
        return func(*args, **(kwargs or {}))

    def rounds(self) -> bool:
        return any(setting in ("tf32", "bf16") for pair in self.seen for setting in pair)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "newton"])
@pytest.mark.filterwarnings("ignore::widehead.errors.RankingWarning")
def test_the_exact_head_trains_in_full(rounded: tuple[str, str], optimizer: str) -> None:
    head = wh.ExactHead(WIDTH, D, wh.losses.SphericalSoftmax(), storage_dtype=torch.bfloat16)  # torch, not kernels
    make_optimizer = {
        "sgd": lambda: wh.optim.SGD(head),
        "momentum": lambda: wh.optim.SGD(head, momentum=0.9),
        "newton": lambda: wh.optim.Newton(head),
    }[optimizer]
    steps = make_optimizer()
    with Products() as products:
        for _ in range(3):
            head(torch.randn(3, WIDTH, requires_grad=True), IDS).backward()
            steps.step()
            assert settings() == rounded
        for read in (head.weight, head.state_dict, head.consolidate, head.audit, head.to_linear, head.grad_norm):
            read()
        head.top_k(torch.randn(2, WIDTH), 3)
        head.load_weight(torch.randn(D, WIDTH))
    assert products.seen
    assert not products.rounds()
    assert settings() == rounded


@ROWS
def test_no_head_reads_its_outputs_rounded(rounded: tuple[str, str], row: Row) -> None:
    head = make(row, torch.float32)
    hidden = torch.randn(3, head.in_features)
    with Products() as products:
        head(hidden, IDS)
        head.top_k(hidden, 3)
        head.scores(hidden, IDS)
    assert not products.rounds()
    assert settings() == rounded


def test_settings_come_back_after_an_error(rounded: tuple[str, str]) -> None:
    head = wh.ExactHead(WIDTH, D, wh.losses.SphericalSoftmax())
    with pytest.raises(ValueError, match="Class ids"):
        head(torch.randn(1, WIDTH), [[D]])
    assert settings() == rounded


@pytest.mark.parametrize("backend", [torch.backends, torch.backends.mkldnn])  # type: ignore[attr-defined]
@pytest.mark.usefixtures("restored")
def test_what_a_program_sets_for_all_products_later_counts(backend: Any) -> None:
    backend.fp32_precision = "tf32" if backend is torch.backends else "bf16"
    wh.ExactHead(WIDTH, D, wh.losses.SphericalSoftmax()).scores(torch.randn(2, WIDTH))
    backend.fp32_precision = "ieee"
    assert settings()[1] == "ieee"


def test_who_leaves_first_takes_nothing_from_another_thread(rounded: tuple[str, str]) -> None:
    entered, leave, seen = threading.Event(), threading.Event(), []

    @in_full_precision
    def long() -> None:
        entered.set()
        leave.wait(10.0)
        seen.append(settings())

    thread = threading.Thread(target=long)
    thread.start()
    entered.wait(10.0)
    seen.append(in_full_precision(settings)())
    between = settings()  # of nobody's: somebody is still inside
    leave.set()
    thread.join()
    assert not {"tf32", "bf16"} & {setting for pair in (*seen, between) for setting in pair}
    assert settings() == rounded


def test_who_came_first_may_leave_first(rounded: tuple[str, str]) -> None:
    entered, leave = threading.Event(), threading.Event()

    @in_full_precision
    def first() -> None:
        entered.set()
        leave.wait(10.0)

    thread = threading.Thread(target=first)
    thread.start()
    entered.wait(10.0)

    @in_full_precision
    def second() -> tuple[str, str]:
        leave.set()
        thread.join()
        return settings()

    assert not {"tf32", "bf16"} & set(second())
    assert settings() == rounded


def test_a_program_that_set_nothing_pays_one_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("widehead.precision._BACKENDS", None)  # asking a backend would fail
    assert in_full_precision(lambda: 3)() == 3
