"""Several optimisers as one: the same training to the last bit, and an optimiser of torch whatever is done to it."""

from __future__ import annotations

import copy
import gc
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.small_head import WIDTH, data, make
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR

import widehead as wh
from widehead.errors import NonFiniteError, NoOptimizerWarning
from widehead.names import OPTIMIZERS
from widehead.optim import RowAdam, Together

EVERY = pytest.mark.parametrize("name", OPTIMIZERS)


class Model(nn.Module):
    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Linear(WIDTH, WIDTH).to(dtype)
        self.head = make(wh.losses.SphericalSoftmax(), dtype)

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        return self.head(self.encoder(x), ids)

    def weights(self) -> list[Tensor]:
        return [self.encoder.weight.detach().clone(), self.head.weight()]


def parts_of(model: Model, name: str = "newton", **options: Any) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    return torch.optim.AdamW(model.encoder.parameters(), lr=0.01), OPTIMIZERS[name](model.head, 0.05, **options)


def batch(model: Model, seed: int) -> tuple[Tensor, Tensor]:
    x, ids = data(6, seed)
    return x.to(model.head.dtype), ids


def by_hand(steps: int = 4, name: str = "newton", clip: float | None = None, passes: int = 1, **options: Any) -> Model:
    """A loop with an optimiser each."""
    model = Model()
    optimizers = parts_of(model, name, **options)
    for seed in range(steps):
        for part in range(passes):
            model(*batch(model, passes * seed + part)).backward()
        if clip is not None:
            wh.optim.clip_grad_norm_(model.encoder.parameters(), model.head, clip)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return model


def same(model: Model, other: Model, rtol: float = 0.0) -> bool:
    return all(
        torch.allclose(a, b, rtol=rtol, atol=1e-12 if rtol else 0.0)
        for a, b in zip(model.weights(), other.weights(), strict=True)
    )


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


# -- clipping ----------------------------------------------------------------------------------------------------

CLIPPED: dict[str, Callable[[Model, Together], object]] = {
    "parameters of the model": lambda model, _: nn.utils.clip_grad_norm_(model.parameters(), 0.05),
    "parameters in groups": lambda _, optimizer: nn.utils.clip_grad_norm_(
        [p for group in optimizer.param_groups for p in group["params"]], 0.05
    ),
    "method": lambda _, optimizer: optimizer.clip_grad_norm_(0.05),
    "option": lambda _, optimizer: setattr(optimizer, "max_grad_norm", 0.05),
    "our function, over all": lambda model, _: wh.optim.clip_grad_norm_(model.parameters(), model.head, 0.05),
    "our function, of groups": lambda model, optimizer: wh.optim.clip_grad_norm_(
        [p for group in optimizer.param_groups for p in group["params"]], [model.head], 0.05
    ),
    "norm first": lambda model, _: nn.utils.clip_grads_with_norm_(
        list(model.parameters()), 0.05, nn.utils.get_total_norm([p.grad for p in model.parameters()])
    ),
}


@pytest.mark.parametrize("way", CLIPPED.values(), ids=CLIPPED)
@pytest.mark.parametrize("over_all", [False, True], ids=["encoder", "all parameters"])
def test_every_way_of_clipping_clips_by_the_norm_of_both(way: Callable[..., object], over_all: bool) -> None:
    model = Model()
    parts = parts_of(model)
    if over_all:
        parts = (torch.optim.AdamW(model.parameters(), lr=0.01), parts[1])
    optimizer = Together(*parts)
    for seed in range(4):
        model(*batch(model, seed)).backward()
        norm = torch.cat([model.encoder.weight.grad.flatten(), model.encoder.bias.grad, model.head.grad_norm()[None]])
        clipped = way(model, optimizer)
        assert clipped is None or torch.allclose(clipped, norm.norm())  # type: ignore[arg-type]
        optimizer.step()
        optimizer.zero_grad()
    assert same(model, by_hand(clip=0.05), rtol=1e-9)
    assert not same(model, by_hand(), rtol=1e-3)


