"""An exact head among torch's tools: states that do not fit together, files, the device meta, types."""

from __future__ import annotations

import collections
import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from support.trained_head import WIDTH, D, own_copy, train, trained
from torch import Tensor, nn

import widehead as wh
from widehead import factored
from widehead.errors import KeptPrecisionWarning

HALVES = [torch.bfloat16, torch.float16]


def test_what_a_shrunken_head_keeps_of_its_past_does_not_spoil_its_checkpoints() -> None:
    """Q has the rounding of the largest W there was; checkpoints of runs call `recount_if_drifted` for it."""
    head = trained(20)
    small = head.weights.small.flushed()
    gram, column_sum = small.master[small.columns + 2 : 2 * small.columns + 2], small.master[small.columns + 1]
    head.weights.small = small.with_sums(1.01 * gram, column_sum)
    with pytest.raises(RuntimeError, match="Q of an exact head's state"):
        trained(1).load_state_dict(own_copy(head.state_dict()))
    factored.recount_if_drifted(head.weights)
    other = trained(1)
    other.load_state_dict(own_copy(head.state_dict()))
    assert torch.equal(other.weight(), head.weight())
    assert other.audit().gram < 1e-5
    before = head.weights.small
    factored.recount_if_drifted(head.weights)
    assert head.weights.small is before  # nothing is done for nothing


# -- states that do not fit together ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("steps", [0, 3, 150])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_sound_state_is_taken_as_it_is(steps: int, momentum: float, dtype: torch.dtype) -> None:
    head, other = trained(steps, momentum=momentum, bias=True, dtype=dtype), trained(1, bias=True, dtype=dtype)
    other.load_state_dict(own_copy(head.state_dict()))
    assert torch.equal(other.weight(), head.weight())
    train(head, 2, 5, momentum)
    train(other, 2, 5, momentum)
    assert torch.equal(other.weight(), head.weight())


@pytest.mark.parametrize("part", [0.5, 0.1])
@pytest.mark.parametrize("consolidated", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_averaged_states_are_refused(part: float, consolidated: bool, momentum: float) -> None:
    heads = [trained(25, seed, momentum) for seed in (1, 2)]
    if consolidated:
        for head in heads:
            head.consolidate()
    a, b = (head.state_dict() for head in heads)
    other, before = trained(2), trained(2).weight()
    rows = {**own_copy(a), "values": (1 - part) * a["values"] + part * b["values"]}
    with pytest.raises(RuntimeError, match=r"Q of an exact head.*relative difference of .*average.*AveragedModel"):
        other.load_state_dict(rows)
    mixed = {
        name: ((1 - part) * a[name].float() + part * b[name].float()).to(a[name].dtype)
        for name in a
        if a[name].shape == b[name].shape
    }
    with pytest.raises(RuntimeError):
        other.load_state_dict({**own_copy(a), **mixed})
    assert torch.equal(other.weight(), before)


@pytest.mark.parametrize("name", ["values", "_extra_state"])
def test_parts_of_different_states_are_refused(name: str) -> None:
    a, b = trained(100, 1), trained(140, 2)
    other, before = trained(2), trained(2).weight()
    with pytest.raises(RuntimeError, match="exact head"):
        other.load_state_dict({**own_copy(a.state_dict()), name: b.state_dict()[name].clone()})
    assert torch.equal(other.weight(), before)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x.float(), "should be the bytes"),
        (lambda x: x[:-3], "Found 597 bytes|Found .* bytes"),
        (lambda x: x[:400], "too few"),
        (lambda x: x[:0], "Found 0 bytes"),
        (lambda x: x.view(2, -1), "shape"),
        (lambda x: torch.full_like(x, 255), "no lengths"),
    ],
    ids=["floats", "cut", "short", "empty", "two dimensions", "NaN"],
)
def test_bytes_that_are_none_of_a_state_are_named(spoil: Any, message: str) -> None:
    head = trained(3)
    state = own_copy(head.state_dict())
    with pytest.raises(RuntimeError, match=message):
        trained(1).load_state_dict({**state, "_extra_state": spoil(state["_extra_state"])})


