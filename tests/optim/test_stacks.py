"""Optimisers of heads as other people's programs treat optimisers: copied, pickled, wrapped, misspelt, misfed."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.small_head import WIDTH, D, data, make
from torch import nn

import widehead as wh
from widehead.errors import UnstableStepWarning
from widehead.names import OPTIMIZERS, PARAMETER_OPTIMIZERS

EVERY = pytest.mark.parametrize("name", OPTIMIZERS)


def steps(head: wh.ExactHead, optimizer: Any, count: int = 3) -> None:
    for seed in range(count):
        head(*data(6, seed)).backward()
        optimizer.step()


def through_torch(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value)), through_torch],  # noqa: S301
    ids=["deepcopy", "pickle", "torch.save"],
)


@COPIES
@EVERY
def test_a_copy_of_head_and_optimiser_goes_on_as_they_do(name: str, copied: Callable[[Any], Any]) -> None:
    head = make()
    options = {"momentum": 0.9} if name == "sgd" else {}
    optimizer = OPTIMIZERS[name](head, 0.05, **options)
    steps(head, optimizer)
    head(*data(6)).backward()  # and what is pending
    their_head, theirs = copied((head, optimizer))
    for one, its in ((head, optimizer), (their_head, theirs)):
        its.step()
        steps(one, its)
    assert torch.equal(head.weight(), their_head.weight())
    assert head.weights.steps == their_head.weights.steps == 7


@COPIES
def test_an_optimiser_copied_alone_keeps_heads_of_its_own(copied: Callable[[Any], Any]) -> None:
    heads = [make(), make(wh.losses.SphericalSoftmax())]
    optimizer = wh.optim.Newton(heads, lr=0.5)
    steps(heads[1], optimizer)
    before = [head.weight() for head in heads]
    other = copied(optimizer)
    found = [group["params"][0].head for group in other.param_groups]
    assert [torch.equal(a.weight(), b) for a, b in zip(found, before, strict=True)] == [True, True]
    steps(found[0], other)
    assert not torch.equal(found[0].weight(), before[0])
    assert all(torch.equal(head.weight(), old) for head, old in zip(heads, before, strict=True))


@COPIES
def test_a_copy_warns_of_no_more_than_its_original(copied: Callable[[Any], Any]) -> None:
    head = make()
    optimizer = wh.optim.SGD(head, lr=1e3)
    head(*data(6)).backward()
    with pytest.warns(UnstableStepWarning):
        optimizer.step()
    head, optimizer = copied((head, optimizer))
    head(*data(6)).backward()
    optimizer.step()


def test_a_model_that_holds_its_optimiser_can_be_copied() -> None:
    model = nn.Module()
    model.optimizer = wh.optim.SGD(make(), lr=0.1)
    model.head = model.optimizer.param_groups[0]["params"][0].head
    other = copy.deepcopy(model)
    steps(other.head, other.optimizer)
    assert other.head is not model.head
    assert other.head.weights.steps == 3


class Wrapped:
    """What accelerate's wrapper does: a state that is loaded back, a scaler, a patched step."""

    def __init__(self, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler | None = None) -> None:
        self.optimizer, self.scaler = optimizer, scaler
        optimizer.load_state_dict(optimizer.state_dict())
        self._step = optimizer.step

    def __getattr__(self, name: str) -> Any:
        return getattr(self.optimizer, name)

    def step(self, closure: Any = None) -> None:
        if self.scaler is None:
            self.optimizer.step(closure)
            return
        self.optimizer.step = lambda *args, **kwargs: self._step(*args, **kwargs)  # type: ignore[method-assign]
        self.scaler.step(self.optimizer, closure)
        self.scaler.update()
        self.optimizer.step = self._step  # type: ignore[method-assign]


@EVERY
@pytest.mark.parametrize("scaled", [False, True])
def test_a_wrapped_optimiser_with_a_scheduler(name: str, scaled: bool) -> None:
    ends = []
    for wrapped in (False, True):
        head = make(wh.losses.SphericalSoftmax())
        optimizer: Any = OPTIMIZERS[name](head, 0.05)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        scaler = torch.amp.GradScaler("cpu") if scaled and wrapped else None
        optimizer = Wrapped(optimizer, scaler) if wrapped else optimizer
        for seed in range(4):
            optimizer.zero_grad()
            loss = head(*data(6, seed))
            (loss if scaler is None else scaler.scale(loss)).backward()
            optimizer.step()
            schedule.step()
        ends.append(head.weight())
    assert torch.equal(*ends)


# -- clipping ----------------------------------------------------------------------------------------------------


