"""What stands for W among a model's parameters, and what others may do with it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.small_head import data
from support.together import Model, batch, by_hand, parts_of, same, trained
from torch import nn

import widehead as wh
from widehead.errors import NoOptimizerWarning
from widehead.optim import Together


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
