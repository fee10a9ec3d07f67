"""Who takes the steps that backward passes leave: optimisers that come and go, none, torch's alone, frozen heads."""

from __future__ import annotations

import copy
import gc
import pickle
import warnings
import weakref
from collections.abc import Callable

import pytest
import torch
from support.small_head import WIDTH, D, data, make
from torch import Tensor, nn

import widehead as wh
from widehead.arithmetic import OutputGradient
from widehead.errors import NoOptimizerWarning, StaleGraphError


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = make(wh.losses.SphericalSoftmax())
        self.encoder = nn.Linear(WIDTH, WIDTH).double()

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        return self.head(self.encoder(x), ids)


def kept() -> int:
    """Gradients of exact heads that are in memory."""
    return sum(type(found) is OutputGradient for found in gc.get_objects())


def passes(model: Model, optimizer: torch.optim.Optimizer | None = None, steps: int = 5) -> None:
    for seed in range(steps):
        if optimizer is not None:
            optimizer.zero_grad()
        model(*data(6, seed)).backward()
        if optimizer is not None:
            optimizer.step()


@pytest.mark.parametrize(
    "kind",
    [
        lambda p: torch.optim.AdamW(p, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, fused=True),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, foreach=True),
        lambda p: torch.optim.Adagrad(p),
        lambda p: torch.optim.NAdam(p, foreach=False),
    ],
    ids=["AdamW", "fused", "SGD", "Adagrad", "NAdam"],
)
def test_an_optimiser_of_torch_over_all_parameters_is_told_once_that_w_stays(kind: Callable[..., object]) -> None:
    model, before = Model(), kept()
    weight, encoder = model.head.weight(), model.encoder.weight.clone()
    with pytest.warns(NoOptimizerWarning, match=r"wh\.optim\.Newton\(head\)") as caught:
        passes(model, kind(model.parameters()), steps=8)  # type: ignore[arg-type]
    assert len(caught) == 1
    assert kept() == before
    assert model.head.pending_gradient() is None
    assert torch.equal(model.head.weight(), weight)
    assert not torch.equal(model.encoder.weight, encoder)


def test_passes_without_autograd_are_warned_of_too() -> None:
    head = make()
    head.loss_and_gradient(*data(5))
    with pytest.warns(NoOptimizerWarning):
        head.loss_and_gradient(*data(5))
    assert head.pending_gradient() is None


def test_own_losses_by_statistics_are_warned_of_too() -> None:
    head = make()
    hidden, ids = data(5)
    head.statistics(hidden, ids)[0].sum().backward()
    with pytest.warns(NoOptimizerWarning):
        q, _, _ = head.statistics(hidden, ids)
    q.sum().backward()
    assert head.pending_gradient() is None


def test_the_warning_stands_at_the_users_line() -> None:
    model = Model()
    with pytest.warns(NoOptimizerWarning) as caught:
        passes(model)
    assert caught[0].filename == __file__


def test_an_optimiser_that_makes_no_step_is_told_of() -> None:
    """And loses nothing: whoever did mean to add up so much may go on."""
    head = make()
    optimizer = wh.optim.SGD(head, lr=1e-3)
    hidden, ids = data(1)
    head(hidden, ids).backward()
    gradient = head.pending_gradient()
    assert gradient is not None
    for _ in range(999):
        head.record(gradient)
    with pytest.warns(NoOptimizerWarning, match=r"1,000 backward passes since the last.*step\(\)"):
        loss = head(hidden, ids)
    loss.backward()
    loss = head(hidden, ids)
    loss.backward()
    weight = head.weight()
    optimizer.step()
    assert not torch.equal(head.weight(), weight)


def test_an_optimiser_made_after_the_warning_trains_what_one_made_before_does() -> None:
    late, early = Model(), Model()
    late.load_state_dict(early.state_dict())
    with pytest.warns(NoOptimizerWarning):
        passes(late)
    passes(late, wh.optim.SGD(late.head, lr=0.1))
    passes(early, wh.optim.SGD(early.head, lr=0.1))
    assert torch.equal(late.head.weight(), early.head.weight())


def test_one_made_after_a_backward_pass_takes_its_step() -> None:
    late, early = Model(), Model()
    late.load_state_dict(early.state_dict())
    optimizer = wh.optim.SGD(early.head, lr=0.1)
    for model in (late, early):
        model(*data(6)).backward()
    optimizer.step()
    wh.optim.SGD(late.head, lr=0.1).step()
    assert torch.equal(late.head.weight(), early.head.weight())