def test_torchs_clipping_of_encoder_and_head_by_their_norm_together() -> None:
    """Frameworks clip what stands in an optimiser's parameter groups."""
    results = []
    for dense in (False, True):
        torch.manual_seed(0)
        encoder, head = nn.Linear(WIDTH, WIDTH).double(), make()
        layer, (x, ids) = head.to_linear(), data(6)
        target = torch.zeros(6, D, dtype=torch.float64).scatter_add_(1, ids, torch.ones(6, 2).double())
        optimizer: Any = torch.optim.SGD(layer.parameters(), lr=0.1) if dense else wh.optim.SGD(head, lr=0.1)
        loss = ((layer(encoder(x)) - target) ** 2).sum(1).mean() if dense else head(encoder(x), ids)
        loss.backward()
        own = [p for group in optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_([*encoder.parameters(), *own], 0.05)
        optimizer.step()
        results.append((norm.detach(), encoder.weight.grad, layer.weight.detach() if dense else head.weight()))
    for found, expected in zip(*results, strict=True):
        assert torch.allclose(found, expected, rtol=1e-9)


def test_our_clipping_takes_the_parameters_of_the_whole_model_too() -> None:
    norms = []
    for whole in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(WIDTH, WIDTH).double(), make())
        x, ids = data(6)
        model[1](model[0](x), ids).backward()
        given = model if whole else model[0]
        norms.append(wh.optim.clip_grad_norm_(given.parameters(), model[1], 0.05))
        norms.append(model[1].grad_norm())
    assert torch.equal(*norms[::2])
    assert torch.equal(*norms[1::2])


# -- misspelt and misfed -----------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("option", ["dampng", "momentm", "betas", "max_norm", "lr_"])
def test_options_that_there_are_not_are_refused(name: str, option: str) -> None:
    assert option not in inspect.signature(OPTIMIZERS[name]).parameters
    with pytest.raises(TypeError, match=option):
        OPTIMIZERS[name](make(), **{option: 0.1})


@pytest.mark.parametrize("option", ["beta", "momentum", "weight_dcay"])
@pytest.mark.parametrize("kind", [by_rows for _, by_rows in PARAMETER_OPTIMIZERS.values()])
def test_so_are_those_of_optimisers_of_rows(kind: Callable[..., object], option: str) -> None:
    with pytest.raises(TypeError, match=option):
        kind([torch.zeros(2, requires_grad=True)], **{option: 0.1})


def test_momentum_is_sgds_alone() -> None:
    for name in set(OPTIMIZERS) - {"sgd"}:
        with pytest.raises(TypeError, match="momentum"):
            OPTIMIZERS[name](make(), momentum=0.9)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.first, self.heads = nn.Linear(2, 2), make(), nn.ModuleList([make()])


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        (lambda: wh.SampledSoftmaxHead(4, 10), r"SampledSoftmaxHead.*wh\.optim\.RowAdam\(head\.parameters\(\)\)"),
        (lambda: [wh.FullSoftmaxHead(4, 10)], r"FullSoftmaxHead.*torch\.optim\.Adam\(head\.parameters\(\)\)"),
        (lambda: wh.AdaptiveSoftmaxHead(4, 10), r"AdaptiveSoftmaxHead.*Adam\(head\.parameters\(\)\)"),
        (Model, r"Model.*model\.first, model\.heads\.0"),
        (lambda: nn.Sequential(nn.Linear(2, 2), make()), r"Sequential.*model\.1"),
        (lambda: Model().parameters(), "Parameter: give the head itself"),
        (lambda: make().parameters(), "Parameter: give the head itself"),
        (lambda: [{"params": make().parameters()}], "dict: give the heads themselves"),
        (lambda: nn.Linear(2, 2), "Linear"),
        (lambda: 3, "int"),
    ],
)
@EVERY
def test_what_is_no_exact_head_is_refused_with_a_hint(name: str, given: Callable[[], object], hint: str) -> None:
    with pytest.raises(TypeError, match=f"Expected exact heads.*{hint}"):
        OPTIMIZERS[name](given())


@pytest.mark.parametrize("kind", [by_rows for _, by_rows in PARAMETER_OPTIMIZERS.values()])
def test_optimisers_of_rows_ask_for_parameters(kind: Callable[..., object]) -> None:
    with pytest.raises(TypeError, match=r"should be given parameters\. Found SampledSoftmaxHead.*\.parameters\(\)"):
        kind(wh.SampledSoftmaxHead(4, 10))


def test_no_heads_at_all() -> None:
    with pytest.raises(ValueError, match="empty"):
        wh.optim.SGD([])


def test_a_list_of_modules_that_are_heads_is_taken() -> None:
    heads = nn.ModuleList([make(), make()])
    assert len(wh.optim.SGD(heads).param_groups) == 2  # type: ignore[arg-type]


@EVERY
@pytest.mark.parametrize("group", [lambda: {"params": [torch.zeros(2)]}, lambda: {"params": make()}, make])
def test_groups_cannot_be_added(name: str, group: Callable[[], Any]) -> None:
    optimizer = OPTIMIZERS[name](make())
    with pytest.raises(TypeError, match=r"all its heads.*\[head, other\]"):
        optimizer.add_param_group(group())
    assert len(optimizer.param_groups) == 1
