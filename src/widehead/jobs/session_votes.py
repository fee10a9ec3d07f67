"""What sequences like this one went on with, beside the scores of a network.

A network has seen all training sequences and remembers what d numbers of each item hold; the few sequences in which
just these items stood say more of them. An item of the sequence itself may come again, and what was frequent lately
may be so still. The score of an item is w·x, with x: the network's score; the logarithms of its shares in the votes of
the nearest sequences, from all their places and from those after the place they share (Garg et al., "Sequence and time
aware neighborhood for session-based recommendations", SIGIR 2019); whether it is the last item, another one, or the
one before the last, and how often it stands there; the logarithms of how often the training data have it, lately and
in all. The data decide about w, as in a conditional logit model, by sequences that the network was not trained on.

They decide twice. New sequences come after all known ones, so those that ended last choose for them. A sequence that
goes on from where a known one ended is of a user whom the data know, who may stand anywhere among them: for these the
last items of sequences choose, drawn from all, which trained nothing either.

Letters: m places to answer, c pairs of these and an item that may come next, n training sequences, N ids in them, D
items, F numbers that tell of an item, L places of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from widehead.data import SequenceExamples
from widehead.jobs.base import check_same
from widehead.jobs.candidates import places_in
from widehead.jobs.logit import Told, Weights, compared, weighed
from widehead.metrics import Evaluation
from widehead.targets import SparseTargets

FEWEST = 2_000
"""Training sequences below which the network has the say alone: too few to choose by."""

FEATURES = (
    *("network", "votes", "votes of later places", "last item", "item before", "last but one", "times so far"),
    *("frequency in the last 2 %", "frequency in the last 10 %", "frequency"),
)
"""What tells of an item."""

_FIRST = 200  # items of the network that may come next; what an item outside of them has at most
_HELD, _MOST_HELD = 0.05, 4_000  # sequences to choose by
_ENDS, _MOST_ENDS = 0.1, 2_000  # sequences whose last item is to choose by
_KNOWN = 3  # items by which a sequence is known again: two are often the same by chance (recipes/LOG.md, 2026-11-28)
_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no digit of a number is lost by it
_MOST_PLACES, _MOST_PAIRS = 8_000, 8_000_000  # of them, and of items that may come there, which bounds the memory
_AT_ONCE = 256  # places that are worked on at a time, which bounds it too
_LAST, _DECAY = 10, 3.0  # items of a sequence that find others; e^-1 of their weight is lost in so many places
_LATELY = (0.02, 0.1, 1.0)  # parts of the training data, from their end
_OCCURRENCES = 1_000  # of an item, the last ones, that are looked at
_NO_VOTES = 1e-3  # is added to shares, so that they have a logarithm


@dataclass(frozen=True)
class SessionWeights(Weights):
    """What sequences like the given one count, and what they are worth.

    Attributes:
        known_weights, known_places, known_before, known_after: of sequences that go on from where a known one ended; no
            places: these are as new ones.
    """

    what = "what sequences like the given one count"
    features = FEATURES
    who = "Sequences like the given one"
    by = "places"

    known_weights: list[float] = field(default_factory=list)
    known_places: int = 0
    known_before: dict[str, float] = field(default_factory=dict)
    known_after: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        if not self.known_places:
            return super().__str__()
        what = "have a say" if self.known_weights else "have no say"
        told = compared(self.known_before, self.known_after)
        by = f"{self.known_places:,} last items"
        return f"{super().__str__()} Where known sequences go on they {what}, by {by} ({told})."

    @property
    def helps(self) -> bool:
        """Whether anything ranks beside the network."""
        return bool(self.weights or self.known_weights)

    def by_kind(self) -> np.ndarray:
        """(2, F) the weights of new sequences, and of those that go on from where a known one ended."""
        alone = np.eye(1, len(FEATURES))[0].tolist()
        new = self.weights or alone
        return np.array([new, (self.known_weights or alone) if self.known_places else new])

    def table(self) -> tuple[list[str], list[list[str]]]:
        """The header and the rows of a report."""
        rows = zip(FEATURES, *self.by_kind().tolist(), strict=True) if self.helps else ()
        return ["what tells of an item", "weight", "where known sequences go on"], [
            [name, f"{new:.3g}", f"{known:.3g}"] for name, new, known in rows
        ]

    def check(self) -> None:
        super().check()
        if len(self.known_weights) not in ((0, len(FEATURES)) if self.known_places else (0,)):
            raise ValueError(f"weights {self.known_weights} by {self.known_places} places")
        check_same(self.known_before, self.known_after)


def held_out(count: int) -> int:
    """How many of so many training sequences, the last ones, are to choose by: none of few."""
    return min(int(_HELD * count), _MOST_HELD) if count >= FEWEST else 0


def held_ends(lengths: np.ndarray, seed: int, context: int) -> np.ndarray:
    """(n,) bool, which of n training sequences are without their last item, which is to choose by: few, or none.

    What is left of them is enough to be known again, unless ``context``, the items of a sequence that count, is too
    short for any.

    Args:
        lengths: (n,) of the sequences.
    """
    long = np.flatnonzero(lengths > _KNOWN) if context >= _KNOWN else lengths[:0]
    count = min(int(_ENDS * len(long)), _MOST_ENDS) if len(long) >= FEWEST else 0
    found = np.zeros(len(lengths), dtype=bool)
    found[np.random.default_rng(seed).permutation(long)[:count]] = True
    return found


class SessionVotes:
    """The training sequences that are nearest to others, and what they say of the next item.

    Args:
        ids: (N,) items of the sequences, one after the other, those that ended first before.
        offsets: (n + 1,) where they begin.
        num_items: D.
        count: how many neighbours vote.
        context: C, as many last items of a sequence as are given at most.
        weights: (2, F) w of new sequences, and of those that go on from where one of these ended; `top_k` needs it.
    """

    def __init__(
        self,
        ids: np.ndarray,
        offsets: np.ndarray,
        num_items: int,
        count: int,
        context: int,
        weights: np.ndarray | None = None,
    ) -> None:
        self.ids, self.offsets, self.num_items, self.count = ids, offsets, num_items, count
        self.weights, self._agree = weights, min(_LAST, context)
        self._whose = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        # The places of each item: those of item i are self._places[self._first[i] : self._first[i + 1]], rising.
        self._places = np.argsort(ids, kind="stable")
        self._first = np.concatenate([[0], np.cumsum(np.bincount(ids, minlength=num_items))])
        self._rarity = np.log((len(offsets) - 1) / np.maximum(np.diff(self._first), 1)).clip(min=0.0) ** 2
        lately = [ids[len(ids) - int(part * len(ids)) :] for part in _LATELY]
        self._frequencies = np.log1p([np.bincount(some, minlength=num_items) for some in lately]).T
        known = (np.diff(offsets) >= _KNOWN) & (context >= _KNOWN)
        self._ends = np.unique(_ends(ids, offsets[:-1], offsets[1:], self._agree)[known])

    def top_k(self, head: Any, inputs: SparseTargets, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """(m, k) float64 scores, best first, and items; −inf and −1 in places that none takes."""
        assert self.weights is not None
        weights = self.weights[self.go_on(inputs).astype(np.int64)]
        parts = enumerate(self.candidates(head, inputs, hidden, k))
        best = [part.best(weights[i * _AT_ONCE : (i + 1) * _AT_ONCE], k) for i, part in parts]
        scores, items = (torch.from_numpy(np.concatenate(parts)) for parts in zip(*best, strict=True))
        return scores.to(hidden.device), items.to(hidden.device)

    def go_on(self, inputs: SparseTargets) -> np.ndarray:
        """(m,) bool, whether a known sequence of three items or more ended at a place that asks or before it.

        Of ten items and more the last ten must agree, or C if that is fewer, of less all, as a given sequence may begin
        anywhere.
        """
        ids, starts, asks = _places_that_ask(inputs)
        ends = np.arange(len(ids)) + 1
        made = _ends(ids, starts, ends, self._agree)
        at = np.searchsorted(self._ends, made)
        there = np.append(self._ends, np.uint64(0))[at] == made
        so_far = np.concatenate([[0], np.cumsum(there)])
        found: np.ndarray = (so_far[1:] > so_far[starts])[asks]
        return found

    def candidates(self, head: Any, inputs: SparseTargets, hidden: Tensor, k: int) -> Iterator[Told]:
        """The best max(k, 200) items of ``head``, those with votes and those of the sequence itself.

        Args:
            inputs: sequences, of which m places ask, whose (m, d) ``hidden`` layers ``head`` takes.

        Yields:
            those of 256 places at a time.
        """
        scores, classes = (part.cpu().numpy() for part in head.top_k(hidden, min(max(k, _FIRST), self.num_items)))
        every = _History.of(inputs)
        for start in range(0, len(hidden), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            yield self._candidates(scores[some], classes[some], every.part(start, start + _AT_ONCE))

    def _candidates(self, scores: np.ndarray, classes: np.ndarray, history: _History) -> Told:
        """Of (m, ·) best of the network and of what came before."""
        there = classes >= 0
        own = np.nonzero(there)[0] * self.num_items + classes[there]
        said = history.rows * self.num_items + history.items
        voted, *votes = self._votes(history)
        every = np.unique(np.concatenate([own, voted, said]))
        rows, items = np.divmod(every, self.num_items)
        features = np.zeros((len(every), len(FEATURES)), dtype=np.float32)
        floor = np.where(there, scores, np.inf).min(axis=1)
        features[:, 0] = np.where(np.isfinite(floor), floor, 0.0)[rows]
        features[np.searchsorted(every, own), 0] = scores[there]
        features[:, 1:3] = np.log(_NO_VOTES)
        at = np.searchsorted(every, voted)
        features[at, 1:3] = np.log(np.stack([_shares(part, rows[at]) for part in votes], axis=1) + _NO_VOTES)
        features[np.searchsorted(every, said), 3:7] = history.told()
        features[:, 7:] = self._frequencies[items]
        return Told(len(scores), rows, items, features)

    def _votes(self, history: _History) -> tuple[np.ndarray, ...]:
        """Rising keys row·D + item, (c',) votes of the nearest sequences for them, and those of places after theirs."""
        row, place, likeness = self._nearest(history)
        step = np.concatenate([np.arange(-_LAST, 0), np.arange(1, _LAST + 1)])
        there = (place[:, None] + step).clip(0, len(self.ids) - 1)
        pair, column = np.nonzero(
            (there == place[:, None] + step) & (self._whose[there] == self._whose[place][:, None])
        )
        value = likeness[pair] * np.exp((1 - np.abs(step)) / _DECAY)[column]
        keys, which = np.unique(row[pair] * self.num_items + self.ids[there[pair, column]], return_inverse=True)
        later = np.bincount(which, value * (step > 0)[column], minlength=len(keys))
        return keys, np.bincount(which, value, minlength=len(keys)), later

    def _nearest(self, history: _History) -> tuple[np.ndarray, ...]:
        """Of each neighbour the row, the place of the last item that both have, and the weight of its votes.

        Two sequences are the more alike the more items they share, the rarer these are and the later they stand in the
        given one; of those that are equally alike the later ones are nearer. The weight of votes falls with the square
        root of the neighbour's length, and with what stands between the place they share and the end of the given one.
        """
        order = np.argsort(-history.back, kind="stable")  # so that what is written last is of the last items
        order = order[history.back[order] < _LAST]
        rows, items, back = history.rows[order], history.items[order], history.back[order]
        first, last = self._first[items], self._first[items + 1]
        first = np.maximum(first, last - _OCCURRENCES)
        pair = np.repeat(np.arange(len(rows)), last - first)
        place = self._places[np.repeat(first, last - first) + places_in(pair)]
        n = np.int64(len(self.offsets) - 1)
        keys, which = np.unique(rows[pair] * n + self._whose[place], return_inverse=True)
        weight = np.exp(-back / _DECAY)[pair]
        alike = np.bincount(which, weight * self._rarity[items][pair], minlength=len(keys))
        shared, near = np.empty(len(keys), dtype=np.int64), np.empty(len(keys))
        shared[which], near[which] = place, weight
        row, session = np.divmod(keys, n)
        alike = alike / np.sqrt(self.offsets[session + 1] - self.offsets[session])
        order = np.lexsort((-session, -alike, row))
        order = order[places_in(row[order]) < self.count]
        return row[order], shared[order], (alike * near)[order]

    def chosen(
        self,
        network: Any,
        held: SequenceExamples,
        names: list[str],
        seed: int,
        ends: SequenceExamples | None = None,
        size: int = 64,
    ) -> SessionWeights:
        """The weights by which places of ``held`` sequences are likeliest, which are none of these and trained nothing.

        One half of the places fits them; all do, if the metrics of the other half are better on average than those of
        the network alone. So do ``ends``, places at which some of these sequences go on, for all that go on.
        """
        chosen = self._weighed(network, held, names, seed, size)
        known = () if ends is None or len(ends) == 0 else self._weighed(network, ends, names, seed, size)
        return SessionWeights(*chosen, *known)

    def _weighed(
        self, network: Any, held: SequenceExamples, names: list[str], seed: int, size: int
    ) -> tuple[list[float], int, dict[str, float], dict[str, float]]:
        """Weights, how many places chose them, and metrics without and with them."""
        depth = Evaluation(names).depth
        found, targets = self._looked_up(network, held, depth, size)
        hits = found.items == targets[found.rows]

        def relevant(some: np.ndarray) -> SparseTargets:
            return SparseTargets.from_ids(torch.from_numpy(targets[some]))

        weights, before, after = weighed(found, hits, relevant, names, seed)
        return weights, len(targets), before, after

    @torch.no_grad()
    def _looked_up(self, network: Any, held: SequenceExamples, depth: int, size: int) -> tuple[Told, np.ndarray]:
        """What may come next at the places of held sequences, of the first ones if they are many; (m,) what comes."""
        parts: list[Told] = []
        targets: list[np.ndarray] = []
        for start in range(0, len(held), size):
            inputs, after = held.batch(np.arange(start, min(start + size, len(held))))
            hidden = network.hidden(inputs.to(network.head.device))
            parts += self.candidates(network.head, inputs, hidden, depth)
            targets.append(after.class_ids.numpy())
            pairs, places = (sum(many) for many in zip(*((len(part.rows), part.m) for part in parts), strict=True))
            if pairs >= _MOST_PAIRS or places >= _MOST_PLACES:
                break
        return Told.together(parts), np.concatenate(targets)


@dataclass(frozen=True)
class _History:
    """(n,) of each place that asks and each item up to it, rising by both.

    Attributes:
        rows, items: the number of the place, and the item. back: how many others come after the item's last occurrence.
        times: how often it occurs.
    """

    rows: np.ndarray
    items: np.ndarray
    back: np.ndarray
    times: np.ndarray

    @classmethod
    def of(cls, inputs: SparseTargets) -> _History:
        ids, starts, asks = _places_that_ask(inputs)
        rows = np.repeat(np.arange(len(asks)), asks + 1 - starts[asks])
        back = places_in(rows)
        items = ids[asks[rows] - back]
        keys = rows * (items.max(initial=0) + 1) + items
        _, kept, times = np.unique(keys, return_index=True, return_counts=True)  # the first ones, with the least back
        return cls(rows[kept], items[kept], back[kept], times)

    def part(self, start: int, end: int) -> _History:
        """That of places from ``start`` to ``end``."""
        here = slice(*np.searchsorted(self.rows, [start, end]))
        return _History(self.rows[here] - start, self.items[here], self.back[here], self.times[here])

    def told(self) -> np.ndarray:
        """(n, 4) whether an item is the last one, stands before it, is the last but one; how often it stands there."""
        return np.stack([self.back == 0, self.back > 0, self.back == 1, self.times], axis=1)


def _places_that_ask(inputs: SparseTargets) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n,) ids of all places and where the sequence of each begins; (m,) which places ask."""
    ids, offsets, whose = (part.cpu().numpy() for part in (inputs.class_ids, inputs.offsets, inputs.example_ids))
    asks = np.arange(len(ids)) if inputs.values is None else np.flatnonzero(inputs.values.cpu().numpy())
    return ids, offsets[whose], asks


def _ends(ids: np.ndarray, starts: np.ndarray, ends: np.ndarray, count: int) -> np.ndarray:
    """(m,) uint64 numbers that stand for the last ``count`` ids from start to end, or for all of fewer.

    Others have the same number once in 2^64, which is left to chance.
    """
    found = np.zeros(len(ends), dtype=np.uint64)
    for back in range(1, count + 1):
        there = ends - back >= starts
        found[there] = (found[there] ^ (ids[(ends - back)[there]] + 1).astype(np.uint64)) * _MIX
        found ^= found >> np.uint64(29)
    return found


def _shares(votes: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(c,) votes divided by the sum of their row, or 0 if that is."""
    sums = np.bincount(rows, votes)[rows] if len(rows) else votes
    return np.divide(votes, sums, out=np.zeros(len(votes)), where=sums > 0.0)