NORMS: dict[str, Callable[[list[Any], float], object]] = {
    "clip": lambda params, order: nn.utils.clip_grad_norm_(params, 0.1, norm_type=order),
    "foreach": lambda params, order: nn.utils.clip_grad_norm_(params, 0.1, norm_type=order, foreach=True),
    "total": lambda params, order: nn.utils.get_total_norm([p.grad for p in params], order),
    "each": lambda params, order: [p.grad.norm(order) for p in params],
    "keyword": lambda params, order: [torch.linalg.vector_norm(p.grad, ord=order) for p in params],
    "torch.norm": lambda params, order: [torch.norm(p.grad, p=order) for p in params],
}


@pytest.mark.parametrize("way", NORMS.values(), ids=NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_norms_of_another_order_are_refused_and_pending_steps_stay(way: Any, dtype: torch.dtype) -> None:
    model = Model(dtype)
    optimizer = Together(*parts_of(model))
    model(*batch(model, 1)).backward()
    before = model.head.grad_norm()
    for params in (list(model.parameters()), [p for group in optimizer.param_groups for p in group["params"]]):
        for order in (1.0, 3, float("inf"), 0.0):
            if not (order == 0.0 and way is NORMS["foreach"]):
                with pytest.raises(ValueError, match=r"norm of order 2.*max_grad_norm"):
                    way(params, order)
        assert torch.equal(model.head.grad_norm(), before)
        way(params, 2)
        way(params, 2.0)
        before = model.head.grad_norm()


def test_clipping_by_value_is_refused_and_pending_steps_stay() -> None:
    model = Model()
    optimizer = Together(*parts_of(model))
    for bound, seed in ((1e-3, 1), (1e9, 2)):
        model(*batch(model, seed)).backward()
        nn.utils.clip_grad_value_([p for group in optimizer.param_groups for p in group["params"]], bound)
        before = model.weights()
        if bound < 1.0:
            for _ in range(2):
                with pytest.raises(ValueError, match="clipped by value"):
                    optimizer.step()
            assert all(torch.equal(a, b) for a, b in zip(before, model.weights(), strict=True))
            optimizer.zero_grad()
        else:
            optimizer.step()
            assert not torch.equal(before[1], model.head.weight())


def test_a_value_above_all_numbers_of_a_gradient_of_several_passes() -> None:
    head = make()
    optimizer = Together(wh.optim.SGD(head, lr=0.1))
    for bound in (0.3, 0.9, 1.1):  # times the norm
        head(*data(6)).backward()
        nn.utils.clip_grad_value_(head.parameters(), bound * float(head.grad_norm()))
        if bound < 1.0:
            with pytest.raises(ValueError, match="by value"):
                optimizer.step()
            optimizer.zero_grad()
    optimizer.step()
    assert head.weights.steps == 1


@pytest.mark.parametrize("sparse", [False, True])
def test_tables_with_sparse_gradients_are_clipped_by_torch(sparse: bool) -> None:
    """As the dense twin is, repeated rows and several passes included."""
    torch.manual_seed(0)
    table, layer = nn.Embedding(30, 4, sparse=sparse), nn.Linear(4, 2)
    kind = RowAdam if sparse else torch.optim.Adam
    optimizer = Together(kind(table.parameters(), lr=0.1), torch.optim.Adam(layer.parameters(), lr=0.1))
    for step in range(3):
        for ids in ([3, 3, 7, 3], [7, 1, 1, 1]):
            layer(table(torch.tensor(ids))).square().sum().backward()
        gradient = table.weight.grad.to_dense().clone()
        norm = torch.cat([gradient.flatten(), layer.weight.grad.flatten(), layer.bias.grad]).norm()
        params = [*table.parameters(), *layer.parameters()]
        found = nn.utils.clip_grad_norm_(params, 0.1) if step else optimizer.clip_grad_norm_(0.1)
        assert torch.allclose(found, norm)
        assert torch.allclose(table.weight.grad.to_dense(), gradient * 0.1 / norm, rtol=1e-4)
        before = table.weight.detach().clone()
        optimizer.step()
        optimizer.zero_grad()
        assert (table.weight != before).any(1).nonzero().flatten().tolist() == [1, 3, 7]


def test_gradients_of_rows_are_copied_pickled_and_taken_by_torchs_optimisers() -> None:
    table = nn.Embedding(30, 4, sparse=True)
    optimizer = RowAdam(table.parameters())
    other, its = copy.deepcopy((table, optimizer))
    for one in (table, other):
        one(torch.tensor([1, 1, 2])).sum().backward()
        assert torch.equal(copy.deepcopy(one.weight.grad).to_dense(), one.weight.grad.to_dense())
        assert torch.isfinite(nn.utils.clip_grad_norm_(one.parameters(), 1.0))
    optimizer.step()
    torch.optim.SparseAdam(other.parameters()).step()
    assert torch.allclose(table.weight, other.weight)
    pickle.dumps((table, other, its))


# -- GradScaler --------------------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("clip", [None, 0.05])
def test_scaled_steps_are_the_unscaled_ones(name: str, clip: float | None) -> None:
    model, scaler = Model(), torch.amp.GradScaler("cpu")
    optimizer = Together(*parts_of(model, name))
    schedule = lr_scheduler.StepLR(optimizer, 100)
    for seed in range(4):
        optimizer.zero_grad()
        scaler.scale(model(*batch(model, seed))).backward()
        if clip is not None:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
    assert same(model, by_hand(name=name, clip=clip), rtol=1e-9 if clip else 0.0)


def test_a_scale_that_overflows_leaves_all_parts_out() -> None:
    model, scaler = Model(torch.float32), torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=1)
    optimizer = Together(*parts_of(model))
    before = model.weights()
    for _ in range(2):
        scaler.scale(1e3 * model(*batch(model, 1))).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(before, model.weights(), strict=True))
    assert scaler.get_scale() == 2.0**125
    assert model.head.pending_gradient() is None


