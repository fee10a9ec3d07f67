"""The paper's table: both networks are the same but for the output layer, and what is published has a source."""

from __future__ import annotations

import copy

import pytest
import torch

from widehead.bench import paper_table
from widehead.bench.methods import METHODS
from widehead.bench.paper import PUBLISHED, Network, PaperSizes
from widehead.bench.problem import OutputLayerProblem

_SMALL = PaperSizes(classes=400, width=12, batch=6, context=3, embedding=5)


def test_rows_are_the_two_parts() -> None:
    rows = paper_table(_SMALL, rounds=1)
    assert [row["part"] for row in rows] == ["output layer only", "whole model"]
    for row in rows:
        assert row["speedup"] == pytest.approx(row["dense_seconds"] / row["exact_seconds"])
        assert row["published"] == []  # other sizes than the paper's
        assert (row["classes"], row["embedding"]) == (400, 5)


def test_published_figures_have_a_source_and_belong_to_a_row() -> None:
    assert {fact["part"] for fact in PUBLISHED} <= {row["part"] for row in paper_table(_SMALL, rounds=1)}
    assert all("arXiv" in fact["source"] for fact in PUBLISHED)


def test_both_networks_train_alike_with_sparse_gradients() -> None:
    torch.manual_seed(0)
    device, problem = torch.device("cpu"), OutputLayerProblem(400, 12, 6)
    dense = METHODS["dense"](problem, device)
    exact = METHODS["exact"](problem, device)
    exact.head.load_weight(dense.layer.weight.detach())  # type: ignore[attr-defined]
    plain = Network(_SMALL, dense, device)
    ours = Network(_SMALL, exact, device)
    ours.encoder.load_state_dict(copy.deepcopy(plain.encoder.state_dict()))
    before = ours.encoder[2].weight.detach().clone()
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        words = torch.randint(400, (6, 3), generator=generator)
        _, targets = problem.draw(generator)
        assert float(ours.step(words, targets)) == pytest.approx(float(plain.step(words, targets)), rel=1e-5)
    assert not torch.equal(ours.encoder[2].weight, before)
    for mine, theirs in zip(ours.encoder.parameters(), plain.encoder.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
    assert ours.encoder[0].weight.grad.is_sparse
    assert plain.encoder[0].weight.grad.is_sparse


def test_too_large_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs both networks in memory\. exact needs .* GB free"):
        paper_table(PaperSizes(classes=10**12))
    with pytest.raises(ValueError, match="`embedding`"):
        PaperSizes(embedding=0)
    with pytest.raises(ValueError, match="`rounds`"):
        paper_table(_SMALL, rounds=0)
