"""Scores to probabilities, by what became true of held-out examples.

Isotonic regression: of all functions that rise with the score, the one of largest likelihood, which makes steps. Each
step counts as one point, at its mean score (centred isotonic regression, Oron and Flournoy 2017), and the log-odds go
straight from point to point, so that the order of scores stays. Beyond the last points they go on with a slope that no
ties remain of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.optimize
from scipy.special import expit, logit

_BINS = 1 << 10


@dataclass(frozen=True)
class Calibration:
    """Scores s to probabilities, rising with s.

    Attributes:
        scores: (n,) rising scores. log_odds: (n,) those of the probabilities there. slope: beyond them.
    """

    scores: np.ndarray
    log_odds: np.ndarray
    slope: float

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """The probabilities of scores of any shape; 0 of −inf."""
        inside = np.clip(scores, self.scores[0], self.scores[-1])
        with np.errstate(invalid="ignore"):
            return expit(np.interp(inside, self.scores, self.log_odds) + self.slope * (scores - inside))

    @classmethod
    def fit(cls, positives: np.ndarray, blocks: Iterable[np.ndarray]) -> Calibration:
        """From the scores of the pairs that are true, and from those of all pairs, in blocks.

        Args:
            positives: (p,) at least one. blocks: arrays of any shape, which hold the positives too.
        """
        edges = np.unique(np.quantile(positives, np.linspace(0.0, 1.0, _BINS), method="inverted_cdf"))
        counts, sums = np.zeros(len(edges) + 1), np.zeros(len(edges) + 1)
        for block in blocks:
            found, which = block.ravel(), np.searchsorted(edges, block.ravel(), side="right")
            counts += np.bincount(which, minlength=len(counts))
            sums += np.bincount(which, weights=found, minlength=len(counts))
        true = np.bincount(np.searchsorted(edges, positives, side="right"), minlength=len(counts))
        filled = counts > 0
        return cls._of_bins(counts[filled], sums[filled], np.minimum(true, counts)[filled])

    @classmethod
    def _of_bins(cls, counts: np.ndarray, sums: np.ndarray, true: np.ndarray) -> Calibration:
        """From how many pairs have scores in each of some bins, their sum, and how many of them are true."""
        steps = scipy.optimize.isotonic_regression(true / counts, weights=counts).blocks[:-1]
        counts, sums, true = (np.add.reduceat(part, steps) for part in (counts, sums, true))
        # One pair more in each step, as true as pairs are on the average: no probability is 0 or 1.
        share = (true.sum() + 0.5) / (counts.sum() + 1.0)
        scores, odds = sums / counts, logit((true + share) / (counts + 1.0))
        keep = np.append(True, np.diff(np.maximum.accumulate(odds)) > 0.0)
        scores, odds = scores[keep], odds[keep]
        span = float(scores[-1] - scores[0]) or max(1.0, abs(float(scores[0])))
        return cls(scores, odds, 1.0 / span)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for JSON."""
        return {"scores": self.scores.tolist(), "log_odds": self.log_odds.tolist(), "slope": self.slope}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Calibration:
        """What ``to_dict`` gave."""
        return cls(np.array(saved["scores"]), np.array(saved["log_odds"]), float(saved["slope"]))
