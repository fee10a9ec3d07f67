"""A head that leaves for other programs: what ranks as it does, and what is said of what does not."""

from __future__ import annotations

import io
import warnings

import pytest
import torch
from support.head_table import BIAS, LINEAR, TABLE, WIDTH, D, Row, hidden_of, make

import widehead as wh
from widehead.errors import RankingWarning
from widehead.heads import Scorer

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


def exact(loss: wh.losses.Loss, bias: bool = False) -> wh.ExactHead:
    torch.manual_seed(0)
    head = wh.ExactHead(WIDTH, D, loss, bias=bias)
    head.load_weight(torch.randn(D, WIDTH), torch.randn(D) if bias else None)
    return head


@pytest.mark.parametrize("loss", [*LOSSES, ByAbsoluteValue()], ids=lambda loss: type(loss).__name__)
@BIAS
def test_a_scorer_ranks_as_the_head_does(loss: wh.losses.Loss, bias: bool) -> None:
    head, hidden = exact(loss, bias), torch.randn(7, WIDTH)
    scorer = head.to_scorer()
    assert torch.allclose(scorer(hidden), head.scores(hidden), atol=1e-5)
    assert torch.equal(scorer(hidden).topk(5).indices, head.top_k(hidden, 5)[1])
    assert scorer(hidden.view(7, 1, 1, WIDTH)).shape == (7, 1, 1, D)
    torch.nn.init.zeros_(scorer.linear.weight)
    assert head.weight().abs().sum() > 0


@LINEAR
@BIAS
def test_every_linear_head_has_a_scorer(row: Row, bias: bool) -> None:
    head, hidden = make(row, bias=bias), hidden_of().detach()
    scorer = head.to_scorer()
    assert torch.allclose(scorer(hidden), head.scores(hidden))
    assert sorted(scorer.state_dict()) == ["linear.bias"] * bias + ["linear.weight"]
    other = make(row, bias=bias, seed=9).to_scorer()
    other.load_state_dict(scorer.state_dict())
    assert torch.equal(other(hidden), scorer(hidden))


TREES = pytest.mark.parametrize(
    "row", [row for row in TABLE if row.name.startswith(("hierarchical", "adaptive"))], ids=lambda row: row.name
)


@TREES
@BIAS
def test_every_tree_has_a_scorer_that_is_exported(row: Row, bias: bool) -> None:
    head, hidden = make(row, bias=bias).eval(), hidden_of().detach()
    scorer = head.to_scorer().eval()
    assert torch.allclose(scorer(hidden), head.scores(hidden))
    assert scorer(hidden.view(-1, 1, WIDTH)).shape == (len(hidden), 1, D)
    other = make(row, bias=bias, seed=9).to_scorer().eval()
    other.load_state_dict(scorer.state_dict())
    assert torch.equal(other(hidden), scorer(hidden))
    with torch.no_grad():
        exported = torch.export.export(scorer, (hidden,), dynamic_shapes=({0: torch.export.Dim("m")},))
    twice = torch.cat([hidden, hidden])
    torch.testing.assert_close(exported.module()(twice), scorer(twice).detach())
    torch.nn.init.zeros_(next(scorer.parameters()))
    assert next(head.parameters()).abs().sum() > 0


@TREES
def test_a_tree_is_no_linear_layer(row: Row) -> None:
    with pytest.raises(TypeError, match=r"no single nn\.Linear.*Take head\.to_scorer\(\)"):
        make(row).to_linear()


@pytest.mark.parametrize("loss", LOSSES[:3], ids=lambda loss: type(loss).__name__)
def test_a_scorer_is_exported_pickled_and_built_anew(loss: wh.losses.Loss) -> None:
    scorer, hidden = exact(loss, bias=True).to_scorer().eval(), torch.randn(3, WIDTH)
    expected = scorer(hidden)
    exported = torch.export.export(scorer, (hidden,), dynamic_shapes=({0: torch.export.Dim("m")},))
    assert torch.allclose(exported.module()(torch.cat([hidden, hidden])), torch.cat([expected, expected]), atol=1e-4)
    buffer = io.BytesIO()
    torch.save(scorer, buffer)
    buffer.seek(0)
    assert torch.equal(torch.load(buffer, weights_only=False)(hidden), expected)
    built = Scorer(torch.nn.Linear(WIDTH, D), loss if loss.ranks_by is not None else None)
    built.load_state_dict(scorer.state_dict())
    assert torch.allclose(built(hidden), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("loss", "formula"),
    [(LOSSES[0], r"log\(o² \+ 0.03\)"), (LOSSES[1], r"log\(1 \+ o \+ o²/2\)"), (ByAbsoluteValue(), "score of ByAbs")],
    ids=["spherical", "Taylor", "own"],
)
def test_a_linear_layer_that_ranks_otherwise_comes_with_a_warning(loss: wh.losses.Loss, formula: str) -> None:
    with pytest.warns(RankingWarning, match=f"ranks by .*{formula}.*to_scorer"):
        exact(loss).to_linear()


@pytest.mark.parametrize("loss", LOSSES[2:], ids=lambda loss: type(loss).__name__)
def test_one_that_ranks_alike_comes_without(loss: wh.losses.Loss) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        head = exact(loss)
        head.to_linear()
        head.to_scorer()
        exact(LOSSES[0]).to_scorer()


@pytest.mark.parametrize("row", [row for row in TABLE if row.name == "exact"], ids=lambda row: row.name)
def test_onnx_ranks_as_the_head_does(row: Row) -> None:
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    head, hidden = make(row, bias=True, dtype=torch.float32).eval(), hidden_of(dtype=torch.float32).detach()
    program = torch.onnx.export(
        head.to_scorer().eval(), (hidden,), dynamic_shapes=({0: "m"},), dynamo=True, verbose=False
    )
    assert program is not None
    buffer = io.BytesIO()
    program.save(buffer)
    session = onnxruntime.InferenceSession(buffer.getvalue())
    more = torch.randn(2 * len(hidden) + 1, WIDTH)
    (scores,) = session.run(None, {session.get_inputs()[0].name: more.numpy()})
    expected, ids = head.top_k(more, 5)
    best = torch.from_numpy(scores).topk(5)
    torch.testing.assert_close(best.values, expected)
    assert torch.equal(best.indices, ids)
