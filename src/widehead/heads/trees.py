"""Trees of classes: the shape of a Huffman tree, and the softmax within clusters with sparse gradients.

Letters: D classes, nnz targets in all, S classes a cluster.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from widehead.devices import moved
from widehead.heads.graph import differentiable_once
from widehead.precision import in_full_precision
from widehead.targets import SparseTargets


def huffman_links(frequencies: Tensor) -> Tensor:
    """(2D − 2,) the Huffman tree of ``frequencies`` (D,): for each node but the root 2 · parent + side.

    Nodes 0 to D − 1 are the classes, the others the D − 1 inner nodes in the order in which they arise, the root last;
    parents are counted among the inner nodes. Two queues (van Leeuwen 1976), O(D) after sorting. Among equals classes
    go before inner nodes, which keeps the tree as shallow as can be.
    """
    count = frequencies.numel()
    order = torch.argsort(frequencies, stable=True).tolist()
    leaf_weights = frequencies.tolist()
    inner_weights: list[float] = []
    links = [0] * (2 * count - 2)
    leaf = inner = 0
    for parent in range(count - 1):
        total = 0.0
        for side in (0, 1):
            take_leaf = leaf < count and (
                inner == len(inner_weights) or leaf_weights[order[leaf]] <= inner_weights[inner]
            )
            if take_leaf:
                node, weight = order[leaf], leaf_weights[order[leaf]]
                leaf += 1
            else:
                node, weight = count + inner, inner_weights[inner]
                inner += 1
            links[node] = 2 * parent + side
            total += weight
        inner_weights.append(total)
    return torch.tensor(links, dtype=torch.int64)


def paths(links: Tensor, class_ids: Tensor, depth: int) -> SparseTargets:
    """The inner nodes from each class up to the root, an "example" a class; values +1 to the left, −1 to the right.

    A GPU is waited for once, to know how many they are.
    """
    num_classes = links.numel() // 2 + 1
    root = 2 * num_classes - 2
    node, above = class_ids, class_ids.new_full((class_ids.numel(), depth), -1)
    for step in range(depth):
        link = links[node.clamp_max(root - 1)]
        above[:, step] = torch.where(node == root, -1, link)
        node = torch.where(node == root, root, num_classes + link // 2)
    met = above >= 0
    offsets = torch.nn.functional.pad(met.sum(1).cumsum(0), (1, 0))
    link = above[met]
    return SparseTargets._trusted(link // 2, offsets, 1.0 - 2.0 * (link % 2))


class Levels:
    """A tree's nodes but the root, from the root down, level by level: what sums along all paths need, found once."""

    def __init__(self, links: Tensor) -> None:
        num_classes = links.numel() // 2 + 1
        children = torch.argsort(links).view(-1, 2)
        level = torch.full((1,), 2 * num_classes - 2, device=links.device)
        nodes, self._ups = [level[:0]], []
        while True:
            is_inner = (level >= num_classes).nonzero().squeeze(1)[: children.shape[0]]
            if is_inner.numel() == 0:
                break
            #: for each level the places of its nodes' parents among the level above
            self._ups.append(is_inner.repeat(2))
            level = children[level[is_inner] - num_classes].T.flatten()
            nodes.append(level)
        order = torch.cat(nodes)
        self._parents, side = links[order] // 2, links[order] % 2
        self._signs = 1.0 - 2.0 * side[:, None]
        places = torch.empty_like(links).index_copy_(0, order, torch.arange(order.numel(), device=links.device))
        self._leaves = places[:num_classes]
        #: the largest number of inner nodes above a class
        self.depth = len(self._ups)

    def log_probs(self, outputs: Tensor) -> Tensor:
        """(D, m) log p of all classes from the outputs of the inner nodes (D − 1, m): few kernels a level."""
        steps = logsigmoid(outputs.index_select(0, self._parents).mul_(self._signs.to(outputs.dtype)))
        start, above = 0, outputs.new_zeros(1, outputs.shape[1])
        for up in self._ups:
            above = steps[start : start + up.numel()].add_(above.index_select(0, up))
            start += up.numel()
        return steps.index_select(0, self._leaves) if self._ups else above