def test_a_scaled_loss_without_its_scaler_is_refused() -> None:
    model, scaler = Model(), torch.amp.GradScaler("cpu")
    optimizer = Together(*parts_of(model))
    scaler.scale(model(*batch(model, 1))).backward()
    with pytest.raises(RuntimeError, match=r"scaler\.step"):
        optimizer.step()


# -- states and copies -------------------------------------------------------------------------------------------


def trained(model: Model, optimizer: Together, first: int, last: int) -> None:
    for seed in range(first, last):
        model(*batch(model, seed)).backward()
        optimizer.step()
        optimizer.zero_grad()


@EVERY
def test_training_goes_on_from_states(name: str) -> None:
    options = {"momentum": 0.9} if name == "sgd" else {}
    model = Model()
    optimizer = Together(*parts_of(model, name, **options))
    trained(model, optimizer, 0, 3)
    optimizer.param_groups[1]["lr"] *= 0.5
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    assert [group["params"] for group in saved["optimizer"]["param_groups"]] == [[0, 1], [2]]
    other = Model()
    theirs = Together(*parts_of(other, name, **options))
    other.load_state_dict(saved["model"])
    theirs.load_state_dict(saved["optimizer"])
    for one, its in ((model, optimizer), (other, theirs)):
        trained(one, its, 3, 6)
    assert same(model, other)
    assert theirs.param_groups[1]["lr"] == optimizer.param_groups[1]["lr"]


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))],  # noqa: S301
    ids=["deepcopy", "pickle"],
)
@pytest.mark.parametrize("alone", [False, True])
def test_a_copy_goes_on_as_its_original(copied: Callable[[Any], Any], alone: bool) -> None:
    model = Model()
    optimizer = Together(*parts_of(model), max_grad_norm=0.05)
    trained(model, optimizer, 0, 3)
    other, theirs = (None, copied(optimizer)) if alone else copied((model, optimizer))
    assert theirs.max_grad_norm == 0.05
    assert theirs.heads[0] is not model.head
    if other is None:
        assert torch.equal(theirs.heads[0].weight(), model.head.weight())
        return
    for one, its in ((model, optimizer), (other, theirs)):
        trained(one, its, 3, 6)
        one(*batch(one, 7)).backward()
        assert torch.equal(one.head.handle.grad, one.head.lent_norm())
    assert same(model, other)


