"""What users like the given one have, and what is had together with its items, beside the scores of a network.

A network remembers of each item what d numbers hold; the pairs themselves say more, above all of rare items. The score
of an item is w·x, with x: the network's score, from 0 for the last of its first 200 items to 1 for the first; the
logarithms of that and of the votes for the item, each with something added and as a part of the largest; the logarithm
of how many users have it. Users vote for their items by likeness, Σ 1/n_j over the items j that both have, divided by
√n_v (n: how many pairs an item or a user is in), and by its square, so that few near ones count more; the items of the
user vote for those that are nearest to them by the cosine of their columns, in which a user counts 1/√n_v. The data
decide about w, as in a conditional logit model, by pairs that are hidden from the network and from the votes meanwhile.

Letters: m users to answer, n training users, D items, c pairs of one of these users and an item.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from widehead.data import RowExamples, binary, split_rows
from widehead.data.sparse import CSR, brought_together, rows_of_entries
from widehead.jobs.candidates import FIRST, best_of_rows
from widehead.jobs.entries import at_keys, drop, keys_of, positive
from widehead.jobs.logit import Told, Weights, weighed
from widehead.jobs.neighbours import csr_of_bags, largest
from widehead.metrics import Evaluation
from widehead.progress import Work
from widehead.split import Dealt, Share, totals
from widehead.targets import SparseTargets

FEWEST = 1_000
"""Training users with two items or more below which the network has the say alone: too few to choose by."""

_HELD, _MOST_HELD, _HIDDEN = 0.1, 2_000, 0.2  # users to choose by, and the part of their pairs that is hidden
_VOTED = 100  # items with most votes that are ranked anew, beside the first 200 of the network
_NO_SCORE, _NO_VOTES = 0.05, 0.3  # are added to parts of the largest, so that they have a logarithm
_NEAREST, _ENTRIES = 100, 20_000_000  # of an item, and of all items together, which bounds the memory
_MEETINGS_OF_USERS, _MEETINGS_OF_ITEMS = 50_000, 1_000_000_000  # of a user with others on average; of all items
_AT_ONCE = 1 << 24  # meetings that are looked at together, which bounds it too


class UserWeights(Weights):
    """What users like the given one and items like its own count, and what they are worth."""

    what = "what users like the given one count"
    features = (
        *("network", "logarithm of the network's", "votes of users", "votes of users by squares"),
        *("votes of items", "users of the item"),
    )
    who = "Users like the given one, and items like its own,"
    by = "users with hidden items"


_ALONE = np.eye(1, len(UserWeights.features))[0]


def num_able(matrix: CSR) -> int:
    """How many users have two items or more."""
    return int(np.count_nonzero(np.diff(matrix.indptr) > 1))


def enough(matrix: CSR, share: Share | None = None) -> bool:
    """Whether there are users enough to choose by, in all shares of them."""
    return totals(share, num_able(matrix))[0] >= FEWEST


def hidden_pairs(
    matrix: CSR, seed: int, part: float = _HELD, most: int = _MOST_HELD, among: Dealt | None = None
) -> tuple[CSR, np.ndarray, CSR]:
    """The pairs (n, D) that train the network, users (h,) to choose by, and their hidden pairs (h, D).

    Hidden is a fifth of the pairs of a ``part`` of the users with two or more, of ``most`` users at most.

    Args:
        among: all users, if ``matrix`` has those of this process alone: all processes call it then, and the first of
            what it gives has the users that are here.
    """
    lengths = np.diff(matrix.indptr)
    able = np.flatnonzero((lengths if among is None else among.all_of(lengths)) > 1)
    drawn = np.random.default_rng([seed, len(able)]).permutation(able)
    users = np.sort(drawn[: min(int(part * len(able)), most)])
    theirs = matrix[users] if among is None else brought_together(matrix, among, users)
    hidden = binary(split_rows(theirs, _HIDDEN, seed)[1])
    here, of_here = (users, slice(None)) if among is None else (among.places(users), among.holds(users))
    chosen = np.zeros(matrix.shape[0], dtype=bool)
    chosen[here] = True
    entries = np.flatnonzero(np.repeat(chosen, lengths))
    seen = np.ones(matrix.nnz, dtype=bool)
    seen[entries[np.isin(keys_of(theirs[of_here]), keys_of(hidden[of_here]), assume_unique=True)]] = False
    offsets = np.append(0, np.cumsum(seen))[matrix.indptr]
    kept = scipy.sparse.csr_matrix((matrix.data[seen], matrix.indices[seen], offsets), shape=matrix.shape)
    return kept, users, hidden


class UserVotes:
    """The training users that are nearest to others, and the items that are nearest to others, and what both vote for.

    Args:
        matrix: (n, D) scipy CSR of who has what; values do not count.
        count: how many users vote.
        weights: (F,) w; `top_k` needs it.
        asked: (m, D) those whose votes will be asked for, if no others will: it saves looking at items that they lack.
    """

    def __init__(self, matrix: CSR, count: int, weights: list[float] | None = None, asked: CSR | None = None) -> None:
        self.count = count
        self._asked = np.arange(matrix.shape[1]) if asked is None else np.unique(asked.indices)
        self.weights = None if weights is None else np.array(weights)
        self._pairs = binary(matrix)
        users, items = np.diff(self._pairs.indptr), self._pairs.getnnz(axis=0)
        self._frequencies = np.log1p(items)
        self._lengths = np.maximum(users, 1.0)
        # What nearly all have tells of nobody who is near, and is what takes the time.
        telling = np.where(items <= _bound(items, _MEETINGS_OF_USERS * len(users)), 1.0, 0.0)
        self._meetings = items * telling
        # How many pairs the users near to one have: those with many are met more often.
        self._voted = min(len(items), count * float((self._lengths**2).sum() / self._lengths.sum()))
        self._likeness = _scaled(self._pairs.T.tocsr(), telling / np.maximum(items, 1.0), self._lengths**-0.5)

    @cached_property
    def _nearest_items(self) -> CSR:
        """(D, D) cosines of the items nearest to each that may be asked for, the largest of each row."""
        users, items = np.diff(self._pairs.indptr), self._pairs.getnnz(axis=0)
        telling = np.where(users <= _bound(users, _MEETINGS_OF_ITEMS), 1.0, 0.0)
        right = _scaled(self._pairs, telling * self._lengths**-0.5, np.maximum(items, 1.0) ** -0.5)
        left = _scaled(self._pairs.T.tocsr(), np.maximum(items, 1.0) ** -0.5, np.ones(len(users)))
        width = self._pairs.shape[1]
        most, work, found = max(1, min(_NEAREST, _ENTRIES // width)), Work("nearest items", len(self._asked)), []
        for some in _blocks((self._pairs.T @ (users * telling))[self._asked]):
            here = self._asked[some]
            cosines = (left[here] @ right).tocsr()
            cosines.data[here[rows_of_entries(cosines)] == cosines.indices] = 0.0  # no item is its own neighbour
            cosines.eliminate_zeros()
            found.append(largest(cosines, most))
            work.add(len(here))
        asked = scipy.sparse.vstack(found, format="csr")
        lengths = np.zeros(width, dtype=np.int64)
        lengths[self._asked] = np.diff(asked.indptr)
        return scipy.sparse.csr_matrix((asked.data, asked.indices, np.append(0, np.cumsum(lengths))), (width, width))

    def votes(self, given: CSR) -> list[CSR]:
        """(m, D) votes of the users like those who have ``given`` (m, D), by their squares, and of the given items.

        Columns rise in each row.
        """
        near = largest((given @ self._likeness).tocsr(), self.count)
        found = [near @ self._pairs, near.power(2) @ self._pairs, given @ self._nearest_items]
        for part in found:
            part.sort_indices()
        return found

    def top_k(
        self, head: Any, inputs: SparseTargets, hidden: Tensor, k: int, exclude: SparseTargets | None = None
    ) -> tuple[Tensor, Tensor]:
        """(m, k) float64 scores, best first, and items; −inf and −1 in places that none takes.

        Ranked anew are the first 200 items of ``head`` and the 100 with most votes of users, and of items. What comes
        after them keeps the order of ``head``.

        Args:
            exclude: (m) items that no place may hold.
        """
        assert self.weights is not None
        best = []
        for found, rest in self.candidates(head, inputs, hidden, k, exclude):
            values = found.features.astype(np.float64) @ self.weights
            lowest = np.full(found.m, np.inf)
            np.minimum.at(lowest, found.rows, values)
            lowest[~np.isfinite(lowest)] = 0.0
            rows, items, below = rest
            columns, values = np.append(found.items, items), np.append(values, lowest[rows] + below)
            best.append(best_of_rows(np.append(found.rows, rows), columns, values, found.m, k))
        scores, classes = (torch.from_numpy(np.concatenate(parts)) for parts in zip(*best, strict=True))
        return scores.to(hidden.device), classes.to(hidden.device)

    def candidates(
        self, head: Any, inputs: SparseTargets, hidden: Tensor, k: int, exclude: SparseTargets | None
    ) -> Iterator[tuple[Told, tuple[np.ndarray, ...]]]:
        """What is ranked anew of some users at a time, and row, item and score, below 0, of others that are asked for.

        Args: as of `top_k`.
        """
        width = self._pairs.shape[1]
        given = head.top_k(hidden, min(max(k, FIRST), width), exclude=exclude)
        scores, classes = (part.cpu().numpy() for part in given)
        there = (classes >= 0) & (scores > -np.inf)
        bags = binary(csr_of_bags(inputs, width))
        none = None if exclude is None else binary(csr_of_bags(exclude, width))
        for some in _blocks(bags @ self._meetings + self._voted):
            votes = self.votes(bags[some])
            if none is not None:
                for part in votes:
                    drop(part, keys_of(none[some]))
            yield self._told(scores[some].astype(np.float64), classes[some], there[some], votes)

    def _told(
        self, scores: np.ndarray, classes: np.ndarray, there: np.ndarray, votes: list[CSR]
    ) -> tuple[Told, tuple[np.ndarray, ...]]:
        """Of (m, ·) best of the network, where ``there``, and votes (m, D)."""
        width = self._pairs.shape[1]
        first = there & (np.arange(scores.shape[1]) < FIRST)
        highest, floor = (
            pick(np.where(first, scores, worst), axis=1, initial=worst)
            for pick, worst in ((np.max, -np.inf), (np.min, np.inf))
        )
        above = (scores - np.where(first.any(axis=1), floor, 0.0)[:, None]) / positive(highest - floor)[:, None]
        keys = np.arange(len(scores))[:, None] * np.int64(width) + classes
        voted = [_voted(part) for part in (votes[0], votes[-1])]
        every = np.unique(np.concatenate([keys[first], *voted]))
        rows, items = np.divmod(every, np.int64(width))
        features = np.zeros((len(every), len(_ALONE)), dtype=np.float32)
        features[np.searchsorted(every, keys[first]), 0] = above[first]
        features[:, 1] = np.log(features[:, 0] + _NO_SCORE)
        for column, part in enumerate(votes, 2):
            parts = at_keys(part, every) / positive(part.max(axis=1).toarray().ravel())[rows]
            features[:, column] = np.log(parts + _NO_VOTES)
        features[:, -1] = self._frequencies[items]
        after = there & ~first
        after[after] = ~np.isin(keys[after], every)
        rest = np.nonzero(after)[0], classes[after], above[after]
        return Told(len(scores), rows, items, features), rest

    def chosen(self, network: Any, held: RowExamples, names: list[str], seed: int, size: int = 256) -> UserWeights:
        """The weights by which hidden items are likeliest, which no vote and no network knows.

        One half of the users fits them; all do, if the metrics of the other half are better on average than those of
        the network alone.

        Args:
            held: what is known of some users, and what is hidden.
        """
        depth = Evaluation(names).depth
        parts, work = [], Work("choosing weights", len(held))
        with torch.no_grad():
            for start in range(0, len(held), size):
                inputs = held.batch(np.arange(start, min(start + size, len(held))))[0]
                assert isinstance(inputs, SparseTargets)
                inputs = inputs.to(network.head.device)
                hidden = network.hidden(inputs)
                parts += [found for found, _ in self.candidates(network.head, inputs, hidden, depth, inputs)]
                work.add(len(inputs))
        found = Told.together(parts)
        keys = found.rows * np.int64(self._pairs.shape[1]) + found.items
        hits = np.isin(keys, keys_of(held.targets))
        weights, before, after = weighed(found, hits, lambda some: held.batch(some)[1], names, seed)
        return UserWeights(weights, len(held), before, after)


def _voted(votes: CSR) -> np.ndarray:
    """Keys of the items of each row that have most votes."""
    most = largest(votes, _VOTED)
    found: np.ndarray = keys_of(most)[most.data > 0.0]
    return found


def _scaled(matrix: CSR, by_rows: np.ndarray, by_columns: np.ndarray) -> CSR:
    """Entries times factors of their rows and columns, without zeros."""
    values = matrix.data * np.repeat(by_rows, np.diff(matrix.indptr)) * by_columns[matrix.indices]
    found = scipy.sparse.csr_matrix(
        (values.astype(np.float32), matrix.indices, matrix.indptr), shape=matrix.shape, copy=True
    )
    found.eliminate_zeros()
    return found


def _bound(counts: np.ndarray, most: float) -> float:
    """The largest count such that the squares of all up to it have a sum of at most ``most``; at least the least."""
    rising = np.sort(counts)
    fits = int(np.searchsorted(np.cumsum(rising.astype(np.float64) ** 2), most, side="right"))
    return float(rising[max(fits, 1) - 1]) if fits < len(rising) else np.inf


def _blocks(costs: np.ndarray) -> Iterator[slice]:
    """Rows that follow one another and cost so much at most together; all of them, one at least at a time."""
    ends = np.cumsum(np.asarray(costs, dtype=np.float64).ravel())
    start = 0
    while start < len(ends):
        before = ends[start - 1] if start else 0.0
        stop = max(start + 1, int(np.searchsorted(ends, before + _AT_ONCE, side="right")))
        yield slice(start, stop)
        start = stop
