"""A term that goes from items to items directly, beside the scores of a network of few units.

The network of a recommender knows the training pairs through the leading singular vectors of a matrix, of d directions.
The direct term knows all of them: z = (x D_i^-0.7) Rᵀ D_u^-0.6 R D_i^-0.3, what users have who share items with x. Both
are divided by their spread over all items, so that the weight β means the same on all data: the score of item j is
o_j / spread(o) + β z_j / spread(z). An exact head tells ‖o‖² and Σo without any o, and hence its spread. The powers
were chosen, of five triples, on hidden training pairs of five sets: see recipes/LOG.md.

That filters of the whole spectrum rank better than leading vectors alone is a finding of Kim et al. (Graph Spectral
Filtering with Chebyshev Interpolation for Recommendation, SIGIR 2025); their filter is another one.

Letters: m users to answer, n training users, D items; R (n, D) ones where a user has an item, D_u and D_i how many
there are in its rows and columns; x (m, D) the items that are given; o the network's scores; c pairs of one of these
users and an item.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from widehead.data import binary
from widehead.data.sparse import CSR, rows_of_entries
from widehead.heads import ExactHead
from widehead.heads.indexed import IndexedTopK
from widehead.jobs.candidates import FIRST, best_of_rows
from widehead.jobs.entries import distinct, positive, scaled
from widehead.jobs.neighbours import csr_of_bags
from widehead.targets import SparseTargets

USER_POWER, INPUT_POWER, OUTPUT_POWER = 0.6, 0.7, 0.3
"""Of the numbers of a user's items, and of the users of an item that is given, and of one that is named."""

DIRECT_RANKS = "The direct term, what users have who share items with the given one, ranks beside the network."

_AT_ONCE = 1 << 21  # entries of z, at most, that are worked on together: more do not fit the processor's caches
_PRODUCTS = 1_000_000  # of a user on average, at most, by default: of eleven sets there are 300 to 840,000
_ROWS = 1 << 16  # users that are looked at together


def affordable(products: int, users: int) -> bool:
    """Whether asking all users costs some milliseconds each, by the ``products`` of all together."""
    return products <= _PRODUCTS * users


def num_products(matrix: CSR, counts: np.ndarray) -> int:
    """How many pairs of a user's item and of an item of others who have that there are, repeats included.

    Args:
        counts: (D,) of each item, its pairs: of all users, of whom ``matrix`` may have a part.
    """
    lengths, products = np.diff(matrix.indptr), 0
    for start in range(0, len(lengths), _ROWS):
        here = lengths[start : start + _ROWS].astype(np.int64)
        items = matrix.indices[matrix.indptr[start] : matrix.indptr[start + len(here)]]
        products += int(counts[items] @ np.repeat(here, here))
    return products


@dataclass
class Both:
    """The first items of the network and of the direct term, and the scores of both, for some users.

    Attributes:
        m: these users. rows, items: (c,) int64, in this order.
        own, direct: (c,) float64 o_j / spread(o) and z_j / spread(z).
    """

    m: int
    rows: np.ndarray
    items: np.ndarray
    own: np.ndarray
    direct: np.ndarray


