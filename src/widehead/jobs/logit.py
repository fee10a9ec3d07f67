"""A conditional logit model: which of some classes is the one, by what tells of each (McFadden, 1974).

Letters: m rows (places of sequences, users), c pairs of a row and a class that it may have, F numbers that tell of a
pair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from widehead.jobs.base import Chosen, check_same
from widehead.jobs.candidates import best_of_rows
from widehead.metrics import Evaluation
from widehead.optim.light import LightOptimizer
from widehead.targets import SparseTargets

_RIDGE = 1e-4


def compared(before: dict[str, float], after: dict[str, float]) -> str:
    """Metrics without and with something, for people."""
    return ", ".join(f"{name} {value:.4f} → {after[name]:.4f}" for name, value in before.items())


@dataclass(frozen=True)
class Weights(Chosen):
    """What counts how much, and what it is worth.

    Attributes:
        features, who, by: what tells of a class, what has a say with them, and what they are chosen by.
        weights: w of the features; none: the network has the say alone.
        places: how many they were chosen by. before, after: metrics of the network alone and with all else, on the
            half of these that did not fit w.
    """

    features: ClassVar[tuple[str, ...]]
    who: ClassVar[str]
    by: ClassVar[str]

    weights: list[float]
    places: int
    before: dict[str, float]
    after: dict[str, float]

    def __str__(self) -> str:
        told = compared(self.before, self.after)
        what = "have a say" if self.weights else "have no say"
        return f"{self.who} {what}, by {self.places:,} {self.by} that the network did not see ({told})."

    def table(self) -> tuple[list[str], list[list[str]]]:
        """The header and the rows of a report."""
        return ["what tells of an item", "weight"], [
            [name, f"{weight:.3g}"] for name, weight in zip(self.features, self.weights, strict=False)
        ]

    def check(self) -> None:
        if len(self.weights) not in (0, len(self.features)):
            raise ValueError(f"weights {self.weights}")
        check_same(self.before, self.after)


@dataclass(frozen=True)
class Told:
    """Classes that m rows may have, and what tells of them.

    Attributes:
        rows, items: (c,) of a row and a class, rising by both. features: (c, F) float32.
    """

    m: int
    rows: np.ndarray
    items: np.ndarray
    features: np.ndarray

    @classmethod
    def together(cls, parts: list[Self]) -> Self:
        """Those of all parts, one after the other."""
        first = np.cumsum([0, *(part.m for part in parts)])
        rows = [part.rows + start for part, start in zip(parts, first, strict=False)]
        items, features = ([getattr(part, name) for part in parts] for name in ("items", "features"))
        return cls(int(first[-1]), *map(np.concatenate, (rows, items, features)))

    def best(self, weights: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(m, k) float64 scores, best first, and classes; −inf and −1 in places that none takes.

        Args:
            weights: (F,) of all rows, or (m, F) of each.
        """
        told = self.features.astype(np.float64)
        scores = told @ weights if weights.ndim == 1 else np.einsum("cf,cf->c", told, weights[self.rows])
        return best_of_rows(self.rows, self.items, scores, self.m, k)


class _LBFGS(LightOptimizer, torch.optim.LBFGS):
    """As in torch."""


def fitted(found: Told, hits: np.ndarray) -> np.ndarray:
    """(F,) weights by which classes that are right are likeliest, each among itself and those that are wrong.

    Args:
        hits: (c,) bool, which are right; a row counts the same whatever their number, and nothing without any.
    """
    used = np.isin(found.rows, found.rows[hits])
    rows, numbers = np.unique(found.rows[used], return_inverse=True)
    features, row = torch.from_numpy(found.features[used]), torch.from_numpy(numbers)
    wrong = torch.from_numpy(~hits[used]).to(features.dtype)
    right = torch.from_numpy(np.flatnonzero(hits[used]))
    whose, m = row[right], len(rows)
    share = torch.bincount(whose, minlength=m).double().reciprocal()[whose].float()
    share /= share.sum()
    weights = torch.eye(1, found.features.shape[1])[0].requires_grad_()
    optimizer = _LBFGS([weights], max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        scores = features @ weights
        with torch.no_grad():
            highest = torch.full((m,), -torch.inf).scatter_reduce(0, row, scores, "amax")
        above = (scores - highest[row]).exp()
        sums = torch.zeros(m).index_add(0, row, above * wrong)[whose] + above[right]
        value: Tensor = (share * (sums.log() + highest[whose] - scores[right])).sum()
        value = value + _RIDGE * weights.square().sum()
        value.backward()
        return value

    if len(right):
        optimizer.step(loss)
    return weights.detach().double().numpy()


def weighed(
    found: Told, hits: np.ndarray, relevant: Callable[[np.ndarray], SparseTargets], names: Sequence[str], seed: int
) -> tuple[list[float], dict[str, float], dict[str, float]]:
    """The weights that all rows fit, and the metrics of half of them without and with those that the others fit.

    There are no weights if the metrics are not better with them, by the mean of their ratios.

    Args:
        hits: as `fitted` takes them.
        relevant: gives the right classes of some rows, by their numbers.
        names: of the metrics. seed: of the halves.
    """
    odd = np.random.default_rng(seed).permutation(found.m) % 2 == 1
    true = relevant(np.flatnonzero(odd))

    def judged(weights: np.ndarray) -> dict[str, float]:
        evaluation = Evaluation(names)
        evaluation.add_ranked(torch.from_numpy(found.best(weights, evaluation.depth)[1][odd]), true)
        return evaluation.result()

    before = judged(np.eye(1, found.features.shape[1])[0])
    after = judged(fitted(found, hits & ~odd[found.rows]))
    better = np.mean([after[name] / max(value, 1e-4) for name, value in before.items()]) > 1.0
    return fitted(found, hits).tolist() if better else [], before, after
