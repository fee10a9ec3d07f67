"""Lazy Gumbels: how few classes outside the best ones are looked at."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from widehead.heads.gumbel import lazy_gumbel_sample


@pytest.mark.parametrize("spread", [0.0, 5.0])
def test_about_n_over_k_classes_are_looked_at(spread: float) -> None:
    """(n − k)/k of them on the mean where the k best are alike, fewer where they are not: within 10 % over 2,000 draws.

    The other classes have the least of the k scores; all classes can be drawn.
    """
    torch.manual_seed(0)
    n, k, draws = 2000, 100, 2000
    scores = torch.linspace(spread, 0.0, k, dtype=torch.float64).expand(draws, -1)
    ids = torch.arange(n - k, n).expand(draws, -1)
    looked_at = []

    def outputs(examples: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        assert bool((classes < n - k).all())
        looked_at.append(len(examples))
        return torch.zeros(len(examples), dtype=torch.float64)

    drawn = lazy_gumbel_sample(scores, ids, n, outputs)
    assert sum(looked_at) / draws <= 1.1 * (n - k) / k
    outside = (n - k) / (n - k + float(scores[0].exp().sum()))
    error = (outside * (1.0 - outside) / draws) ** 0.5
    assert float((drawn < n - k).double().mean()) == pytest.approx(outside, abs=4.0 * error)


def test_draws_are_exact_where_most_classes_are_outside() -> None:
    """χ² at level 10⁻⁴ over 10,000 draws; classes outside the best ones differ and hold most of the probability."""
    torch.manual_seed(0)
    n, k, draws = 30, 3, 10_000
    scores = torch.zeros(n, dtype=torch.float64)
    scores[: n // 2], scores[-2:] = -2.0, 1.0  # the last of the best is no better than some outside
    best, ids = scores.topk(k)
    drawn = lazy_gumbel_sample(
        best.expand(draws, -1), ids.expand(draws, -1), n, lambda examples, classes: scores[classes]
    )
    counts = torch.bincount(drawn, minlength=n).double()
    assert stats.chisquare(counts, draws * torch.softmax(scores, 0)).pvalue > 1e-4
