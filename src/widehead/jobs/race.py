"""A race for what votes, margins, label trees and being rare count, on documents that trained nothing.

Letters: m documents, p candidates of all of them together (candidates.py), F numbers that tell of a candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import torch

from widehead.data import RowExamples
from widehead.jobs.candidates import Candidates, Choice
from widehead.jobs.logit import Told, fitted
from widehead.metrics import Evaluation, Propensities

_SEED = 0  # of the halves
_WORTH = 0.02  # of the metrics that weights must gain, as two numbers are easier to understand
_NOISE = 0.5  # the same, of 1/√m: so much may be the luck of m documents
_RARE = (0.0, 0.1, 0.2, 0.3, 0.4)  # what rare labels may have, of what all else counts
_PRECISE = 10.0  # percents of propensity-scored precision that are worth one of precision

Grid = tuple[Sequence[float], Sequence[float], Sequence[float]]


class Race:
    """Candidates of documents whose labels are known.

    Args:
        held: the m documents. propensities: of the labels. names: of the metrics that decide, each "…@k".
    """

    def __init__(
        self, candidates: Candidates, held: RowExamples, propensities: Propensities, names: Sequence[str]
    ) -> None:
        self._candidates, self._held = candidates, held
        self._propensities, self._names = propensities, list(names)
        odd = np.random.default_rng(_SEED).permutation(len(held)) % 2 == 1
        self._halves = [half for half in (~odd, odd) if half.any()]
        self._parts = [candidates.part(half) for half in self._halves]
        labels = held.targets.tocoo()
        keys = labels.row * np.int64(candidates.width) + labels.col
        self._hits = np.isin(candidates.rows * np.int64(candidates.width) + candidates.classes, keys)

    def best(self, grids: Sequence[Grid], least: float) -> Choice:
        """Of the network alone, the settings of ``grids``, and fitted weights; then what rare labels have beside them.

        The best setting is the one around which a grid is best, so that luck with single documents chooses less.

        Args:
            grids: values of τ, of w in spreads of the network's scores, and of λ, of which all combinations run.
            least: ε in the same spreads.
        """
        spread, every = self._candidates.spread() or 1.0, np.ones(len(self._held), dtype=bool)
        alone = Choice(0.0, 0.0, least * spread, [], len(self._held), {}, {}, [])
        self._before = [self._judged(alone, *both) for both in zip(self._parts, self._halves, strict=True)]
        runners = [setting for grid in grids for setting in product(*grid)]
        choices = [replace(alone, weight=part * spread, margin=margin, tree=tree) for tree, part, margin in runners]
        gains = np.array([[self._gain(choice, h) for h in range(len(self._halves))] for choice in choices])
        gains[[not choice.helps for choice in choices]] = 1.0
        smooth = _smoothed(grids, gains)
        winner = int(smooth.mean(axis=1).argmax())
        choice = choices[winner] if gains[winner].mean() > 1.0 else alone
        if len(self._halves) > 1 and self._weights_are_better(choices, gains, smooth):
            choice = replace(choices[winner], weights=self._fitted(choices[winner], every))
        elif choice.helps:
            choice = replace(choice, rare=self._rare(choice))
        before, after = (self._judged(some, self._candidates, every) for some in (alone, choice))
        ran = zip(runners, gains, strict=True)
        race = [[*pair, float(row.mean())] for (tree, *pair), row in ran if tree == choice.tree]
        return replace(choice, before=before, after=after, race=race)

    def _weights_are_better(self, choices: Sequence[Choice], gains: np.ndarray, smooth: np.ndarray) -> bool:
        """Whether weights of one half do better on the other, on average, than w and λ of that half, or none, do."""
        found = []
        for fits, judges in ((0, 1), (1, 0)):
            winner = int(smooth[:, fits].argmax())
            weighted = replace(choices[winner], weights=self._fitted(choices[winner], self._halves[fits]))
            found.append([self._gain(weighted, judges), gains[winner, judges], 1.0])
        weighted_gain, *others = np.mean(found, axis=0)
        return bool(weighted_gain > max(others) + _WORTH + _NOISE / len(self._held) ** 0.5)

    def _rare(self, choice: Choice) -> float:
        """The β around which rare labels gain most for what they cost.

        Not the gain of `best`: there a percent of precision at all k is worth three of propensity-scored precision,
        and with that β gives away more precision than noise hides.
        """
        every, rares = np.ones(len(self._held), dtype=bool), [part * choice.total for part in _RARE]
        judged = [self._judged(replace(choice, rare=rare), self._candidates, every) for rare in rares]
        logarithms = np.log([self._ratios(after, judged[0]) for after in judged])
        scored = np.array([name.startswith("psp") for name in self._names])
        gains = _PRECISE * logarithms[:, ~scored].mean(axis=1) + logarithms[:, scored].mean(axis=1)
        around = _smoothed([((0.0,), (0.0,), _RARE)], gains[:, None])
        return rares[int(around[:, 0].argmax())]

    def _fitted(self, choice: Choice, half: np.ndarray) -> list[float]:
        """(F,) weights that documents of a half (m,) bool fit."""
        some = self._candidates
        told = Told(len(half), some.rows, some.classes, some.told(choice).astype(np.float32))
        return fitted(told, self._hits & half[some.rows]).tolist()

    def _gain(self, choice: Choice, half: int) -> float:
        after, before = self._judged(choice, self._parts[half], self._halves[half]), self._before[half]
        # The geometric mean: with the arithmetic one metrics that the network is poor at would count more than others.
        return float(np.exp(np.mean(np.log(self._ratios(after, before)))))

    def _ratios(self, after: dict[str, float], before: dict[str, float]) -> list[float]:
        least = 1.0 / len(self._held)  # one hit beside none is luck
        return [max(after[name], least) / max(before[name], least) for name in self._names]

    def _judged(self, choice: Choice, candidates: Candidates, some: np.ndarray) -> dict[str, float]:
        """Metrics of some documents (m,) bool, whose candidates these are."""
        evaluation = Evaluation(self._names, self._propensities)
        ranked = torch.from_numpy(candidates.best(choice, evaluation.depth)[1])
        evaluation.add_ranked(ranked, self._held.batch(np.flatnonzero(some))[1])
        return evaluation.result()


def _smoothed(grids: Sequence[Grid], gains: np.ndarray) -> np.ndarray:
    """(settings, h) means of each setting's gains and those of the settings beside it, along all axes of its grid."""
    parts, first = [], 0
    for grid in grids:
        sizes = tuple(map(len, grid))
        own = gains[first : first + int(np.prod(sizes))]
        first += len(own)
        padded = np.full((*(size + 2 for size in sizes), own.shape[1]), np.nan)
        padded[1:-1, 1:-1, 1:-1] = own.reshape(*sizes, -1)
        moved = [
            padded[a : a + sizes[0], b : b + sizes[1], c : c + sizes[2]] for a, b, c in product(range(3), repeat=3)
        ]
        parts.append(np.nanmean(moved, axis=0).reshape(own.shape))
    return np.concatenate(parts)