def test_the_check_costs_a_look_at_each_row_and_sees_one_that_changed() -> None:
    head = trained(30)
    state = own_copy(head.state_dict())
    state["values"][D - 1] += 3.0
    with pytest.raises(RuntimeError, match="relative difference"):
        trained(1).load_state_dict(state)


# -- files and tools that load them -----------------------------------------------------------------------------------


class Model(nn.Module):
    def __init__(self, heads: int = 2) -> None:
        super().__init__()
        self.encoder = nn.Linear(5, WIDTH)
        self.heads = nn.ModuleList(wh.ExactHead(WIDTH, D, wh.losses.SphericalSoftmax()) for _ in range(heads))


def weights(model: Model) -> list[Tensor]:
    return [head.weight() for head in model.heads]


@pytest.mark.parametrize("steps", [0, 1, 40])
def test_no_two_parts_of_a_state_look_like_shared_memory(steps: int, tmp_path: Path) -> None:
    """By address and size, as accelerate and safetensors tell tensors apart; empty ones all have the address 0."""
    model, other = Model(), Model()
    for head in model.heads:
        train(head, steps)
    places = collections.Counter(
        (part.device, part.untyped_storage().data_ptr(), part.untyped_storage().nbytes())
        for part in model.state_dict().values()
    )
    assert set(places.values()) == {1}
    safetensors.torch.save_model(model, str(tmp_path / "model"))
    assert safetensors.torch.load_model(other, tmp_path / "model") == (set(), [])
    assert all(torch.equal(a, b) for a, b in zip(weights(model), weights(other), strict=True))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("assign", [False, True])
def test_a_model_made_without_memory_takes_a_state(assign: bool, momentum: float) -> None:
    model = Model()
    for head in model.heads:
        train(head, 20, momentum=momentum)
    with torch.device("meta"):
        other = Model()
    assert all(head.device.type == "meta" for head in other.heads)
    assert list(other.state_dict()) == list(model.state_dict())
    other.load_state_dict(model.state_dict(), assign=assign, strict=True)
    assert all(torch.equal(a, b) for a, b in zip(weights(model), weights(other), strict=True))
    train(other.heads[0], 3, 9, momentum)
    train(model.heads[0], 3, 9, momentum)
    assert torch.equal(other.heads[0].weight(), model.heads[0].weight())


def set_by_attributes(model: nn.Module, state: dict[str, Tensor]) -> None:
    """As transformers loads: each tensor by itself, compared in shape with what is there, then put in its place."""
    for name, value in state.items():
        path, _, own = name.rpartition(".")
        module = model.get_submodule(path)
        if own == "_extra_state":
            module.set_extra_state(value)
            continue
        assert getattr(module, own).shape == value.shape
        if own not in module._buffers:
            value = nn.Parameter(value)
        value._is_hf_initialized = True  # type: ignore[attr-defined]
        setattr(module, own, value)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("meta", [False, True])
def test_a_state_is_taken_part_by_part(meta: bool, turned: bool) -> None:
    model = Model()
    train(model.heads[0], 60)
    with torch.device("meta" if meta else "cpu"):
        other = Model()
    items = [(name, part.clone()) for name, part in model.state_dict().items()]
    set_by_attributes(other, dict(items[::-1] if turned else items))
    assert all(torch.equal(a, b) for a, b in zip(weights(model), weights(other), strict=True))
    assert all(head._buffers["values"] is None for head in other.heads)
    train(other.heads[0], 2, 3)
    train(model.heads[0], 2, 3)
    assert torch.equal(other.heads[0].weight(), model.heads[0].weight())
    assert {name for name, _ in other.named_buffers()} == {"heads.0.seal", "heads.1.seal"}


def test_rows_that_were_rounded_on_the_way_are_taken() -> None:
    head = trained(50)
    with torch.device("meta"):
        other = wh.ExactHead(WIDTH, D, wh.losses.SphericalSoftmax())
    state = own_copy(head.state_dict())
    set_by_attributes(other, {**state, "values": state["values"].bfloat16()})
    assert torch.allclose(other.weight(), head.weight(), rtol=0.05, atol=0.01)
    assert other.dtype == torch.float32
    assert other.audit().gram < 2e-3  # as much as the rows were rounded