def test_optimisers_in_turn() -> None:
    model = Model()
    for kind in (wh.optim.SGD, wh.optim.Newton, wh.optim.Muon):
        passes(model, kind(model.head, lr=0.01))  # each is gone as the next is made
    gc.collect()
    with pytest.warns(NoOptimizerWarning):
        passes(model)


def test_the_head_holds_no_optimiser_and_the_optimiser_gone_no_head() -> None:
    model = Model()
    optimizer = wh.optim.Newton(model.head)
    passes(model, optimizer)
    gone = weakref.ref(optimizer), weakref.ref(model.head)
    del optimizer
    gc.collect()
    assert gone[0]() is None
    del model
    gc.collect()
    assert gone[1]() is None


def through_pickle(model: Model) -> Model:
    return pickle.loads(pickle.dumps(model))  # noqa: S301


@pytest.mark.parametrize("copied", [copy.deepcopy, through_pickle])
def test_copies_have_no_optimiser_but_the_pending_gradient(copied: Callable[[Model], Model]) -> None:
    model = Model()
    optimizer = wh.optim.SGD(model.head, lr=0.1)
    model(*data(6)).backward()
    other = copied(model)
    assert torch.equal(other.head.grad_norm(), model.head.grad_norm())
    optimizer.step()
    wh.optim.SGD(other.head, lr=0.1).step()
    assert torch.equal(other.head.weight(), model.head.weight())
    gc.collect()
    with pytest.warns(NoOptimizerWarning):
        passes(other, optimizer)  # the first one's: the copy's head would stand still


def test_gradients_may_be_read_without_an_optimiser() -> None:
    model = Model()
    for seed in range(4):
        model(*data(6, seed)).backward()
        assert float(model.head.grad_norm()) > 0.0
        model.head.drop_pending()
    model.eval()
    passes(model)
    assert model.head.pending_gradient() is None
    with torch.no_grad():
        model(*data(6))


# -- torch.autograd.grad -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "derive",
    [
        lambda loss, x: torch.autograd.grad(loss, x, retain_graph=True),
        lambda loss, x: loss.backward(inputs=[x], retain_graph=True),
    ],
    ids=["grad", "inputs"],
)
def test_gradients_of_other_tensors_leave_nothing_for_the_optimiser(derive: Callable[..., object]) -> None:
    """As in torch, in which a weight's gradient is left by backward() alone: adversarial examples, say."""
    model = Model()
    optimizer = wh.optim.SGD(model.head, lr=0.1)
    x, ids = data(6)
    loss = model(x.requires_grad_(), ids)
    derive(loss, x)
    assert model.head.pending_gradient() is None
    loss.backward()
    once = model.head.grad_norm()
    optimizer.zero_grad()
    model(x.detach(), ids).backward()
    assert torch.equal(once, model.head.grad_norm())


def test_all_parameters_may_be_derived_by() -> None:
    model = Model()
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(model(*data(6)), parameters)
    assert [g.shape for g in gradients] == [p.shape for p in parameters]
    assert model.head.pending_gradient() is not None


# -- frozen heads ------------------------------------------------------------------------------------------------


def freeze_model(model: Model) -> None:
    model.requires_grad_(False)
    model.encoder.requires_grad_(True)


def freeze_head(model: Model) -> None:
    model.head.requires_grad_(False)


def freeze_each(model: Model) -> None:
    for parameter in model.head.parameters():
        parameter.requires_grad = False


@pytest.mark.parametrize("freeze", [freeze_model, freeze_head, freeze_each])
def test_a_frozen_head_stays_and_lets_gradients_through(freeze: Callable[[Model], None]) -> None:
    frozen, free = Model(), Model()
    frozen.load_state_dict(free.state_dict())
    optimizer, weight = wh.optim.SGD(frozen.head, lr=0.1, momentum=0.9, weight_decay=0.1), frozen.head.weight()
    freeze(frozen)
    for model in (frozen, free):
        model(*data(6)).backward()
    optimizer.step()
    assert torch.equal(frozen.head.weight(), weight)
    assert frozen.head.pending_gradient() is None
    assert torch.allclose(frozen.encoder.weight.grad, free.encoder.weight.grad, rtol=1e-12)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del optimizer
        passes(frozen)
    frozen.requires_grad_(True)
    passes(frozen, wh.optim.SGD(frozen.head, lr=0.1))
    assert not torch.equal(frozen.head.weight(), weight)


def test_nothing_to_train_is_said_as_in_torch() -> None:
    model = Model().requires_grad_(False)
    with pytest.raises(RuntimeError, match="does not require grad"):
        model(*data(6)).backward()


