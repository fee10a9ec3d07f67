"""Gradients of several optimisers as one: clipped by the norm of all, and scaled by torch's GradScaler."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.small_head import data, make
from support.together import EVERY, Model, batch, by_hand, parts_of, same
from torch import nn
from torch.optim import lr_scheduler

import widehead as wh
from widehead.optim import RowAdam, Together

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
