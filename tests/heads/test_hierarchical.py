"""The two trees of the hierarchical softmax against their definitions, written down class by class."""

from __future__ import annotations

import heapq
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import widehead as wh
from widehead.heads.trees import Levels, huffman_links, paths

D, WIDTH, M = 23, 6, 5
RAGGED = [[0, 7, 7], [], [22], [3, 11], [5]]
TREES = pytest.mark.parametrize("tree", ["two-level", "huffman"])
SIZES = pytest.mark.parametrize("num_classes", [1, 2, 3, 16, D, 26])


def make(tree: str, num_classes: int = D, bias: bool = False) -> wh.HierarchicalSoftmaxHead:
    torch.manual_seed(0)
    frequencies = torch.rand(num_classes, dtype=torch.float64) ** 3
    return wh.HierarchicalSoftmaxHead(
        WIDTH, num_classes, tree=tree, frequencies=frequencies, bias=bias, dtype=torch.float64
    )


def dense_log_probs(head: wh.HierarchicalSoftmaxHead, hidden: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """(m, D) by the definition, one class at a time."""
    if head.has_bias:
        hidden = torch.cat([hidden, torch.ones_like(hidden[:, :1])], dim=1)
    columns = []
    for c in range(head.num_classes):
        if head.tree == "two-level":
            cluster, place = divmod(int(head.ranks[c]), head.cluster_size)
            rows = weights["classes"][cluster * head.cluster_size : (cluster + 1) * head.cluster_size]
            top = (hidden @ weights["clusters"].T).log_softmax(1)[:, cluster]
            columns.append(top + (hidden @ rows.T).log_softmax(1)[:, place])
            continue
        node, total = c, hidden.new_zeros(hidden.shape[0])
        while node != 2 * head.num_classes - 2:
            parent, side = divmod(int(head.links[node]), 2)
            total = total + torch.nn.functional.logsigmoid((1 - 2 * side) * (hidden @ weights["nodes"][parent]))
            node = head.num_classes + parent
        columns.append(total)
    return torch.stack(columns, dim=1)


@TREES
@SIZES
@pytest.mark.parametrize("bias", [False, True])
def test_all_log_probs_are_those_of_the_definition(tree: str, num_classes: int, bias: bool) -> None:
    head = make(tree, num_classes, bias)
    hidden = torch.randn(M, WIDTH, dtype=torch.float64)
    expected = dense_log_probs(head, hidden, dict(head.named_parameters()))
    assert torch.allclose(head.scores(hidden), expected)
    assert torch.allclose(head.log_prob(hidden, torch.arange(num_classes).expand(M, -1)), expected)
    assert torch.allclose(expected.exp().sum(1), torch.ones(M, dtype=torch.float64))


@TREES
@pytest.mark.parametrize("bias", [False, True])
def test_sparse_gradients_are_those_of_the_definition(tree: str, bias: bool) -> None:
    head, targets = make(tree, bias=bias), wh.SparseTargets.from_lists(RAGGED)
    hidden = torch.randn(M, WIDTH, dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([1.0, 5.0, 0.3, 2.0, 0.7], dtype=torch.float64)
    head(hidden, targets, weight=weight, reduction="sum").backward()
    twins = {name: p.detach().clone().requires_grad_() for name, p in head.named_parameters()}
    twin = hidden.detach().clone().requires_grad_()
    log_p = dense_log_probs(head, twin, twins)
    (-sum(weight[b] * log_p[b, ids].mean() for b, ids in enumerate(RAGGED) if ids)).backward()
    assert torch.allclose(hidden.grad, twin.grad)
    for name, parameter in head.named_parameters():
        assert parameter.grad.is_sparse
        assert torch.allclose(parameter.grad.to_dense(), twins[name].grad)


@TREES
def test_a_bias_is_0_at_first(tree: str) -> None:
    for parameter in make(tree, bias=True).parameters():
        assert not parameter[:, WIDTH].any()
        assert bool((parameter[:, :WIDTH] != 0.0).all())


@TREES
def test_gradcheck(tree: str) -> None:
    head = make(tree, bias=True)
    hidden = torch.randn(M, WIDTH, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda h: head(h, RAGGED, reduction="none"), hidden)
    assert torch.autograd.gradcheck(lambda h: head.scores(h), hidden)


def test_gradients_hold_the_rows_of_the_targets_clusters_alone() -> None:
    head = wh.HierarchicalSoftmaxHead(WIDTH, 10_000)
    head(torch.randn(3, WIDTH), torch.tensor([5, 70, 9_999])).backward()
    rows = head.classes.grad.coalesce().indices()[0]
    assert torch.equal(rows, torch.cat([torch.arange(100), torch.arange(9_900, 10_000)]))
    tree = wh.HierarchicalSoftmaxHead(WIDTH, 10_000, tree="huffman")
    tree(torch.randn(3, WIDTH), torch.tensor([5, 70, 9_999])).backward()
    assert tree.nodes.grad.coalesce().indices().shape[1] <= 3 * 14


def test_neighbours_in_frequency_share_a_cluster() -> None:
    frequencies = torch.tensor([1.0, 50.0, 2.0, 40.0, 30.0, 3.0, 3.0, 60.0, 0.0])
    head = wh.HierarchicalSoftmaxHead(WIDTH, 9, frequencies=frequencies)
    assert head.cluster_size == 3
    assert head.ranks.tolist() == [7, 1, 6, 2, 3, 4, 5, 0, 8]
    assert wh.HierarchicalSoftmaxHead(WIDTH, 9).ranks.tolist() == list(range(9))


def heap_cost(frequencies: list[float]) -> float:
    """Σ frequency × length of code of an optimal code: the sum of all merged weights, with a heap."""
    heap, total = list(frequencies), 0.0
    heapq.heapify(heap)
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        total += merged
        heapq.heappush(heap, merged)
    return total


@settings(max_examples=60)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=60))
def test_the_huffman_tree_is_optimal_and_a_tree(counts: list[int]) -> None:
    n = len(counts)
    links = huffman_links(torch.tensor(counts, dtype=torch.float64))
    lengths = paths(links, torch.arange(n), Levels(links).depth).counts
    assert sum(c * int(length) for c, length in zip(counts, lengths, strict=True)) == heap_cost(
        [float(c) for c in counts]
    )
    assert math.isclose(sum(0.5 ** int(length) for length in lengths), 1.0)  # Kraft: a full binary tree
    assert sorted(links.tolist()) == list(range(2 * n - 2))  # every inner node has a left and a right child


