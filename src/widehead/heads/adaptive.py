"""Adaptive softmax: frequent classes in a short list, rare ones in clusters of ever smaller width.

Letters: m examples, D classes, d width, nnz targets in all.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from widehead.errors import check_number
from widehead.heads.normalized import NormalizedHead, frequencies_of, ranks_by_frequency
from widehead.sampling.base import Frequencies
from widehead.targets import SparseTargets, starts_run


class AdaptiveSoftmaxHead(NormalizedHead):
    """Adaptive softmax (Grave, Joulin, Cissé, Grangier, Jégou, ICML 2017), around torch.nn.AdaptiveLogSoftmaxWithLoss.

    The head of the tree is a softmax over the classes of the short list and one output a cluster; cluster i reads
    the hidden layer through a projection to ⌊d / div_value^i⌋ units. Probabilities are exact, and add up to 1: what is
    given up is the width of rare classes. Classes keep the caller's ids; they are sorted by frequency inside.
    Gradients are dense. A cluster that no target of a batch is in is not computed and has no gradient.

    Args:
        in_features: d.
        num_classes: D, at least 2.
        cutoffs: where clusters begin, as places in the order of falling frequency, each in [1, D − 1] and rising.
            None: D/64 and D/8, as many of them as leave a cluster a unit. With classes by Zipf's law and
            div_value = 4 the short list and the clusters then cost about alike.
        div_value: what the width is divided by from cluster to cluster, at least 1.
        frequencies: (D,) how frequent each class is, in any unit; None: ids are sorted already, most frequent first.
            Their order is part of the state_dict.
        bias: a bias of the short list and the clusters' outputs (``head_bias`` in torch).
        mesh: none; such a head is not split over processes (docs/distributed.md).
        device, dtype: as in torch.

    Raises:
        ValueError: a mesh, a size, cutoff, div_value or frequency that is none, or a cluster that would have no unit.

    >>> _ = torch.manual_seed(0)
    >>> head = AdaptiveSoftmaxHead(16, 1000)
    >>> head.cutoffs
    (15, 125)
    >>> head(torch.ones(2, 16), [[3], [14, 15]]).shape
    torch.Size([])
    """

    ranks: Tensor

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        cutoffs: Sequence[int] | None = None,
        div_value: float = 4.0,
        frequencies: Frequencies | None = None,
        bias: bool = False,
        mesh: None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, num_classes, mesh)
        if num_classes < 2:
            raise ValueError("Parameter `num_classes` should be at least 2 for an adaptive softmax. Found 1.")
        check_number("div_value", div_value, 1.0)
        if cutoffs is None:
            cutoffs = _default_cutoffs(in_features, num_classes, div_value)
        self.cutoffs = _checked_cutoffs(cutoffs, in_features, num_classes, div_value)
        self.softmax = nn.AdaptiveLogSoftmaxWithLoss(
            in_features, num_classes, list(self.cutoffs), div_value, head_bias=bias, device=device, dtype=dtype
        )
        ranks = ranks_by_frequency(frequencies_of(frequencies, num_classes))
        self.register_buffer("ranks", ranks.to(self.device))

    def _log_probs(self, hidden: Tensor, targets: SparseTargets) -> Tensor:
        hidden = hidden.to(self.dtype)
        # torch's own forward takes one target an example; for several it would compute the short list for each.
        examples, ranks = targets.example_ids, self.ranks[targets.class_ids]
        short = self.cutoffs[0]
        cluster = sum(((ranks >= cutoff).long() for cutoff in self.cutoffs), torch.zeros_like(ranks))
        first = log_softmax(self.softmax.head(hidden), dim=1)
        log_p = first[examples, torch.where(cluster == 0, ranks, short + cluster - 1)]
        order, readers, at, sizes = _by_cluster(cluster, examples, len(self.cutoffs) + 1)
        (done, read), found = sizes[0], [log_p.new_zeros(sizes[0][0])]
        for i, start in enumerate(self.cutoffs):
            n, r = sizes[i + 1]
            if n:
                within = log_softmax(self.softmax.tail[i](hidden[readers[read : read + r]]), dim=1)
                here = slice(done, done + n)
                found.append(within[at[here] - read, ranks[order[here]] - start])
            done, read = done + n, read + r
        return log_p.index_add(0, order, torch.cat(found))

    def _all_scores(self, hidden: Tensor) -> Tensor:
        hidden = hidden.to(self.dtype)
        first = log_softmax(self.softmax.head(hidden), dim=1)
        parts = [first[:, : self.cutoffs[0]]]
        for i, tail in enumerate(self.softmax.tail):
            parts.append(log_softmax(tail(hidden), dim=1) + first[:, self.cutoffs[0] + i, None])
        return torch.cat(parts, dim=1)[:, self.ranks]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, cutoffs={self.cutoffs}, div_value={self.softmax.div_value}"


def _by_cluster(cluster: Tensor, examples: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, list[list[int]]]:
    """Targets in the order of their clusters, and which examples have some there, so that each is read once a cluster.

    Args:
        cluster, examples: (nnz,) of each target, with examples rising.

    Returns:
        (nnz,) targets in that order, (nnz,) examples cluster by cluster, of which the first are meant, (nnz,) for each
        target in that order its place among these, and [targets, examples] of each cluster: the one wait for a GPU.
    """
    order = torch.argsort(cluster, stable=True)
    cluster, examples = cluster[order], examples[order]
    is_new = starts_run(cluster, examples)
    at = is_new.cumsum(0) - 1
    inside = cluster == torch.arange(count, device=cluster.device)[:, None]
    sizes: list[list[int]] = torch.stack([inside.sum(1), (inside & is_new).sum(1)], dim=1).tolist()
    return order, torch.empty_like(examples).index_copy_(0, at, examples), at, sizes


def _width(in_features: int, div_value: float, cluster: int) -> int:
    return int(in_features // div_value ** (cluster + 1))


def _default_cutoffs(in_features: int, num_classes: int, div_value: float) -> list[int]:
    wanted = sorted({max(1, num_classes // 64), max(1, num_classes // 8)})
    return [cutoff for i, cutoff in enumerate(wanted) if i == 0 or _width(in_features, div_value, i) >= 1]


def _checked_cutoffs(cutoffs: Sequence[int], in_features: int, num_classes: int, div_value: float) -> tuple[int, ...]:
    found = tuple(cutoffs)
    rising = all(a < b for a, b in itertools.pairwise((0, *found, num_classes)))
    if not found or not all(isinstance(c, int) for c in found) or not rising:
        raise ValueError(
            f"Parameter `cutoffs` should hold rising whole numbers in [1, {num_classes - 1}]. Found {cutoffs}."
        )
    for i in range(len(found)):
        if _width(in_features, div_value, i) < 1:
            raise ValueError(
                f"Every cluster should have at least one unit. Found in_features / div_value^{i + 1} = "
                f"{in_features / div_value ** (i + 1):.3g}: take fewer cutoffs or a smaller `div_value`."
            )
    return found
