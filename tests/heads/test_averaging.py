"""Averages of models that leave W out: whoever writes one into the tensors of a state or into parameters is told."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.small_head import WIDTH, data, make
from torch import Tensor, nn

import widehead as wh

SAID = r"copied or averaged into.*widehead\.heads\.AveragedModel"


def trained(steps: int) -> Any:
    head = make(wh.losses.SphericalSoftmax(), torch.float32)
    optimizer = wh.optim.SGD(head, lr=0.1)
    for seed in range(steps):
        hidden, ids = data(6, seed)
        head(hidden.float(), ids).backward()
        optimizer.step()
    return head


@pytest.mark.parametrize("write", ["copy", "lerp", "multiply and add"])
def test_an_average_written_into_the_tensors_of_a_state_is_an_error(write: str) -> None:
    """As timm's ModelEma and loops over state_dict().values() do."""
    head, average = trained(9), trained(5)
    hidden = data(3)[0].float()
    for old, new in zip(average.state_dict().values(), head.state_dict().values(), strict=True):
        if write == "copy":
            old.copy_(0.5 * old + 0.5 * new)
        elif old.is_floating_point():
            old.lerp_(new, 0.5) if write == "lerp" else old.mul_(0.5).add_(new, alpha=0.5)
    for use in (lambda: average.scores(hidden), lambda: average.state_dict(), lambda: average.to(torch.float64)):
        with pytest.raises(RuntimeError, match=r"copied or averaged into.*widehead\.heads\.AveragedModel"):
            use()
    head.scores(hidden)


def test_steps_between_states_are_no_such_thing() -> None:
    head = trained(5)
    optimizer, kept = wh.optim.SGD(head, lr=0.1), []
    for seed in range(4):
        kept.append(head.state_dict())
        hidden, ids = data(6, seed)
        head(hidden.float(), ids).backward()
        optimizer.step()
        head.consolidate()
    head.scores(hidden.float())
    assert all(torch.equal(state["values"], head.weights.values) for state in kept)  # the memory itself, as in torch
    head.load_state_dict(copy.deepcopy(head.state_dict()))
    head.scores(hidden.float())


def test_a_pickle_holds_the_rows_once() -> None:
    head = wh.ExactHead(64, 1_000, wh.losses.SquaredError())
    before = len(pickle.dumps(head))
    head.state_dict()
    assert len(pickle.dumps(head)) < 1.1 * before
    other = copy.deepcopy(head)
    assert other.state_dict()["values"].data_ptr() == other.weights.values.data_ptr()


def test_a_seal_averaged_with_itself_and_written_back_is_seen() -> None:
    """As by averages that are copied into the model that they are of: its own number would come back."""
    head = trained(5)
    seal = head.seal.clone()
    seal.lerp_(head.seal, 0.1)
    head.seal.data.copy_(seal)
    with pytest.raises(RuntimeError, match="averaged into"):
        head.scores(data(3)[0].float())


# -- parameters by hand ------------------------------------------------------------------------------------------


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.head = nn.Linear(WIDTH, WIDTH), make(wh.losses.ZLoss(), torch.float32)


def optimizers_of(model: Model, kind: str = "apart") -> list[torch.optim.Optimizer]:
    parts = [torch.optim.AdamW(model.parameters(), weight_decay=0.1), wh.optim.Newton(model.head)]
    return parts if kind == "apart" else [wh.optim.Together(*parts)]


def steps(model: Model, optimizers: list[torch.optim.Optimizer], first: int, last: int) -> None:
    for seed in range(first, last):
        hidden, ids = data(6, seed)
        model.head(model.encoder(hidden.float()), ids).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


def blended_by(blend: Callable[[Tensor, Tensor], object]) -> Callable[[Any, Any], None]:
    def blended(average: Any, model: Any) -> None:
        for mean, parameter in zip(average.parameters(), model.parameters(), strict=True):
            blend(mean, parameter)

    return blended


BLENDS: dict[str, Callable[[Any, Any], None]] = {
    "mul and add": blended_by(lambda mean, p: mean.mul_(0.9).add_(p, alpha=0.1)),
    "of .data": blended_by(lambda mean, p: mean.data.mul_(0.9).add_(p.data, alpha=0.1)),
    "lerp": blended_by(lambda mean, p: mean.lerp_(p, 0.1)),
    "copy": blended_by(lambda mean, p: mean.copy_(0.9 * mean + 0.1 * p)),
    "copy of .data": blended_by(lambda mean, p: mean.data.copy_(0.9 * mean.data + 0.1 * p.data)),
    "detached": blended_by(lambda mean, p: mean.detach().copy_(p.detach())),
    "another .data": blended_by(lambda mean, p: setattr(mean, "data", 0.9 * mean.data + 0.1 * p.data)),
    "foreach": lambda average, model: torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 0.1),
    "foreach of .data": lambda average, model: torch._foreach_copy_(
        [p.data for p in average.parameters()], [p.data for p in model.parameters()]
    ),
    "as one vector": lambda average, model: nn.utils.vector_to_parameters(
        nn.utils.parameters_to_vector(model.parameters()), average.parameters()
    ),
}


