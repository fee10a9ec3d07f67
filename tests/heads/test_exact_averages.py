"""Averages of exact heads by torch's tools."""

from __future__ import annotations

import collections
import copy
import io
from typing import Any

import pytest
import torch
from support.played import Device
from support.trained_head import WIDTH, D, own_copy, train, trained
from torch import Tensor, nn
from torch.optim import swa_utils

from widehead.heads import AveragedModel

WAYS = [{}, {"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.8)}, {"avg_fn": swa_utils.get_ema_avg_fn(0.8)}]


def averaged_by(kind: Any, options: dict[str, Any], momentum: float, bias: bool) -> tuple[Any, Tensor, nn.Module]:
    model = nn.Sequential(collections.OrderedDict(encoder=nn.Linear(2, 2), head=trained(0, bias=bias)))
    average, expected = kind(model, **options), torch.zeros(D, WIDTH + bias)
    for step in range(5):
        train(model.head, 4, step, momentum)
        average.update_parameters(model)
        now = model.head.weights.dense()
        if not options or "use_buffers" in options:
            expected = expected + (now - expected) / (step + 1)
        else:
            expected = now if step == 0 else 0.8 * expected + 0.2 * now
    return average, expected, model


@pytest.mark.parametrize("options", [*WAYS, {"use_buffers": True}], ids=["mean", "fused", "each", "buffers"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("bias", [False, True])
def test_weights_are_averaged(options: dict[str, Any], momentum: float, bias: bool) -> None:
    average, expected, model = averaged_by(AveragedModel, options, momentum, bias)
    before, head = model.head.weight(), average.module.head.eval()
    assert torch.allclose(head.weights.dense(), expected, atol=1e-6)
    assert head.audit().gram < 1e-5
    hidden = torch.randn(3, WIDTH)
    assert torch.allclose(head.scores(hidden), head.to_scorer()(hidden), atol=1e-4)
    other, _, _ = averaged_by(AveragedModel, options, 0.0, bias)
    other.load_state_dict(average.state_dict())
    assert torch.equal(other.module.head.weight(), head.weight())
    assert torch.equal(model.head.weight(), before)


@pytest.mark.parametrize("options", [*WAYS, {"use_buffers": True}], ids=["mean", "fused", "each", "buffers"])
def test_an_average_that_leaves_the_weights_out_is_an_error(options: dict[str, Any]) -> None:
    average, _, model = averaged_by(swa_utils.AveragedModel, options, 0.0, False)
    head, hidden = average.module.head, torch.randn(3, WIDTH)
    uses = [
        lambda: head.top_k(hidden, 2),
        lambda: head.scores(hidden),
        lambda: head.eval()(hidden, [[1], [2], [3]]),
        lambda: average.state_dict(),
        lambda: copy.deepcopy(head).top_k(hidden, 2),
        lambda: head.to(torch.float64),
    ]
    for use in uses:
        with pytest.raises(RuntimeError, match=r"copied or averaged into.*widehead\.heads\.AveragedModel"):
            use()
    model.head.top_k(hidden, 2)


@pytest.mark.parametrize("way", ["in place", "behind autograd", "in a copy"])
def test_an_average_on_a_device_is_an_error_that_costs_no_wait_else(played: Device, way: str) -> None:
    head = trained(5).to("cuda").train()
    hidden = torch.randn(3, WIDTH).to("cuda")
    head.top_k(hidden, 2)
    for training in (True, False):
        head.train(training)
        head.top_k(hidden, 2)
        with played.counting() as seen:
            head.top_k(hidden, 2)
        assert seen.waits == []
    head.train()
    seal = head.seal.data if way == "behind autograd" else head.seal
    seal.copy_(torch.tensor(0.5))
    head = copy.deepcopy(head) if way == "in a copy" else head
    with pytest.raises(RuntimeError, match="copied or averaged into"):
        head.eval().top_k(hidden, 2)


def test_copies_that_nobody_averaged_are_heads_like_others() -> None:
    head = trained(5)
    buffer = io.BytesIO()
    torch.save(head, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(head), copy.deepcopy(copy.copy(head)), torch.load(buffer, weights_only=False)):
        assert torch.equal(other.eval().top_k(torch.ones(1, WIDTH), 3)[1], head.top_k(torch.ones(1, WIDTH), 3)[1])
        other.load_state_dict(own_copy(trained(9).state_dict()))
        assert other.top_k(torch.ones(1, WIDTH), 3)[0].shape == (1, 3)
