"""Hierarchical softmax: a class's probability is a product of choices along a tree of classes.

Letters: m examples, D classes, d width, nnz targets in all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, log_softmax, logsigmoid

from widehead.errors import check_choice
from widehead.heads.base import first_rows
from widehead.heads.normalized import NormalizedHead, frequencies_of, ranks_by_frequency
from widehead.heads.trees import Levels, WithinClusters, huffman_links, paths
from widehead.losses import sum_over_targets
from widehead.sampling.base import Frequencies
from widehead.targets import SparseTargets

Tree = Literal["two-level", "huffman"]


class HierarchicalSoftmaxHead(NormalizedHead):
    """Hierarchical softmax: normalised probabilities at a cost far below D a training step, by a model of its own.

    "two-level" (Goodman, ICASSP 2001): about √D clusters of about √D classes, neighbours by falling frequency;
    p = softmax over clusters × softmax within the cluster. A step costs O(m √D d).

    "huffman" (Morin and Bengio, AISTATS 2005; the tree by frequency of Mikolov et al., NIPS 2013): a binary decision,
    σ(±o), at every inner node on the way to the class. A step costs O(m d log D), less for frequent classes.

    Neither loses or approximates probability: log p of some classes costs their paths only, and `top_k` and ``scores``
    of all classes are exact at O(mDd). What is given up is that similar classes may stand far apart in the tree.

    Gradients of all parameters are sparse: rows of the clusters that have a target, or of the inner nodes on the
    way to one. The clusters' own rows, "two-level", are all in every gradient; they are sparse in form so that one
    torch.optim.SparseAdam serves the head. The two-level gradients cannot be differentiated again.

    Args:
        in_features: d.
        num_classes: D.
        tree: "two-level" or "huffman".
        frequencies: (D,) how frequent each class is, in any unit; None: all alike, which gives clusters of
            neighbouring ids, or a balanced binary tree. The tree that arises is part of the state_dict.
        bias: an additional weight of every node for a hidden unit that is always 1.
        sparse: whether gradients are sparse, as in `SampledHead`.
        mesh: none; such a head is not split over processes (docs/distributed.md).
        device, dtype: as in torch.

    Raises:
        ValueError: a mesh, a size or frequency that is none, or another word for ``tree``.

    >>> _ = torch.manual_seed(0)
    >>> head = HierarchicalSoftmaxHead(8, 1000, tree="huffman")
    >>> head(torch.ones(2, 8), [[3], [14, 15]]).shape
    torch.Size([])
    """

    tree: Tree
    ranks: Tensor
    links: Tensor
    nodes: nn.Parameter
    clusters: nn.Parameter
    classes: nn.Parameter

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        tree: Tree = "two-level",
        frequencies: Frequencies | None = None,
        bias: bool = False,
        sparse: bool = True,
        mesh: None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, num_classes, mesh)
        check_choice("tree", tree, get_args(Tree))
        self.tree, self.sparse = tree, sparse
        self.has_bias = bias
        checked = frequencies_of(frequencies, num_classes)
        # Integers, which a change of the head's type leaves alone: rounded frequencies would give another tree.
        self._levels: tuple[Tensor, Levels] | None = None
        if tree == "huffman":
            self.register_buffer("links", huffman_links(checked).to(device))
            sizes = {"nodes": num_classes - 1}
        else:
            self.cluster_size = math.isqrt(num_classes - 1) + 1
            self.register_buffer("ranks", ranks_by_frequency(checked).to(device))
            sizes = {"clusters": -(-num_classes // self.cluster_size), "classes": num_classes}
        for name, rows in sizes.items():
            self.register_parameter(name, first_rows(rows, in_features, bias, device, dtype))

    def _log_probs(self, hidden: Tensor, targets: SparseTargets) -> Tensor:
        widened = self._widened(hidden)
        return self._path_log_probs(widened, targets) if self.tree == "huffman" else self._two_levels(widened, targets)

    def _all_scores(self, hidden: Tensor) -> Tensor:
        widened = self._widened(hidden)
        return self._all_leaves(widened) if self.tree == "huffman" else self._all_clusters(widened)

    # -- two levels ---------------------------------------------------------------------------------------------

    def _two_levels(self, widened: Tensor, targets: SparseTargets) -> Tensor:
        examples, ranks = targets.example_ids, self.ranks[targets.class_ids]
        log_p: Tensor = WithinClusters.apply(widened, self.classes, examples, ranks, self.cluster_size, self.sparse)
        return log_p + self._cluster_log_probs(widened)[examples, ranks // self.cluster_size]

    def _cluster_log_probs(self, widened: Tensor) -> Tensor:
        every = torch.arange(self.clusters.shape[0], device=widened.device)
        rows = embedding(every, self.clusters, sparse=self.sparse and torch.is_grad_enabled())
        return log_softmax(widened @ rows.T, dim=1)

    def _all_clusters(self, widened: Tensor) -> Tensor:
        outputs = widened @ self.classes.T
        short = self.clusters.shape[0] * self.cluster_size - self.num_classes
        padded = nn.functional.pad(outputs, (0, short), value=-torch.inf)
        within = log_softmax(padded.view(-1, self.clusters.shape[0], self.cluster_size), dim=2)
        return (within + self._cluster_log_probs(widened)[:, :, None]).flatten(1)[:, self.ranks]

    # -- binary tree --------------------------------------------------------------------------------------------

    def _path_log_probs(self, widened: Tensor, targets: SparseTargets) -> Tensor:
        steps = paths(self.links, targets.class_ids, self._tree().depth)
        rows = embedding(steps.class_ids, self.nodes, sparse=self.sparse and torch.is_grad_enabled())
        outputs = torch.linalg.vecdot(widened[targets.example_ids[steps.example_ids]], rows)
        return sum_over_targets(logsigmoid(steps.values_or_ones(outputs.dtype) * outputs), steps)

    def _all_leaves(self, widened: Tensor) -> Tensor:
        return self._tree().log_probs(self.nodes @ widened.T).T

    def _tree(self) -> Levels:
        # In torch.export the links are stand-ins without numbers.
        if self._levels is None or (self._levels[0] is not self.links and not torch.compiler.is_exporting()):
            self._levels = self.links, Levels(self.links)
        return self._levels[1]

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._levels = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_levels": None}  # found again from ``links``

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, tree={self.tree!r}, bias={self.has_bias}"
