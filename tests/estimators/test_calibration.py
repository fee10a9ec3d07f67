"""Calibration: rising, right on the average at every score, and as isotonic regression has it."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from widehead.estimators.calibration import Calibration


def drawn(n: int, seed: int, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, whether their pairs are true, and with what probability."""
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal(n) * scale
    p = 1.0 / (1.0 + np.exp(2.0 - 1.5 * scores / scale - 0.5 * np.sin(4.0 * scores / scale)))
    return scores, rng.random(n) < p, p


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_it_finds_the_probabilities(scale: float) -> None:
    scores, true, _ = drawn(60_000, 0, scale)
    found = Calibration.fit(scores[true], np.array_split(scores, 7))
    fresh, _, p = drawn(20_000, 1, scale)
    assert np.abs(found(fresh) - p).mean() < 0.01
    assert found(fresh).mean() == pytest.approx(p.mean(), rel=0.02)


def test_it_is_near_isotonic_regression() -> None:
    scores, true, _ = drawn(5_000, 2)
    found = Calibration.fit(scores[true], [scores])(scores)
    other = IsotonicRegression(out_of_bounds="clip").fit(scores, true).predict(scores)
    assert np.abs(found - other).mean() < 0.02
    assert found.mean() == pytest.approx(true.mean(), rel=0.03)


def test_the_order_of_scores_stays() -> None:
    scores, true, _ = drawn(300, 3)
    found = Calibration.fit(scores[true], [scores])
    grid = np.linspace(-8.0, 8.0, 1001)
    assert (np.diff(found(grid)) > 0.0).all()
    assert ((found(grid) > 0.0) & (found(grid) < 1.0)).all()
    assert found(np.array([-np.inf])).tolist() == [0.0]


@pytest.mark.parametrize(
    ("positives", "scores"),
    [
        ([1.0], [1.0]),
        ([1.0, 1.0], [1.0, 1.0]),
        ([0.5], [0.1, 0.5, 0.9]),
        ([0.0, 0.0], [0.0, 0.0, 0.0]),
        ([-3.0], [-3.0, -4.0]),
    ],
)
def test_few_and_equal_scores(positives: list[float], scores: list[float]) -> None:
    found = Calibration.fit(np.array(positives), [np.array(scores)])
    values = found(np.array([*scores, 10.0]))
    assert np.isfinite(values).all()
    assert ((values > 0.0) & (values < 1.0)).all()
    again = Calibration.from_dict(found.to_dict())
    assert np.array_equal(again(np.array(scores)), found(np.array(scores)))


def test_many_false_pairs_of_low_scores_stay_improbable() -> None:
    """A sum over 10⁵ labels is right, too."""
    rng = np.random.default_rng(0)
    low, high = rng.normal(0.0, 0.01, 1_000_000), rng.normal(0.6, 0.2, 2_000)
    true = rng.random(2_000) < np.clip(high, 0.0, 1.0)
    found = Calibration.fit(high[true], [low, high])
    assert found(low).sum() < 40.0
    assert found(high).sum() == pytest.approx(true.sum(), rel=0.1)