class WithinClusters(torch.autograd.Function):
    """(hidden (m, d), table (D, d), examples (nnz,), ranks (nnz,), S, sparse) → (nnz,) log p(class | its cluster).

    Cluster c has rows cS to (c + 1)S. Targets are grouped by cluster, so that each cluster that is needed is read
    once, as a slice. W's gradient has the rows of those clusters, each once; sparse or not.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, table: Tensor, examples: Tensor, ranks: Tensor, size: int, sparse: bool
    ) -> Tensor:
        order = torch.argsort(ranks, stable=True)
        # The host cuts the table into clusters: it waits for a GPU here, and nowhere else.
        clusters, counts = torch.unique_consecutive((ranks // size)[order].cpu(), return_counts=True)
        ctx.groups = list(zip(clusters.tolist(), counts.tolist(), strict=True))
        ctx.size, ctx.num_examples, ctx.sparse = size, hidden.shape[0], sparse
        readers, places = hidden[examples[order]], (ranks % size)[order, None]
        outputs = hidden.new_full((ranks.numel(), size), -torch.inf)  # the last cluster may be smaller
        start = 0
        for rows, block in _split(table, outputs, ctx.groups, size):
            block[:, : rows.shape[0]] = readers[start : start + block.shape[0]] @ rows.T
            start += block.shape[0]
        log_p = torch.log_softmax(outputs, dim=1)
        ctx.save_for_backward(readers, table, log_p, places, clusters, order, examples)
        return torch.empty_like(log_p[:, 0]).index_copy_(0, order, log_p.gather(1, places).squeeze(1))

    @staticmethod
    @differentiable_once
    @in_full_precision
    def backward(ctx: Any, by_log_p: Tensor) -> Any:
        readers, table, log_p, places, clusters, order, examples = ctx.saved_tensors
        by = by_log_p[order, None]
        by_outputs = (-by * log_p.exp()).scatter_add_(1, places, by)
        by_readers, rows_of_table = torch.empty_like(readers), []
        start = 0
        for rows, block in _split(table, by_outputs, ctx.groups, ctx.size):
            stop, block = start + block.shape[0], block[:, : rows.shape[0]]
            torch.mm(block, rows, out=by_readers[start:stop])
            if ctx.needs_input_grad[1]:
                rows_of_table.append(block.T @ readers[start:stop])
            start = stop
        hidden_shape = (ctx.num_examples, readers.shape[1])
        by_hidden = readers.new_zeros(hidden_shape).index_add_(0, examples[order], by_readers)
        by_table = None
        if ctx.needs_input_grad[1]:
            by_table = _sparse_rows(clusters, rows_of_table, table, ctx.size)
            by_table = by_table if ctx.sparse else by_table.to_dense()
        return by_hidden, by_table, None, None, None, None


def _split(
    table: Tensor, by_target: Tensor, groups: list[tuple[int, int]], size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """For each cluster in turn its rows of the table and its targets' rows of ``by_target``."""
    blocks = by_target.split([count for _, count in groups]) if groups else ()
    for (cluster, _), block in zip(groups, blocks, strict=True):
        yield table[cluster * size : (cluster + 1) * size], block


def _sparse_rows(clusters: Tensor, blocks: list[Tensor], table: Tensor, size: int) -> Tensor:
    """Gradients of whole clusters, one block each, as a sparse tensor of the table's shape; clusters on the host."""
    ids = (clusters[:, None] * size + torch.arange(size)).flatten()
    (ids,) = moved([ids[ids < table.shape[0]]], table.device)
    values = torch.cat(blocks) if blocks else table[:0].detach()
    return torch.sparse_coo_tensor(ids[None], values, table.shape, is_coalesced=True, check_invariants=False)