class DirectTerm:
    """What training users who share items with others have, as a score beside an exact head's.

    Args:
        matrix: (n, D) scipy CSR of who has what; values do not count.
        weight: β, positive.
    """

    def __init__(self, matrix: CSR, weight: float) -> None:
        self.weight = weight
        pairs = binary(matrix)
        self._into: CSR = scaled(pairs, USER_POWER, INPUT_POWER).T.tocsr()  # (D, n)
        self._back = scaled(pairs, 0.0, OUTPUT_POWER)  # (n, D)

    def scores(self, given: CSR) -> CSR:
        """(m, D) z of users with some items."""
        return (given @ self._into @ self._back).tocsr()

    def top_k(
        self,
        head: ExactHead | IndexedTopK,
        inputs: SparseTargets,
        hidden: Tensor,
        k: int,
        exclude: SparseTargets | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(m, k) float64 scores, best first, and items; −inf and −1 in places that none takes.

        Ranked are the first 200 items of ``head`` and of the direct term, or k if that is more: one that is among
        neither, but high in both, is missed.

        Args:
            exclude: (m) items that no place may hold.
        """
        best = []
        for (found,) in self.candidates([(head, hidden)], inputs, k, exclude):
            values = found.own + self.weight * found.direct
            best.append(best_of_rows(found.rows, found.items, values, found.m, k))
        scores, classes = (torch.from_numpy(np.concatenate(parts)) for parts in zip(*best, strict=True))
        return scores.to(hidden.device), classes.to(hidden.device)

    def candidates(
        self,
        networks: Sequence[tuple[ExactHead | IndexedTopK, Tensor]],
        inputs: SparseTargets,
        k: int,
        exclude: SparseTargets | None,
    ) -> Iterator[list[Both]]:
        """What `top_k` ranks by each of some heads and hidden layers, some users after others; weights have no say."""
        width = self._back.shape[1]
        size = max(1, _AT_ONCE // width)
        bags = binary(csr_of_bags(inputs, width))
        banned = None if exclude is None else binary(csr_of_bags(exclude, width))
        first = []
        for head, hidden in networks:
            best = head.top_k(hidden, min(max(k, FIRST), width), exclude=exclude)
            scores, classes = (part.cpu().numpy() for part in best)
            first.append(np.where(scores > -np.inf, classes, -1))
        for start in range(0, len(inputs), size):
            some = slice(start, start + size)
            met = self._met(bags[some], None if banned is None else banned[some], first[0].shape[1])
            named = zip(networks, first, strict=True)
            yield [_both(_exact(head), hidden[some], here[some], met) for (head, hidden), here in named]

    def _met(self, given: CSR, banned: CSR | None, k: int) -> _Met:
        """The term's numbers of some users, and their k first items."""
        found = self.scores(given)
        spread, direct = _spread(found), torch.from_numpy(found.toarray())  # sorting rows takes longer than their zeros
        if banned is not None:
            direct[rows_of_entries(banned), banned.indices] = 0.0
        best, most = (part.numpy() for part in direct.topk(k, sorted=False))
        return _Met(direct.numpy(), spread, np.where(best > 0.0, most, -1))


class _Met(NamedTuple):
    """Of m users: z (m, D), but 0 where it is banned, its spread (m,), and the first items (m, k), −1 for none."""

    direct: np.ndarray
    spread: np.ndarray
    first: np.ndarray


def _exact(head: ExactHead | IndexedTopK) -> ExactHead:
    exact = head.head if isinstance(head, IndexedTopK) else head
    assert isinstance(exact, ExactHead)
    return exact


def _both(head: ExactHead, hidden: Tensor, named: np.ndarray, met: _Met) -> Both:
    """Of some users, whose best items by the network are ``named`` (m, ·), −1 in places that none takes."""
    m, width = met.direct.shape
    both = np.concatenate([named, met.first], axis=1)
    keys = distinct((np.arange(m)[:, None] * np.int64(width) + both)[both >= 0])
    which, items = np.divmod(keys, np.int64(width))
    offsets = torch.from_numpy(np.searchsorted(which, np.arange(m + 1)))
    pairs = SparseTargets(torch.from_numpy(items), offsets)
    q, s, o = (part.double().cpu().numpy() for part in head.statistics(hidden, pairs.to(hidden.device)))
    own = positive(np.sqrt(np.maximum(q / width - (s / width) ** 2, 0.0)))
    return Both(m, which, items, o / own[which], met.direct[which, items] / met.spread[which])


def _spread(matrix: CSR) -> np.ndarray:
    """(m,) the standard deviation of the entries of each row, of which most are 0; 1 if all are alike."""
    (m, width), values = matrix.shape, matrix.data.astype(np.float64)
    filled, sums = np.diff(matrix.indptr) > 0, np.zeros((2, m))
    sums[:, filled] = np.add.reduceat([values, values * values], matrix.indptr[:-1][filled], axis=1)
    means, squares = sums / width
    return positive(np.sqrt(np.maximum(squares - means**2, 0.0)))