def test_copies_stay_frozen() -> None:
    model = Model()
    freeze_head(model)
    for other in (copy.deepcopy(model), through_pickle(model), copy.deepcopy(model).float().double()):
        other(*data(6)).backward()
        assert other.head.pending_gradient() is None


def test_what_stands_for_w_among_the_parameters_is_empty_and_no_part_of_the_state() -> None:
    head = make()
    assert sum(parameter.numel() for parameter in head.parameters()) == 0
    assert not set(dict(head.named_parameters())) & set(head.state_dict())
    assert head.weight().shape == (D, WIDTH)


def test_a_head_made_without_memory_trains_once_its_state_is_there() -> None:
    with torch.device("meta"):
        head = make()
    twin = make()
    head.load_state_dict(twin.state_dict())
    head.to("cpu")
    for one in (head, twin):
        optimizer = wh.optim.SGD(one, lr=0.1)
        one(*data(6)).backward()
        optimizer.step()
    assert torch.equal(head.weight(), twin.weight())
    assert not any(parameter.is_meta for parameter in head.parameters())


# -- the norm in the place of the gradient -----------------------------------------------------------------------


def test_what_is_done_to_the_norm_is_done_to_the_gradient() -> None:
    model = Model()
    optimizer = wh.optim.SGD(model.head, lr=0.1)
    assert model.head.lent_norm() is None
    model(*data(6, 1)).backward()
    norm, before = model.head.lent_norm(), model.head.grad_norm()
    assert torch.allclose(norm.norm(), before)
    model.head.lent_norm().mul_(0.25)
    model(*data(6, 2)).backward()  # adds to what was scaled
    with_both = model.head.grad_norm()
    optimizer.param_groups[0]["params"][0].grad = None
    assert model.head.pending_gradient() is None
    model(*data(6, 1)).backward()
    model.head.scale_pending(0.25)
    model(*data(6, 2)).backward()
    assert torch.equal(with_both, model.head.grad_norm())


def test_a_norm_of_zero_and_a_stale_one() -> None:
    head = make()
    optimizer = wh.optim.SGD(head, lr=0.1)
    head(torch.zeros(2, WIDTH, dtype=torch.float64), torch.tensor([1, 2])).backward()
    head.lent_norm().mul_(0.5)
    weight = head.weight()
    optimizer.step()
    assert torch.equal(head.weight(), weight)
    hidden, ids = data(3)
    head(hidden, ids).backward()
    head.load_weight(head.weight())
    assert head.lent_norm() is None
    head(hidden, ids).backward()
    other = wh.optim.SGD(head, lr=0.1)
    gradient = head.pending_gradient()
    other.step()
    head.record(gradient)
    with pytest.raises(StaleGraphError):
        head.lent_norm()


@pytest.mark.parametrize(
    "when", ["before backward", "before the step", "before the norm", "between passes", "before a copy"]
)
def test_a_hidden_layer_that_is_written_into_is_refused(when: str) -> None:
    """The step is made of it: torch refuses as much of its own layers between forward and backward."""
    head = make()
    optimizer, weight = wh.optim.SGD(head, lr=0.1), head.weight()
    hidden, ids = data(3)
    loss = head(hidden, ids)
    if when != "before backward":
        loss.backward()
    hidden.copy_(data(3, 2)[0])
    ends = {
        "before backward": loss.backward,
        "before the step": optimizer.step,
        "before the norm": head.grad_norm,
        "between passes": lambda: (head.loss_and_gradient(hidden, ids), optimizer.step()),
        "before a copy": lambda: copy.deepcopy(head),
    }
    with pytest.raises(StaleGraphError, match="hidden layer should stay as it is"):
        ends[when]()
    assert torch.equal(head.weight(), weight)
    optimizer.zero_grad()
    head.loss_and_gradient(hidden, ids)
    optimizer.step()
    assert not torch.equal(head.weight(), weight)


def test_what_is_no_hidden_layer_of_a_pending_step_may_be_written_into() -> None:
    """After the step, and before it one of which the head made a copy, or of inference mode, where nobody counts."""
    head = wh.ExactHead(WIDTH, D, wh.losses.SquaredError(), bias=True)
    optimizer = wh.optim.SGD(head, lr=0.1)
    hidden, ids = data(3)
    for _ in range(2):
        head.loss_and_gradient(hidden, ids)
        hidden.add_(1.0)
        optimizer.step()
    with torch.inference_mode():
        unseen = torch.ones(3, WIDTH)
    head.loss_and_gradient(unseen, ids)
    optimizer.step()
    assert head.weights.steps == 3
