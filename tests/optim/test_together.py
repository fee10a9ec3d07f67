"""Several optimisers as one: the same training to the last bit, and an optimiser of torch whatever is done to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.small_head import WIDTH, data, make
from support.together import EVERY, Model, batch, by_hand, parts_of, same, trained
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR

import widehead as wh
from widehead.errors import NonFiniteError
from widehead.names import OPTIMIZERS
from widehead.optim import RowAdam, Together

# -- the same steps ----------------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("passes", [1, 3])
def test_steps_are_those_of_the_parts(name: str, passes: int) -> None:
    model = Model()
    optimizer = Together(*parts_of(model, name))
    for seed in range(4):
        optimizer.zero_grad()
        for part in range(passes):
            model(*batch(model, passes * seed + part)).backward()
        optimizer.step()
    assert same(model, by_hand(name=name, passes=passes))


def test_the_closure_is_called_once_with_gradients() -> None:
    model, calls = Model(), []
    optimizer = Together(*parts_of(model))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = model(*batch(model, len(calls)))
        loss.backward()
        calls.append(loss)
        return loss

    with torch.no_grad():
        found = [optimizer.step(closure) for _ in range(4)]
    assert found == calls
    assert same(model, by_hand())


def test_three_parts_and_a_part_that_is_together_itself() -> None:
    ends = []
    for nested in (None, False, True):
        torch.manual_seed(0)
        table, encoder = nn.Embedding(30, WIDTH, sparse=True), nn.Linear(WIDTH, WIDTH)
        heads = [make(dtype=torch.float32), make(wh.losses.SphericalSoftmax(), torch.float32)]
        parts = [
            torch.optim.AdamW(encoder.parameters(), lr=0.01),
            RowAdam(table.parameters(), lr=0.01),
            wh.optim.SGD(heads[0], lr=0.01),
            wh.optim.Newton(heads[1]),
        ]
        optimizers: list[Any] = [Together(Together(*parts[:3]), parts[3])] if nested else [Together(*parts)]
        for seed in range(3):
            ids = torch.arange(6) + seed
            hidden = encoder(table(ids))
            (heads[0](hidden, ids) + heads[1](hidden, ids)).backward()
            for optimizer in parts if nested is None else optimizers:
                optimizer.step()
                optimizer.zero_grad()
        ends.append([table.weight.detach(), encoder.weight.detach(), *(head.weight() for head in heads)])
        assert nested is None or len(optimizers[0].heads) == 2
    for other in ends[1:]:
        assert all(torch.equal(a, b) for a, b in zip(ends[0], other, strict=True))


def test_a_step_that_is_refused_changes_nothing() -> None:
    model = Model()
    optimizer = Together(*parts_of(model))
    model(*batch(model, 1)).backward()
    model.head.scale_pending(float("nan"))
    before = model.weights()
    with pytest.raises(NonFiniteError):
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.weights(), strict=True))
    assert optimizer.parts[0].state == {}


@EVERY
@pytest.mark.parametrize("bad", [0, 1])
def test_several_optimisers_of_heads_make_all_their_steps_or_none(name: str, bad: int) -> None:
    torch.manual_seed(0)
    encoder, heads = nn.Linear(WIDTH, WIDTH).double(), [make(), make(wh.losses.SphericalSoftmax())]
    made = [OPTIMIZERS[name](head, 0.01) for head in heads]
    optimizer = Together(torch.optim.SGD(encoder.parameters(), lr=0.1), Together(made[0]), made[1])
    called: list[int] = []
    for part in made:
        part.register_step_post_hook(lambda *_: called.append(1))
    for fails in (True, False):
        hidden, ids = data(6)
        sum(head(encoder(hidden), ids) for head in heads).backward()
        before = [encoder.weight.detach().clone(), *(head.weight() for head in heads)]
        if fails:
            heads[bad].scale_pending(float("nan"))
            with pytest.raises(NonFiniteError):
                optimizer.step()
        else:
            optimizer.step()
        after = [encoder.weight, *(head.weight() for head in heads)]
        assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [fails] * 3
        assert [part.state == {} for part in made] == [fails or name == "sgd"] * 2
        optimizer.zero_grad()
    assert called == [1, 1]


def test_a_together_in_another_clips_nothing_by_itself() -> None:
    model = Model()
    inner = Together(*parts_of(model), max_grad_norm=0.1)
    with pytest.raises(ValueError, match=r"max_grad_norm = 0\.1: give it to the outer one"):
        Together(inner, torch.optim.SGD([torch.zeros(1)]))


# -- schedules ---------------------------------------------------------------------------------------------------
SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda step: 0.9**step),
    "lambda for each": lambda o: lr_scheduler.LambdaLR(o, [lambda s: 0.9**s] * len(o.param_groups)),
    "multiplicative": lambda o: lr_scheduler.MultiplicativeLR(o, lambda _: 0.8),
    "step": lambda o: lr_scheduler.StepLR(o, 2, gamma=0.5),
    "multistep": lambda o: lr_scheduler.MultiStepLR(o, [1, 3]),
    "constant": lambda o: lr_scheduler.ConstantLR(o, total_iters=2),
    "linear": lambda o: lr_scheduler.LinearLR(o, total_iters=3),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "polynomial": lambda o: lr_scheduler.PolynomialLR(o, total_iters=5),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 5),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, 0.001, 0.02, step_size_up=2, cycle_momentum=False),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, 0.02, total_steps=8, cycle_momentum=False),
    "chained": lambda o: lr_scheduler.ChainedScheduler([SCHEDULES["constant"](o), SCHEDULES["exponential"](o)]),
    "sequential": lambda o: lr_scheduler.SequentialLR(
        o, [SCHEDULES["linear"](o), SCHEDULES["exponential"](o)], milestones=[2]
    ),
    "swa": lambda o: SWALR(o, swa_lr=0.02, anneal_epochs=2),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, threshold=10.0),
}


@pytest.mark.parametrize("kind", SCHEDULES.values(), ids=SCHEDULES)
def test_every_schedule_reaches_every_part(kind: Callable[[Any], Any]) -> None:
    ends, rates = [], []
    for together in (True, False):
        model = Model()
        parts: Any = parts_of(model)
        optimizers = [Together(*parts)] if together else parts
        schedules = [kind(optimizer) for optimizer in optimizers]
        rates.append([])
        for seed in range(5):
            model(*batch(model, seed)).backward()
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                optimizer.zero_grad()
                schedule.step(*([1.0] if isinstance(schedule, lr_scheduler.ReduceLROnPlateau) else []))
            rates[-1].append([part.param_groups[0]["lr"] for part in parts])
        ends.append(model)
    assert rates[0] == rates[1]
    assert len(set(map(str, rates[0]))) > 1
    assert same(*ends)


def test_momentum_is_cycled_only_if_all_parts_have_it() -> None:
    model = Model()
    with pytest.raises(ValueError, match="must support momentum"):
        lr_scheduler.OneCycleLR(Together(*parts_of(model)), 0.02, total_steps=8)
    first = torch.optim.SGD(model.encoder.parameters(), lr=0.1, momentum=0.9)
    optimizer = Together(first, wh.optim.SGD(model.head, lr=0.1, momentum=0.9))
    lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=8)
    assert [group["momentum"] for group in optimizer.param_groups] == [0.95, 0.95]


# -- groups ------------------------------------------------------------------------------------------------------


def test_groups_are_live_and_can_be_added() -> None:
    model, more = Model(), nn.Linear(2, 2)
    optimizer = Together(*reversed(parts_of(model)))
    optimizer.add_param_group({"params": more.parameters(), "lr": 0.5})
    assert [len(part.param_groups) for part in optimizer.parts] == [1, 2]
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.01, 0.5]
    optimizer.param_groups[0]["lr"] = 0.25
    assert optimizer.parts[0].param_groups[0]["lr"] == 0.25
    optimizer.add_param_group({"params": model.head.parameters()})  # as callbacks that unfreeze a module do
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 2, 2, 0]
    trained(model, optimizer, 0, 2)
    optimizer.param_groups[0]["lr"] = 0.25
    with pytest.raises(ValueError, match="more than one parameter group"):
        optimizer.add_param_group({"params": model.encoder.parameters()})
    assert len(optimizer.param_groups) == 4


def test_a_parameter_or_a_head_of_two_parts_is_refused() -> None:
    model = Model()
    encoder, head = parts_of(model)
    with pytest.raises(ValueError, match=r"shape \(8, 8\) in two: leave it out of one"):
        Together(encoder, torch.optim.SGD(model.parameters(), lr=0.1), head)
    with pytest.raises(ValueError, match="a head in two"):
        Together(encoder, head, wh.optim.SGD(model.head))
    together = Together(torch.optim.SGD([torch.zeros(1)]), encoder, head)
    with pytest.raises(ValueError, match=r"shape \(8, 8\) in two"):
        together.add_param_group({"params": [model.encoder.weight]})
    assert len(together.param_groups) == 3


@pytest.mark.parametrize(
    "given",
    [
        lambda model: model.encoder.parameters(),
        lambda model: torch.optim.LBFGS(model.encoder.parameters()),
        lambda model: model.head,
        lambda _: torch.optim.AdamW,
        lambda _: None,
    ],
)
def test_what_is_no_optimiser_of_one_gradient_is_refused(given: Callable[[Model], Any]) -> None:
    model = Model()
    with pytest.raises(TypeError, match=r"Expected optimisers.*Found"):
        Together(*parts_of(model), given(model))


def test_no_parts_and_no_limit() -> None:
    with pytest.raises(ValueError, match="Found none"):
        Together()
    with pytest.raises(ValueError, match="above 0"):
        Together(*parts_of(Model()), max_grad_norm=0.0)
