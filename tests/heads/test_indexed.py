"""The best classes by an index: with one that finds all, what the head's own top_k gives; never a wrong ranking."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.head_table import BIAS, LINEAR, TABLE, WIDTH, D, Row, hidden_of, make

import widehead as wh
from widehead.heads.indexed import IndexedTopK
from widehead.search import ExhaustiveIndex, HNSWIndex, IVFIndex

LOSSES = [
    wh.losses.SphericalSoftmax(eps=0.03),
    wh.losses.TaylorSoftmax(),
    wh.losses.ZLoss(),
    wh.losses.SquaredError(),
    wh.losses.WeightedSquaredError(),
]


class ByAbsoluteValue(wh.losses.SquaredError):
    """A user's own."""

    def score(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs.abs()


class ByDistance(wh.losses.SphericalSoftmax):
    """A user's own that says that it falls and then rises."""

    ranks_both_ways = True

    def score(self, outputs: torch.Tensor) -> torch.Tensor:
        return (outputs - 0.3).abs()


class Wave(wh.losses.SphericalSoftmax):
    """A score that rises and falls anew: not what its parent is."""

    def score(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs.sin()


def exact(loss: wh.losses.Loss, bias: bool = False) -> wh.ExactHead:
    torch.manual_seed(0)
    head = wh.ExactHead(WIDTH, D, loss, bias=bias)
    head.load_weight(torch.randn(D, WIDTH), torch.randn(D) if bias else None)
    return head


def all_rows(head: Any) -> torch.Tensor:
    return head.weight() if head.bias() is None else torch.cat([head.weight(), head.bias()[:, None]], dim=1)


def agrees(head: Any, k: int, exclude: Any = None) -> None:
    hidden = torch.randn(9, WIDTH).to(head.dtype)
    found = IndexedTopK(head, ExhaustiveIndex(all_rows(head))).top_k(hidden, k, exclude=exclude)
    scores, ids = head.top_k(hidden, k, exclude=exclude)
    torch.testing.assert_close(found[0], scores, rtol=1e-4, atol=1e-4)
    assert torch.equal(found[1], ids.masked_fill(scores == -torch.inf, -1))


@pytest.mark.parametrize("loss", [*LOSSES, ByDistance()], ids=lambda loss: type(loss).__name__)
@BIAS
@pytest.mark.parametrize("k", [1, 5, D])
def test_an_index_that_finds_all_ranks_as_the_head_does(loss: wh.losses.Loss, bias: bool, k: int) -> None:
    head = exact(loss, bias)
    agrees(head, k)
    agrees(head, k, exclude=[[], [0], [3, 1], *([list(range(D - 2))] * 2), [], [5, 5], [], [D - 1]])


@LINEAR
@BIAS
def test_so_it_does_for_every_linear_head(row: Row, bias: bool) -> None:
    agrees(make(row, bias=bias).eval(), 4)


@pytest.mark.parametrize("row", [r for r in TABLE if r.name.startswith(("hier", "adap"))], ids=lambda row: row.name)
def test_a_tree_has_no_rows_to_search(row: Row) -> None:
    with pytest.raises(TypeError, match="one row of weights for each class"):
        IndexedTopK(make(row), ExhaustiveIndex(torch.zeros(D, WIDTH)))


@pytest.mark.parametrize("loss", [ByAbsoluteValue(), Wave()], ids=lambda loss: type(loss).__name__)
def test_a_score_of_unknown_shape_is_refused(loss: wh.losses.Loss) -> None:
    with pytest.raises(TypeError, match=f"{type(loss).__name__}, which ranks by the score of.*ranks_both_ways"):
        IndexedTopK(exact(loss), ExhaustiveIndex(torch.zeros(D, WIDTH)))


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_scores_have_the_shape_that_their_losses_say(loss: wh.losses.Loss) -> None:
    steps = loss.score(torch.linspace(-40.0, 40.0, 2001, dtype=torch.float64)).diff() > 0
    if loss.ranks_both_ways:
        assert not steps[0]
        assert int(steps.long().diff().abs().sum()) == 1
    else:
        assert bool(steps.all())


@pytest.mark.parametrize("kind", [IVFIndex, HNSWIndex])
@pytest.mark.parametrize("loss", [LOSSES[0], LOSSES[3]], ids=lambda loss: type(loss).__name__)
def test_an_index_of_faiss_finds_most(kind: Any, loss: wh.losses.Loss) -> None:
    pytest.importorskip("faiss")
    head, hidden = exact(loss, bias=True), hidden_of(dtype=torch.float32).detach()
    rows = all_rows(head)
    index = kind(rows)
    queries = torch.cat([hidden, torch.ones(len(hidden), 1)], dim=1)
    assert index.tune(rows, torch.cat([queries, -queries]), 3, 1.0) == 1.0
    assert torch.equal(IndexedTopK(head, index).top_k(hidden, 3)[1], head.top_k(hidden, 3)[1])