def test_a_state_that_came_in_part_is_refused_when_it_is_used() -> None:
    with torch.device("meta"):
        head = wh.ExactHead(WIDTH, D, wh.losses.SphericalSoftmax())
    state = own_copy(trained(5).state_dict())
    set_by_attributes(head, {"_extra_state": state["_extra_state"]})
    with pytest.raises(ValueError, match="`values` on the device meta"):
        head.weight()
    head, state = trained(5), own_copy(trained(80, 3).state_dict())
    set_by_attributes(head, {"values": state["values"]})
    with pytest.raises(ValueError, match="relative difference"):
        head.top_k(torch.randn(1, WIDTH), 2)


@pytest.mark.parametrize("way", ["to_empty", "set"])
def test_a_new_head_of_a_loaded_model_is_drawn(way: str) -> None:
    torch.manual_seed(3)
    with torch.device("meta"):
        head = wh.ExactHead(60, D, wh.losses.SphericalSoftmax())
    if way == "to_empty":
        head.to_empty(device="cpu")
    else:  # what transformers does about keys that a checkpoint lacks: memory that nobody wrote
        for name in ("versions", "values", "seal"):
            given = getattr(head, name)
            setattr(head, name, torch.full(given.shape, 9, dtype=given.dtype))
    assert head.weight().std() == pytest.approx(head.loss.initial_std(60, D), rel=0.05)
    assert head.audit().gram < 1e-6
    head(torch.randn(2, 60), [[1], [2]]).backward()
    head.eval().top_k(torch.randn(2, 60), 3)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_reset_parameters_draws_anew(momentum: float) -> None:
    head = trained(20, momentum=momentum)
    before = head.weight()
    head.reset_parameters()
    assert not torch.equal(head.weight(), before)
    assert head.weight().std() == pytest.approx(head.loss.initial_std(WIDTH, D), rel=0.1)
    assert head.audit().gram < 1e-6
    train(head, 2, momentum=momentum)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_head_of_one_column_takes_its_state(momentum: float) -> None:
    heads = [wh.ExactHead(1, 30, wh.losses.SquaredError()) for _ in range(2)]
    optimizer = wh.optim.SGD(heads[0], lr=0.05, momentum=momentum)
    heads[0](torch.ones(4, 1), torch.arange(4)).backward()
    optimizer.step()
    heads[1].load_state_dict(heads[0].state_dict())
    assert torch.equal(heads[1].weight(), heads[0].weight())


# -- types ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", HALVES, ids=str)
@pytest.mark.parametrize("way", ["method", "to", "like"])
def test_half_precision_leaves_the_head_as_it_is_and_says_so_once(way: str, half: torch.dtype) -> None:
    model = Model(1)
    train(model.heads[0], 3)
    before = model.heads[0].weight()
    cast = {
        "method": lambda: model.bfloat16() if half == torch.bfloat16 else model.half(),
        "to": lambda: model.to(half),
        "like": lambda: model.to(torch.empty(0, dtype=half)),
    }[way]
    with pytest.warns(KeptPrecisionWarning, match=f"works in float32 or float64. Found {half}: it keeps its type"):
        cast()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cast()
        copy.deepcopy(model).to(half)
    assert model.encoder.weight.dtype == half
    assert torch.equal(model.heads[0].weight(), before)
    hidden = model.encoder(torch.randn(3, 5, dtype=half))
    model.heads[0](hidden, [[1], [2], [3]]).backward()
    assert model.encoder.weight.grad.dtype == half
    assert model.double().heads[0].dtype == torch.float64


@pytest.mark.parametrize("half", HALVES, ids=str)
def test_half_precision_by_default_is_no_type_for_a_head(half: torch.dtype) -> None:
    torch.set_default_dtype(half)
    try:
        with pytest.warns(KeptPrecisionWarning, match="keeps its type"):
            head = wh.ExactHead(WIDTH, D, wh.losses.SphericalSoftmax())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            head.to(half)
        assert head.dtype == torch.float32
        head(torch.randn(2, WIDTH), [[1], [2]]).backward()
        wh.optim.Newton(head).step()
    finally:
        torch.set_default_dtype(torch.float32)
    with pytest.raises(TypeError, match=r"float32 or float64\. Found .*storage_dtype"):
        wh.ExactHead(WIDTH, D, wh.losses.SphericalSoftmax(), dtype=half)