def test_equal_frequencies_give_a_balanced_tree_and_steep_ones_a_chain() -> None:
    head = wh.HierarchicalSoftmaxHead(WIDTH, 64, tree="huffman")
    assert paths(head.links, torch.arange(64), 6).counts.tolist() == [6] * 64
    steep = wh.HierarchicalSoftmaxHead(WIDTH, 40, tree="huffman", frequencies=[2.0**-i for i in range(40)])
    assert paths(steep.links, torch.tensor([0, 1, 39]), Levels(steep.links).depth).counts.tolist() == [1, 2, 39]
    ties = huffman_links(torch.tensor([1.0, 1.0, 2.0, 2.0]))  # depths 3, 3, 2, 1 would be optimal too
    assert paths(ties, torch.arange(4), 2).counts.tolist() == [2] * 4
    hidden = torch.randn(2, WIDTH)
    assert torch.allclose(steep.scores(hidden).exp().sum(1), torch.ones(2))


@TREES
def test_the_tree_travels_with_the_state_and_survives_a_change_of_type(tree: str) -> None:
    head = make(tree)
    hidden = torch.randn(M, WIDTH, dtype=torch.float64)
    other = wh.HierarchicalSoftmaxHead(WIDTH, D, tree=tree, dtype=torch.float64)
    assert not torch.equal(head.scores(hidden), other.scores(hidden))  # what it found of its tree is of no use later
    other.load_state_dict(head.state_dict())
    assert torch.equal(head.scores(hidden), other.scores(hidden))
    other.to(torch.float16).to(torch.float64)
    assert torch.allclose(head.scores(hidden), other.scores(hidden), atol=1e-2)


@pytest.mark.parametrize("frequencies", [[1.0] * 22, [1.0] * 24, [[1.0] * D], [-1.0] + [1.0] * 22, [float("nan")] * D])
def test_wrong_frequencies_are_refused(frequencies: list[float]) -> None:
    with pytest.raises(ValueError, match="Parameter `frequencies` should"):
        wh.HierarchicalSoftmaxHead(WIDTH, D, frequencies=frequencies)


def test_an_unknown_tree_is_refused() -> None:
    with pytest.raises(ValueError, match="Parameter `tree` should be"):
        wh.HierarchicalSoftmaxHead(WIDTH, D, tree="oak")  # type: ignore[arg-type]