def test_a_state_of_other_groups_is_refused_and_changes_nothing() -> None:
    model = Model()
    optimizer = Together(*parts_of(model))
    state = optimizer.state_dict()
    state["param_groups"][0]["lr"] = 7.0
    state["param_groups"][1]["params"] = [2, 3]
    with pytest.raises(ValueError, match=r"groups of \[2, 1\] parameters\. Found \[2, 2\]"):
        optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] == 0.01


def test_hooks_of_states_and_steps_are_called() -> None:
    model, called = Model(), []
    optimizer = Together(*parts_of(model))
    optimizer.register_state_dict_post_hook(lambda _, state: called.append("saved"))
    optimizer.register_load_state_dict_pre_hook(lambda _, state: called.append("loading"))
    optimizer.register_load_state_dict_post_hook(lambda _: called.append("loaded"))
    optimizer.register_step_pre_hook(lambda *_: called.append("stepping"))
    optimizer.register_step_post_hook(lambda *_: called.append("stepped"))
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.step()
    assert called == ["saved", "loading", "loaded", "stepping", "stepped"]


def test_what_is_written_into_the_state_reaches_the_part() -> None:
    model = Model()
    optimizer = Together(*parts_of(model))
    trained(model, optimizer, 0, 2)
    assert len(optimizer.state) == 3
    for parameter, value in list(optimizer.state.items()):
        optimizer.state[parameter] = {name: copy.deepcopy(number) for name, number in value.items()}
    optimizer.state[model.encoder.weight]["exp_avg"].zero_()
    assert not optimizer.parts[0].state[model.encoder.weight]["exp_avg"].any()
    assert model.encoder.weight in optimizer.state
    optimizer.state.clear()
    assert model.encoder.weight not in optimizer.state
    assert torch.zeros(1) not in optimizer.state
    assert [len(part.state) for part in optimizer.parts] == [0, 0]


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


# -- the handle --------------------------------------------------------------------------------------------------


def test_all_parameters_of_a_model_in_torchs_optimiser_leave_the_head_to_its_own() -> None:
    model = Model()
    torchs = torch.optim.AdamW(model.named_parameters(), lr=0.01)
    model(*batch(model, 9)).backward()
    model.head.drop_pending()
    torchs.step()  # with a state for the handle
    optimizer = Together(torchs, wh.optim.Newton(model.head))
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 1]
    assert optimizer.param_groups[0]["param_names"] == ["encoder.weight", "encoder.bias"]
    trained(model, optimizer, 0, 2)
    optimizer.load_state_dict(optimizer.state_dict())
    assert model.head.weights.steps == 2


def test_zero_grad_of_the_model_drops_pending_steps() -> None:
    for set_to_none in (True, False):
        model = Model()
        optimizer = Together(*parts_of(model))
        model(*batch(model, 17)).backward()
        model.zero_grad(set_to_none)
        trained(model, optimizer, 0, 4)
        assert same(model, by_hand())


def test_an_average_of_parameters_written_back_is_an_error() -> None:
    """As Lightning's StochasticWeightAveraging does, which leaves W out: the encoder is averaged, and W is not."""
    model = Model()
    optimizer = Together(*parts_of(model))
    trained(model, optimizer, 0, 2)
    average = [p.detach().clone() for p in model.parameters()]
    trained(model, optimizer, 2, 4)
    model.to(torch.float64)
    model.head.scores(data(2)[0])
    for parameter, mean in zip(model.parameters(), average, strict=True):
        parameter.detach().copy_(mean)
    with pytest.raises(RuntimeError, match=r"copied or averaged into.*widehead\.heads\.AveragedModel"):
        model.head.scores(data(2)[0])


