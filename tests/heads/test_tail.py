"""Draws outside a set: the complement's numbering, the probabilities that weights say, the weights of cells."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import widehead as wh
from widehead.heads.tail import CellTail, Complement, uniform_tail


@given(st.integers(1, 12), st.lists(st.lists(st.integers(-1, 11), min_size=4, max_size=4), min_size=1, max_size=3))
def test_the_complement_is_numbered_in_order(n: int, rows: list[list[int]]) -> None:
    members = torch.tensor(rows).clamp_max(n - 1)
    outside = Complement(members, n)
    for b, row in enumerate(members.tolist()):
        expected = [i for i in range(n) if i not in row]
        assert int(outside.sizes[b]) == len(expected)
        ranks = torch.arange(len(expected)).expand(len(members), -1).contiguous()
        assert outside.numbers(ranks)[b].tolist() == expected
        edges = torch.arange(n + 1)
        assert outside.ranks_below(edges)[b].tolist() == [sum(i < e for i in expected) for e in range(n + 1)]


def test_an_empty_set_leaves_all_numbers() -> None:
    outside = Complement(torch.empty(2, 0, dtype=torch.int64), 5)
    assert outside.sizes.tolist() == [5, 5]
    assert outside.numbers(torch.arange(5).repeat(2, 1))[1].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kind", ["uniform", "cells"])
def test_frequencies_of_draws_are_the_probabilities_that_their_weights_say(kind: str) -> None:
    """χ² over 200,000 draws against q = 1/(l w): below mean + 4 standard deviations of its distribution."""
    torch.manual_seed(0)
    n, draws = 40, 200_000
    members = torch.tensor([[3, 8, -1, 8, 39, 0]])
    if kind == "uniform":
        drawn = uniform_tail(members, n, draws, torch.float64)
    else:
        rows, cells = torch.randn(n, 3, dtype=torch.float64), torch.arange(n) % 7
        cells[cells == 3] = 2  # an empty cell
        tail = CellTail(rows, cells, 7)
        log_cells = tail.log_cell_weights(torch.randn(2, 3, dtype=torch.float64), shared=True)
        drawn = tail.draw(members, log_cells, draws)
    counts = torch.bincount(drawn.ids[0], minlength=n).double()
    q = torch.zeros(n, dtype=torch.float64)
    q[drawn.ids[0]] = (-drawn.log_weights[0]).exp() / draws
    outside = [i for i in range(n) if i not in (0, 3, 8, 39)]
    assert float(q.sum()) == pytest.approx(1.0)
    assert float(counts[[0, 3, 8, 39]].sum()) == 0.0
    if kind == "cells":
        assert float(q[outside].max() / q[outside].min()) > 1.5
    chi2 = ((counts - draws * q)[outside].square() / (draws * q[outside])).sum()
    free = len(outside) - 1
    assert float(chi2) < free + 4.0 * math.sqrt(2.0 * free)


@pytest.mark.parametrize("shared", [True, False])
def test_weights_of_cells_are_those_of_the_definition(shared: bool) -> None:
    """0.9 softmax over classes by the mean row of their cell, 0.1 uniform; the mean over a batch that shares."""
    torch.manual_seed(0)
    n, m = 40, 3
    rows, hidden = torch.randn(n, 5, dtype=torch.float64), torch.randn(m, 5, dtype=torch.float64)
    cells = torch.randint(6, (n,))
    means = torch.stack([rows[cells == c].mean(0) for c in range(6)])
    q = 0.9 * torch.softmax(hidden @ means[cells].T, dim=1) + 0.1 / n
    expected = q.mean(0, keepdim=True) if shared else q
    found = CellTail(rows, cells, 6).log_cell_weights(hidden, shared=shared).exp()
    torch.testing.assert_close(found[:, cells], expected)


def test_the_tail_by_cells_has_less_noise_than_the_uniform_tail_on_clustered_weights() -> None:
    pytest.importorskip("faiss")
    torch.manual_seed(0)
    centers = torch.randn(30, 6)
    rows = 1.5 * centers[torch.randint(30, (3000,))] + 0.2 * torch.randn(3000, 6)
    hidden = torch.randn(1, 6)
    noise = {}
    for kind in ("uniform", "cells"):
        head = wh.RetrievedSoftmaxHead(6, 3000, retrieved=20, tail=100, tail_kind=kind, index="ivf")  # type: ignore[arg-type]
        head.load_weight(rows)
        noise[kind] = sum(float((head(hidden, [[1]]), head.relative_std)[1]) for _ in range(50)) / 50
    assert noise["cells"] < 0.7 * noise["uniform"]
