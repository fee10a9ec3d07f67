"""Labels of documents that are ranked anew, with what speaks for each and what that counts.

Letters: m documents, c labels found for each, p candidates of all documents together, D labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from widehead.data.sparse import CSR, rows_of_entries
from widehead.jobs.base import Chosen, check_same

FIRST = 200
"""Labels of the network that are ranked anew."""

TOLD = (
    *("score and votes", "margins below 1, squared", "logarithm of the score", "logarithm of the votes", "margin"),
    "label trees",
)
"""What weights are of."""

_NO_VOTES = 1e-3  # is added to shares of votes, so that they have a logarithm
_BLOCK = 256  # documents that are ranked at a time


@dataclass(frozen=True)
class Choice(Chosen):
    """What votes, margins, label trees and being rare count, and how the race for them went.

    Attributes:
        weight: w, in the network's own units. margin: λ. tree: τ. All 0, without weights: the network ranks alone.
        least: ε.
        weights: of `TOLD`, by a conditional logit model, if these do better than 1, −λ, τ and zeros; else none.
        documents: how many it was chosen by. before, after: metrics on these without and with neighbours.
        power: of the rarity of features, by which votes and classifiers divide them.
        race: (w in spreads of the network's scores, λ, gain) of all that ran with this τ.
        rare: β, what rare labels have beside all this; 0 with weights.
    """

    what = "what the neighbours' votes count"

    weight: float
    margin: float
    least: float
    weights: list[float]
    documents: int
    before: dict[str, float]
    after: dict[str, float]
    race: list[list[float]]
    power: float = 0.0
    tree: float = 0.0
    rare: float = 0.0

    def __str__(self) -> str:
        told = ", ".join(f"{name} {before:.4f} → {self.after[name]:.4f}" for name, before in self.before.items())
        what = f"votes {self.weight:.3g}, margins {self.margin:g}" if self.helps else "nothing"
        if self.tree:
            what = f"{what}, label trees {self.tree:g}"
        if self.rare:
            what = f"{what}, rare labels {self.rare:.3g}"
        if self.weights:
            said = (f"{name} {weight:.3g}" for name, weight in zip(TOLD, self.weights, strict=True))
            what = f"{what}, then {', '.join(said)}"
        if self.helps and self.power:
            what = f"{what}, features divided by their rarity to the power {self.power:g}"
        return f"Neighbours count {what}, by {self.documents:,} documents that the network did not see ({told})."

    @property
    def helps(self) -> bool:
        """Whether anything ranks beside the network."""
        return self.weight > 0.0 or self.takes_margins or self.takes_trees

    @property
    def takes_margins(self) -> bool:
        """Whether classifiers have a say."""
        return self.margin > 0.0 or bool(self.weights)

    @property
    def takes_trees(self) -> bool:
        """Whether label trees have a say."""
        return self.tree > 0.0 or bool(self.weights)

    @property
    def total(self) -> float:
        """What all that ranks counts but for rare labels, as long as there are no weights."""
        return 1.0 + self.margin + self.tree

    def table(self) -> tuple[list[str], list[list[str]]]:
        """The header and the rows of a report: mean ratios of metrics (race.py), by λ across and w in spreads down."""
        gains = {(part, margin): gain for part, margin, gain in self.race}
        parts, margins = (sorted({row[k] for row in self.race}) for k in (0, 1))
        rows = [[f"{part:g}", *(f"{gains[part, margin]:.4g}" for margin in margins)] for part in parts]
        return ["votes, by margins", *(f"{margin:g}" for margin in margins)], rows

    def check(self) -> None:
        lowest = min(self.weight, self.margin, self.tree, self.rare)
        if lowest < 0.0 or self.least <= 0.0 or abs(self.power) > 1.0:
            told = f"margin {self.margin}, tree {self.tree}, rare {self.rare}, least {self.least}, power {self.power}"
            raise ValueError(f"weight {self.weight}, {told}")
        if len(self.weights) not in (0, len(TOLD)) or (self.weights and self.rare):
            raise ValueError(f"weights {self.weights}, rare {self.rare}")
        check_same(self.before, self.after)
        if any(len(row) != 3 for row in self.race):
            raise ValueError(f"race {self.race}")
        parts, margins, pairs = ({(*row[some],) for row in self.race} for some in (slice(1), slice(1, 2), slice(2)))
        if len(pairs) != len(parts) * len(margins):
            raise ValueError(f"a race without some of its pairs, {self.race}")


NONE = Choice(0.0, 0.0, 1.0, [], 0, {}, {}, [])
"""If there is no document with a label to choose by."""


@dataclass
class Candidates:
    """The first labels of the network and those with votes, and the labels that the network has after them.

    Attributes:
        width: D.
        floor: (m,) float64, the network's score of the last of its first labels; infinity if it has none.
        rows, classes: (p,) int64, which label of which document; in this order.
        own: (p,) float64, how far the network's score is above ``floor``; 0 of labels that it has not among the first.
        votes: (p,) float64. margins: (p,) float64, or None without classifiers.
        trees: (p,) float64 what label trees say, or None without such.
        rareness: (p,) float64 logarithms of the labels' inverse propensities, or None if it counts nothing.
        rest: row, class and network's score below ``floor`` of labels that keep the network's order.
    """

    width: int
    floor: np.ndarray
    rows: np.ndarray
    classes: np.ndarray
    own: np.ndarray
    votes: np.ndarray
    rest: tuple[np.ndarray, np.ndarray, np.ndarray]
    margins: np.ndarray | None = None
    trees: np.ndarray | None = None
    rareness: np.ndarray | None = None

    @classmethod
    def of(cls, own: np.ndarray, classes: np.ndarray, votes: CSR) -> Candidates:
        """From the network's (m, c) best, best first, with class −1 if there are fewer, and (m, D) votes."""
        m, width = len(own), votes.shape[1]
        there = classes >= 0
        first = there & (np.arange(own.shape[1]) < FIRST)
        floor = np.where(first, own, np.inf).min(axis=1, initial=np.inf)
        document = np.repeat(np.arange(m), own.shape[1]).reshape(own.shape)
        keys = document[first] * np.int64(width) + classes[first]
        voted = rows_of_entries(votes) * np.int64(width) + votes.indices
        both, place = np.unique(np.concatenate([keys, voted]), return_inverse=True)
        found = np.zeros((2, len(both)))
        found[0, place[: len(keys)]] = (own - floor[:, None])[first]
        found[1, place[len(keys) :]] = votes.data
        after = there & ~first
        after[after] = ~np.isin(document[after] * np.int64(width) + classes[after], both)
        rest = document[after], classes[after], (own - floor[:, None])[after]
        rows, labels = np.divmod(both, np.int64(width))
        return cls(width, floor, rows, labels, found[0], found[1], rest)

    @classmethod
    def joined(cls, parts: Sequence[Candidates]) -> Candidates:
        """The documents of several, one after another."""
        starts = np.cumsum([0, *(len(part.floor) for part in parts)])
        joined: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("floor", "classes", "own", "votes")
        }
        joined["rows"] = np.concatenate([part.rows + start for part, start in zip(parts, starts, strict=False)])
        rest = [(rows + start, *more) for (rows, *more), start in zip((p.rest for p in parts), starts, strict=False)]
        joined["rest"] = tuple(np.concatenate(part) for part in zip(*rest, strict=True))
        for name in ("margins", "trees", "rareness"):
            known = [found for part in parts if (found := getattr(part, name)) is not None]
            joined[name] = np.concatenate(known) if known else None
        return cls(parts[0].width, **joined)

    def part(self, some: np.ndarray) -> Candidates:
        """Those of some documents (m,) bool, which are numbered anew."""
        number, kept, left = np.cumsum(some) - 1, some[self.rows], some[self.rest[0]]
        rows, *more = (part[left] for part in self.rest)
        told = (None if part is None else part[kept] for part in (self.margins, self.trees, self.rareness))
        own, votes = self.own[kept], self.votes[kept]
        rest, labels = (number[rows], more[0], more[1]), (number[self.rows[kept]], self.classes[kept])
        return Candidates(self.width, self.floor[some], *labels, own, votes, rest, *told)

    def spread(self) -> float:
        """How far the best label of the network is above the last of the first, on average."""
        highest = np.zeros(len(self.floor))
        np.maximum.at(highest, self.rows, self.own)
        return float(highest.mean())

    def scores(self, choice: Choice) -> np.ndarray:
        """(p,) float64 scores: log(o + w·v + ε) − λ·max(0, 1 − s)² + τ·t + β·r, or the weighted sum instead."""
        if choice.weights:
            weighted: np.ndarray = self.told(choice) @ np.array(choice.weights)
            return weighted
        found: np.ndarray = np.log(self.own + choice.weight * self.votes + choice.least)
        if choice.margin > 0.0:
            found -= choice.margin * self._missing() ** 2
        if choice.tree > 0.0:
            assert self.trees is not None
            found += choice.tree * self.trees
        if choice.rare > 0.0:
            assert self.rareness is not None
            found += choice.rare * self.rareness
        return found

    def told(self, choice: Choice) -> np.ndarray:
        """(p, F) float64 what `TOLD` names; margins are 0 without classifiers, and what trees say without trees."""
        both = np.log(self.own + choice.weight * self.votes + choice.least)
        scores = np.log(self.own + choice.least)
        missing, margins = (np.zeros_like(both),) * 2 if self.margins is None else (self._missing(), self.margins)
        trees = np.zeros_like(both) if self.trees is None else self.trees
        return np.stack([both, -(missing**2), scores, np.log(self.votes + _NO_VOTES), margins, trees], axis=1)

    def _missing(self) -> np.ndarray:
        """(p,) how far margins are below 1."""
        assert self.margins is not None
        found: np.ndarray = np.maximum(0.0, 1.0 - self.margins)
        return found

    def lowest(self, scores: np.ndarray) -> np.ndarray:
        """(m,) the lowest score of each document's candidates, above all other labels; 0 if there are none."""
        found = np.full(len(self.floor), np.inf)
        np.minimum.at(found, self.rows, scores)
        return np.where(np.isfinite(found), found, 0.0)

    def best(self, choice: Choice, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(m, k) scores, the largest first, of equal ones the smaller class, and classes; −inf and −1 if fewer."""
        scores = self.scores(choice)
        rows, classes, below = self.rest
        rows = np.concatenate([self.rows, rows])
        classes = np.concatenate([self.classes, classes])
        scores = np.concatenate([scores, self.lowest(scores)[self.rest[0]] + below])
        order = np.argsort(rows, kind="stable")
        rows, classes, scores = rows[order], classes[order], scores[order]
        kept = scores >= _thresholds(rows, scores, len(self.floor), k)[rows]
        return best_of_rows(rows[kept], classes[kept], scores[kept], len(self.floor), k)


def _thresholds(rows: np.ndarray, scores: np.ndarray, m: int, k: int) -> np.ndarray:
    """(m,) the k-th largest score of each row, −inf if there are fewer."""
    starts = np.searchsorted(rows, np.arange(m + 1))
    found = np.full(m, -np.inf)
    for first in range(0, m, _BLOCK):
        stop = min(first + _BLOCK, m)
        part = slice(starts[first], starts[stop])
        sizes = np.diff(starts[first : stop + 1])
        block = np.full((stop - first, max(k, int(sizes.max(initial=0)))), -np.inf)
        block[rows[part] - first, np.arange(starts[first], starts[stop]) - starts[rows[part]]] = scores[part]
        found[first:stop] = torch.from_numpy(block).topk(k, dim=1, sorted=True).values[:, -1].numpy()
    return found


def best_of_rows(
    rows: np.ndarray, columns: np.ndarray, values: np.ndarray, m: int, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """(m, k) the k largest values of each row, of equal ones that of the smaller column, and columns; −inf and −1."""
    order = np.lexsort((columns, -values, rows))
    place = places_in(rows[order])
    order, place = order[place < k], place[place < k]
    scores, classes = np.full((m, k), -np.inf), np.full((m, k), -1, dtype=np.int64)
    scores[rows[order], place], classes[rows[order], place] = values[order], columns[order]
    return scores, classes


def places_in(rows: np.ndarray) -> np.ndarray:
    """(n,) how many equal numbers stand before each of these, equal ones of which stand together."""
    begins = np.flatnonzero(np.diff(rows, prepend=-1))
    return np.arange(len(rows)) - np.repeat(begins, np.diff(begins, append=len(rows)))