def test_a_frozen_head_lends_nothing_and_a_handle_without_owner_neither() -> None:
    model = Model()
    optimizer = Together(*parts_of(model))
    model.requires_grad_(False)
    model.encoder.requires_grad_(True)
    model(*batch(model, 1)).backward()
    assert model.head.handle.grad is None
    model.requires_grad_(True)
    model(*batch(model, 1)).backward()
    assert model.head.handle.grad.numel() == 2
    del optimizer
    gc.collect()
    assert model.head.handle.grad is None
    with pytest.warns(NoOptimizerWarning):
        model(*batch(model, 1)).backward()
    torch.optim.AdamW(model.parameters()).step()


def test_a_model_in_a_together_is_saved_moved_and_compiled_as_ever() -> None:
    model = Model()
    optimizer = Together(*parts_of(model))
    trained(model, optimizer, 0, 2)
    assert sorted(model.state_dict()) == sorted(Model().state_dict())
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in Model().named_parameters()]
    model.to("cpu").double()
    compiled = torch.compile(model, backend="eager")
    for seed in (2, 3):
        compiled(*batch(model, seed)).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert same(model, by_hand())


def test_a_second_together_takes_the_place_of_the_first() -> None:
    model = Model()
    first = Together(*parts_of(model))
    second = Together(torch.optim.AdamW(model.parameters(), lr=0.01), wh.optim.Newton(model.head, lr=0.05))
    assert first.heads == second.heads
    assert all(len(group["params"]) < 3 for group in second.param_groups)
    del first
    model(*batch(model, 1)).backward()
    assert model.head.handle.grad is not None


def test_the_first_together_goes_on_when_the_second_is_gone() -> None:
    """As in a notebook that tried another one, or in a search of learning rates."""
    model = Model()
    first = Together(*parts_of(model))
    second = Together(torch.optim.SGD(model.parameters(), lr=0.1), wh.optim.SGD(model.head))
    del second
    gc.collect()
    for seed in range(4):
        model(*batch(model, seed)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        first.step()
        first.zero_grad()
    assert same(model, by_hand(clip=0.05), rtol=1e-9)


@pytest.mark.parametrize(
    "kind",
    [
        torch.optim.AdamW,
        lambda p: torch.optim.AdamW(p, foreach=False, weight_decay=0.0),
        lambda p: torch.optim.SGD(p, lr=0.1),
        lambda p: torch.optim.Adagrad(p),
    ],
)
@pytest.mark.parametrize("before", [False, True])
def test_an_optimiser_beside_it_that_has_the_handle_is_told(kind: Callable[[Any], Any], before: bool) -> None:
    model = Model()
    other = kind(model.parameters()) if before else None
    optimizer = Together(wh.optim.Newton(model.head))
    other = other or kind(model.parameters())
    model(*batch(model, 1)).backward()
    with pytest.raises(RuntimeError, match=r"handle of an exact head .* if p is not head\.handle"):
        other.step()
    optimizer.step()


def test_a_gradient_that_is_set_is_refused() -> None:
    """p.grad = p.grad * 0.1, of those who clip by hand: it would be lost."""
    model = Model()
    optimizer = Together(*parts_of(model))
    for parameter in (model.head.handle, optimizer.param_groups[1]["params"][0]):
        model(*batch(model, 1)).backward()
        for value in (parameter.grad * 0.1, torch.zeros_like(parameter)):
            with pytest.raises(TypeError, match=r"come from backward\(\)"):
                parameter.grad = value
        parameter.grad *= 0.5
        assert torch.allclose(model.head.grad_norm(), model.head.handle.grad.norm())
        parameter.grad = None
        assert model.head.pending_gradient() is None
