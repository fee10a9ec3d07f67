"""A head in the place of a model's last layer: weights, sparse embeddings, refusals, and the layer back."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.head_table import TABLE, Row
from torch import Tensor, nn

import widehead as wh
from widehead.errors import RankingWarning

WIDTH, D = 8, 60


class Decoder(nn.Module):
    """GPT-2 in small: what it calls its parts."""

    def __init__(self, bias: bool = False, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.transformer = nn.ModuleDict({"wte": nn.Embedding(D, WIDTH), "wpe": nn.Embedding(16, WIDTH)})
        self.block = nn.Linear(WIDTH, WIDTH)
        self.lm_head = nn.Linear(WIDTH, D, bias=bias)
        self.to(dtype)

    def hidden(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1])
        return torch.tanh(self.block(self.transformer["wte"](ids) + self.transformer["wpe"](places)))

    def forward(self, ids: Tensor) -> Tensor:
        return self.lm_head(self.hidden(ids))


def ids(seed: int = 0) -> Tensor:
    return torch.randint(0, D, (2, 6), generator=torch.Generator().manual_seed(seed))


MAKERS: dict[str, Callable[..., Any]] = {
    "exact": functools.partial(wh.ExactHead, loss=wh.losses.ZLoss()),
    "full": wh.FullSoftmaxHead,
    "sampled": functools.partial(wh.SampledSoftmaxHead, negatives=10),
    "noise-contrastive": functools.partial(wh.NoiseContrastiveHead, negatives=10),
    "negative sampling": wh.NegativeSamplingHead,
    "blackout": functools.partial(wh.BlackOutHead, negatives=10),
    "retrieved": functools.partial(wh.RetrievedSoftmaxHead, retrieved=4, tail=4),
}


@pytest.mark.parametrize("kind", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("instance", [False, True])
def test_a_head_takes_the_layers_weights_and_gives_its_scores(kind: Any, bias: bool, instance: bool) -> None:
    model = Decoder(bias)
    with torch.no_grad():
        expected = model.eval()(ids())
    layer = model.train().lm_head
    head = wh.swap_head(model, "lm_head", kind(WIDTH, D, bias=bias) if instance else kind)
    assert model.lm_head is head
    assert torch.equal(head.weight(), layer.weight)
    assert (head.bias() is None) if not bias else torch.equal(head.bias(), layer.bias)
    assert model.transformer["wte"].sparse
    assert not model.transformer["wpe"].sparse
    with torch.no_grad():
        assert torch.allclose(model(ids()), expected, atol=1e-5)  # called as before, by generate() say
    assert torch.allclose(model.eval()(ids()), expected, atol=1e-5)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_every_head_can_be_swapped_in_and_trained(row: Row) -> None:
    model = Decoder()
    head = wh.swap_head(model, "lm_head", lambda d, classes, bias, device, dtype: row.make(d, classes, dtype, bias))
    assert (head.in_features, head.num_classes) == (WIDTH, D)
    loss = head(model.hidden(ids())[:, :-1], ids()[:, 1:])
    loss.backward()
    assert model.transformer["wte"].weight.grad.is_sparse


def test_training_is_that_of_dense_tables_on_the_rows_of_a_batch() -> None:
    """With plain SGD sparse and dense agree in every number."""
    ends = []
    for sparse in (True, False):
        model = Decoder()
        head = wh.swap_head(model, "lm_head", wh.ExactHead, sparse=sparse, loss=wh.losses.ZLoss())
        optimizer = wh.optim.Together(torch.optim.SGD(model.parameters(), lr=0.1), wh.optim.SGD(head, lr=0.01))
        for seed in range(4):
            head(model.hidden(ids(seed))[:, :-1], ids(seed)[:, 1:]).backward()
            optimizer.step()
            optimizer.zero_grad()
        ends.append([*(p.detach() for p in model.parameters()), head.weight()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*ends, strict=True))


@pytest.mark.parametrize("clip", [None, 0.1])
def test_rows_and_rest_by_one_optimiser_learn(clip: float | None) -> None:
    model = Decoder()
    head = wh.swap_head(model, "lm_head", wh.SampledSoftmaxHead, negatives=30)
    rows = [model.transformer["wte"].weight, *head.parameters()]
    rest = [p for p in model.parameters() if all(p is not row for row in rows)]
    optimizer = wh.optim.Together(torch.optim.AdamW(rest, lr=0.02), wh.optim.RowAdam(rows, lr=0.02), max_grad_norm=clip)
    untouched = torch.ones(D, dtype=torch.bool)
    untouched[ids()] = False
    before, losses = model.transformer["wte"].weight.detach().clone(), []
    for _ in range(60):
        loss = head(model.hidden(ids())[:, :-1], ids()[:, 1:])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    assert torch.equal(model.transformer["wte"].weight[untouched], before[untouched])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_types_modes_and_frozen_layers_are_kept(dtype: torch.dtype) -> None:
    model = Decoder(dtype=dtype).eval()
    model.lm_head.requires_grad_(False)
    head = wh.swap_head(model, "lm_head", wh.ExactHead, loss=wh.losses.ZLoss())
    assert head.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert not head.training
    assert not head.train().learns
    other = Decoder(dtype=dtype)
    assert wh.swap_head(other, "lm_head", wh.FullSoftmaxHead).dtype == dtype


# -- the layer back ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("bias", [False, True])
def test_the_layer_comes_back(kind: Any, bias: bool) -> None:
    model = Decoder(bias)
    before = copy.deepcopy(model.state_dict())
    wh.swap_head(model, "lm_head", kind)
    layer = wh.restore_linear(model, "lm_head")
    assert model.lm_head is layer
    assert type(layer) is nn.Linear
    assert layer.training
    assert layer.weight.requires_grad
    assert not model.transformer["wte"].sparse
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), before.values(), strict=True))
    model(ids()).sum().backward()
    assert not model.transformer["wte"].weight.grad.is_sparse


@pytest.mark.parametrize("loss", [wh.losses.SphericalSoftmax(), wh.losses.TaylorSoftmax()])
def test_losses_that_rank_otherwise_come_back_with_a_warning(loss: wh.losses.Loss) -> None:
    model = Decoder()
    wh.swap_head(model, "lm_head", wh.ExactHead, loss=loss)
    with pytest.warns(RankingWarning, match="ranks by"):
        wh.restore_linear(model, "lm_head")
    wh.swap_head(model, "lm_head", wh.ExactHead, loss=wh.losses.ZLoss())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wh.restore_linear(model, "lm_head")


# -- refusals ----------------------------------------------------------------------------------------------------


def unchanged(model: nn.Module, before: dict[str, Any], kind: type[nn.Module] = nn.Linear) -> bool:
    state = model.state_dict()
    same = all(torch.equal(state[name], value) for name, value in before.items())
    return same and type(model.lm_head) is kind and not model.transformer["wte"].sparse


@pytest.mark.parametrize("by_memory", [False, True])
def test_a_tied_embedding_is_refused_with_the_way_out(by_memory: bool) -> None:
    model = Decoder()
    model.lm_head.weight = (
        nn.Parameter(model.transformer["wte"].weight) if by_memory else model.transformer["wte"].weight
    )
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(
        ValueError, match=r"`lm_head` .* tied to transformer\.wte\.weight\. Part them: (.*?), and"
    ) as error:
        wh.swap_head(model, "lm_head", wh.SampledSoftmaxHead)
    assert unchanged(model, before)
    way_out = str(error.value).partition("Part them: ")[2].partition(", and in")[0]
    exec(way_out, {"torch": torch, "model": model})
    head = wh.swap_head(model, "lm_head", wh.SampledSoftmaxHead)
    assert torch.equal(head.weight(), model.transformer["wte"].weight)


@pytest.mark.parametrize(
    ("name", "head", "error", "match"),
    [
        ("block.0", wh.FullSoftmaxHead, AttributeError, "0"),
        ("transformer.wte", wh.FullSoftmaxHead, TypeError, "nn.Linear. Found Embedding"),
        ("lm_head", lambda: wh.FullSoftmaxHead(WIDTH + 1, D, bias=True), ValueError, r"\(8, 60\).*\(9, 60\)"),
        ("lm_head", lambda: wh.FullSoftmaxHead(WIDTH, D), ValueError, "bias=True"),
        ("lm_head", lambda: functools.partial(wh.FullSoftmaxHead, bias=False), ValueError, "bias=True"),
        ("lm_head", lambda: wh.ExactHead, TypeError, "loss"),
        ("lm_head", lambda: functools.partial(wh.SampledSoftmaxHead, negatives=0), ValueError, "negatives"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, head: Any, error: type[Exception], match: str | None) -> None:
    model = Decoder(bias=True)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=match):
        wh.swap_head(model, name, head() if name == "lm_head" and not isinstance(head, type) else head)
    assert unchanged(model, before)


def test_options_are_for_what_makes_a_head() -> None:
    with pytest.raises(TypeError, match=r"\['negatives'\]"):
        wh.swap_head(Decoder(), "lm_head", wh.SampledSoftmaxHead(WIDTH, D), negatives=3)


def test_numbers_that_are_not_finite_are_refused() -> None:
    model = Decoder()
    model.lm_head.weight.data[3, 2] = float("nan")
    with pytest.raises(ValueError, match="finite"):
        wh.swap_head(model, "lm_head", wh.SampledSoftmaxHead)
    assert type(model.lm_head) is nn.Linear


@pytest.mark.parametrize("kind", ["exact", "sampled"])
def test_a_model_without_memory_takes_a_head_and_then_its_state(kind: str) -> None:
    trained = Decoder()
    wh.swap_head(trained, "lm_head", MAKERS[kind])
    with torch.device("meta"):
        model = Decoder()
        head = wh.swap_head(model, "lm_head", MAKERS[kind])
    assert head.device.type == "meta"
    model.load_state_dict(trained.state_dict(), assign=True)
    assert torch.equal(model.lm_head.weight(), trained.lm_head.weight())


def test_quantised_layers_are_refused() -> None:
    model = Decoder()
    model.lm_head.weight = nn.Parameter(torch.zeros(D, WIDTH, dtype=torch.int8), requires_grad=False)
    with pytest.raises(TypeError, match=r"floating point\. Found torch\.int8"):
        wh.swap_head(model, "lm_head", wh.SampledSoftmaxHead)


def test_what_is_no_head_or_no_layer_stays() -> None:
    model = Decoder()
    with pytest.raises(TypeError, match=r"head of widehead\. Found Linear"):
        wh.restore_linear(model, "lm_head")
    tree = wh.swap_head(model, "lm_head", wh.HierarchicalSoftmaxHead)
    with pytest.raises(TypeError, match="tree"):
        wh.restore_linear(model, "lm_head")
    assert model.lm_head is tree
    assert model.transformer["wte"].sparse


def test_a_head_in_training_is_not_called_for_scores_by_mistake() -> None:
    model = Decoder()
    wh.swap_head(model, "lm_head", wh.SampledSoftmaxHead)
    with pytest.raises(TypeError, match=r"head\(hidden, targets\)"):
        model(ids())
    assert model.eval()(ids()).shape == (2, 6, D)