@pytest.mark.parametrize("blend", BLENDS.values(), ids=BLENDS)
@pytest.mark.parametrize("kind", ["apart", "together"])
@pytest.mark.parametrize("back", [False, True], ids=["in a copy", "back into the model"])
def test_an_average_of_parameters_by_hand_is_an_error(blend: Callable[[Any, Any], None], kind: str, back: bool) -> None:
    model = Model()
    average = copy.deepcopy(model)
    optimizers = optimizers_of(model, kind)
    steps(model, optimizers, 0, 3)
    with torch.no_grad():
        blend(*((model, copy.deepcopy(model)) if back else (average, model)))
    head, hidden = (model if back else average).head, data(3)[0].float()
    file = io.BytesIO()
    torch.save(head, file)
    file.seek(0)
    uses: list[Callable[[], object]] = [
        lambda: head.eval().scores(hidden),
        lambda: head.train()(hidden, torch.arange(3)),
        lambda: head.state_dict(),
        lambda: head.to_linear(),
        lambda: head.to_scorer(),
        lambda: head.to(torch.float64),
        lambda: copy.deepcopy(head).top_k(hidden, 2),
        lambda: torch.load(file, weights_only=False).top_k(hidden, 2),
    ]
    for use in uses:
        with pytest.raises(RuntimeError, match=SAID):
            use()
    head.load_weight(model.head.weight())  # somebody sees to W
    head.scores(hidden)
    if not back:
        steps(model, optimizers, 3, 4)
        model.head.scores(hidden)


@pytest.mark.parametrize("kind", ["apart", "together"])
def test_what_is_no_average_is_none(kind: str) -> None:
    """Initialisation, optimisers of torch over all parameters, moves, copies, loads, frozen parameters."""
    model = Model()
    for start in (nn.init.zeros_, nn.init.normal_, lambda p: p.data.uniform_(-0.1, 0.1)):
        model.to("cpu")
        for parameter in model.parameters():
            start(parameter)
    hidden = data(3)[0].float()
    model.head.scores(hidden)
    optimizers = optimizers_of(model, kind)
    steps(model, optimizers, 0, 3)
    if kind == "apart":
        others = [
            torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1, foreach=True),
            torch.optim.Adam(model.parameters(), fused=True, weight_decay=0.1),
            torch.optim.Adagrad(model.parameters()),
        ]
        steps(model, [*others, *optimizers], 3, 5)
    model.requires_grad_(False).requires_grad_(True)
    model.to("cpu").float()
    model.share_memory()
    other = copy.deepcopy(model)
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    model.zero_grad()
    kept = [p.data.clone() for p in model.parameters()]
    for one in (model, other, pickle.loads(pickle.dumps(model))):  # noqa: S301
        steps(one, optimizers_of(one, kind), 5, 6)
        one.head.scores(hidden)
        one.head.to_scorer()
    assert kept[-1].numel() == 0


def test_a_head_made_in_inference_mode_is_read() -> None:
    with torch.inference_mode():
        head = make(wh.losses.ZLoss(), torch.float32)
        head.load_state_dict(copy.deepcopy(head.state_dict()))
        copy.deepcopy(head).to("cpu").scores(data(3)[0].float())
        head.to_linear()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_head_that_is_moved_keeps_its_handle_and_pending_steps(overwrite: bool) -> None:
    """Whether or not torch makes new parameters then: optimisers and clipping know the one that was there."""
    torch.__future__.set_overwrite_module_params_on_conversion(overwrite)
    try:
        model = Model()
        optimizer = wh.optim.Together(wh.optim.Newton(model.head))
        handle = model.head.handle
        model.head(data(6)[0].float(), data(6)[1]).backward()
        norm = model.head.grad_norm()
        assert torch.allclose(handle.grad.norm(), norm)
        for move in (lambda head: head.float(), lambda head: head.to("cpu"), lambda head: head.share_memory()):
            move(model.head)
            assert torch.equal(model.head.grad_norm(), norm)
        model.head.double()
        assert model.head.pending_gradient() is None
        model.head(data(6)[0], data(6)[1]).backward()
        assert model.head.handle is handle
        assert handle.dtype == torch.float64
        assert torch.allclose(handle.grad.norm(), model.head.grad_norm())
        optimizer.step()
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)
