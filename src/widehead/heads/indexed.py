"""The best classes of a head by an index of its rows, in place of all products. What is found need not be the best.

Letters: m examples, D classes, d width, k classes wanted.
"""

from __future__ import annotations

import torch
from torch import Tensor

from widehead.heads.base import Head
from widehead.heads.exact import ExactHead
from widehead.heads.linear import LinearHead
from widehead.losses import Loss
from widehead.search import Index
from widehead.targets import SparseTargets, TargetsLike


class IndexedTopK:
    """`top_k` of a head by an index of its output rows, with the head's scores of what was found.

    A loss whose score falls and then rises with the output o, as that of the spherical softmax, has its best classes
    among those of the largest outputs and of the smallest: both are looked for.

    Args:
        head: with a row of weights a class.
        index: of its rows of W as they are now, with the bias as last column if there is one.

    Raises:
        TypeError: see `check_indexable`.
    """

    def __init__(self, head: Head, index: Index) -> None:
        check_indexable(head)
        self.head, self.index = head, index

    @torch.no_grad()
    def top_k(self, hidden: Tensor, k: int, *, exclude: TargetsLike | None = None) -> tuple[Tensor, Tensor]:
        """(scores (m, k), class ids (m, k)), best first, for ``hidden`` (m, d); (−inf, −1) past the last one found."""
        banned = None if exclude is None else SparseTargets.convert(exclude)
        asked = min(k + (0 if banned is None else banned.most), self.head.num_classes)
        outputs, ids = self._found(self.head._widened(hidden), asked)
        loss = _loss(self.head)
        ranking = (outputs if loss is None else loss.ranking(outputs)).masked_fill(ids < 0, -torch.inf)
        if banned is not None:
            ranking = ranking.masked_fill(_named(ids, banned, self.head.num_classes), -torch.inf)
        missing = (0, max(0, k - ids.shape[1]))
        ranking, ids = (
            torch.nn.functional.pad(ranking, missing, value=-torch.inf),
            torch.nn.functional.pad(ids, missing),
        )
        best, at = ranking.topk(k, dim=1)
        ids = ids.gather(1, at).masked_fill(best == -torch.inf, -1)
        return best if loss is None else loss.score_of(best), ids

    def _found(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Outputs and ids of the classes that the index names, each once."""
        outputs, ids = self.index.search(queries, k)
        loss = _loss(self.head)
        if loss is None or not loss.ranks_both_ways:
            return outputs, ids
        negative, others = self.index.search(-queries, k)
        both = SparseTargets.from_ids(ids, ignore_index=-1)
        others = others.masked_fill(_named(others, both, self.head.num_classes), -1)
        return torch.cat([outputs, -negative], dim=1), torch.cat([ids, others], dim=1)


def check_indexable(head: Head) -> None:
    """Raise TypeError if an index of rows cannot find the best classes of a head: a tree, or a score of its own."""
    if not isinstance(head, ExactHead | LinearHead):
        raise TypeError(
            f"An index needs a head with one row of weights for each class. Found {type(head).__name__}: its best "
            "classes are found exactly, by top_k."
        )
    loss = _loss(head)
    if loss is not None and not loss.ranks_both_ways:
        raise TypeError(
            f"An index finds the classes of the largest outputs o. Found {type(loss).__name__}, which ranks by "
            f"{loss.ranks_by}. If that falls and then rises with o, say so with ranks_both_ways = True in the class."
        )


def _loss(head: Head) -> Loss | None:
    """The loss that ranks by something else than the outputs."""
    return head.loss if isinstance(head, ExactHead) and head.loss.ranks_by is not None else None


def _named(ids: Tensor, banned: SparseTargets, num_classes: int) -> Tensor:
    """(m, K) whether the example of each of ``ids`` names it."""
    first = torch.arange(len(banned), device=ids.device)[:, None] * num_classes
    return torch.isin(ids + first, banned.class_ids + banned.example_ids * num_classes) & (ids >= 0)
