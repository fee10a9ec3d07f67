"""Base of the heads that give log p directly, by a tree of classes, and are no linear layer.

Letters: m examples, D classes, nnz targets in all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor

from widehead.blocks import at_once
from widehead.heads.base import ParameterHead
from widehead.losses import mean_over_targets
from widehead.sampling.base import Frequencies, checked_frequencies
from widehead.search.exhaustive import ban
from widehead.targets import SparseTargets


class NormalizedHead(ParameterHead):
    """A head whose scores are log p, and whose training loss is −log p exactly.

    log p of a class costs that class's path through the tree only.
    """

    def __init__(self, in_features: int, num_classes: int, mesh: object = None) -> None:
        super().__init__(in_features, num_classes)
        if mesh is not None:
            raise ValueError(
                f"The weights of {type(self).__name__} belong to a tree of classes, and are not split over processes. "
                "Found a `mesh`: leave it out, and put encoder and head as one model into DistributedDataParallel "
                "(docs/distributed.md)."
            )

    #: log-probabilities that top_k holds at a time on the CPU: 64 MiB in float32
    log_probs_at_once = 1 << 24

    def _losses(self, hidden: Tensor, targets: SparseTargets) -> Tensor:
        return -mean_over_targets(self._log_probs(hidden, targets), targets)

    def _scores_at(self, hidden: Tensor, targets: SparseTargets) -> Tensor:
        return self._log_probs(hidden, targets)

    def _best(self, hidden: Tensor, k: int, banned: SparseTargets | None) -> tuple[Tensor, Tensor]:
        """Computes log p of all classes, some examples at a time."""
        step, found = max(1, at_once(hidden.device, self.log_probs_at_once) // self.num_classes), []
        for first in range(0, max(1, hidden.shape[0]), step):
            log_p = self._all_scores(hidden[first : first + step]).contiguous()
            if banned is not None:
                ban(log_p, banned, first=first)
            found.append(log_p.topk(k, dim=1))
        scores, ids = (torch.cat(parts) for parts in zip(*found, strict=True))
        return scores, ids

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        *_, error_msgs = rest
        for name, is_sound in (("ranks", _is_order), ("links", _is_tree)):
            if prefix + name in state_dict and not is_sound(state_dict[prefix + name].cpu(), self.num_classes):
                error_msgs.append(f"`{name}` should place each of {self.num_classes} classes once. Found others.")
                return
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def to_linear(self) -> NoReturn:
        """A tree of classes is no linear layer, so there is none.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            f"{type(self).__name__} multiplies probabilities along a tree of classes, which no single nn.Linear "
            "followed by a softmax equals. Take head.to_scorer(), a module with the head's scores."
        )


def _is_order(ranks: Tensor, num_classes: int) -> bool:
    """Whether ``ranks`` are (D,) integers, each from 0 to D − 1 once."""
    return ranks.dtype == torch.int64 and torch.equal(ranks.sort().values, torch.arange(num_classes))


def _is_tree(links: Tensor, num_classes: int) -> bool:
    """Whether ``links`` are as of `huffman_links`: each side of each node is taken once, and parents come later."""
    parents = links[num_classes:] // 2
    return _is_order(links, 2 * num_classes - 2) and bool((parents > torch.arange(len(parents))).all())


def frequencies_of(frequencies: Frequencies | None, num_classes: int) -> Tensor:
    """(num_classes,) float64 on the CPU, ones for None; errors as of `checked_frequencies`."""
    return checked_frequencies(
        torch.ones(num_classes, device="cpu") if frequencies is None else frequencies, num_classes
    ).cpu()


def ranks_by_frequency(frequencies: Tensor) -> Tensor:
    """(D,) the place of each class by falling frequency, smaller ids first among equals."""
    return frequencies.argsort(descending=True, stable=True).argsort()
