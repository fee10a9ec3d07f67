"""What finds the best classes rises with the score, in subclasses too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import widehead as wh

OUTPUTS = torch.linspace(-3.0, 3.0, 41, dtype=torch.float64).view(1, -1)


def own_score(parent: type[wh.losses.Loss]) -> wh.losses.Loss:
    """A loss like its parent that ranks classes otherwise."""

    class Own(parent):  # type: ignore[valid-type,misc]
        def score(self, outputs: Tensor) -> Tensor:
            return torch.sin(outputs)

    class Further(Own):
        pass

    return Further()


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(
    "parent", [wh.losses.SquaredError, wh.losses.SphericalSoftmax, wh.losses.TaylorSoftmax, wh.losses.ZLoss]
)
def test_classes_are_ranked_by_their_scores(parent: Any, own: bool) -> None:
    loss = own_score(parent) if own else parent()
    scores, ranking = loss.score(OUTPUTS), loss.ranking(OUTPUTS)
    torch.testing.assert_close(loss.score_of(ranking), scores)
    assert bool((scores[:, ranking.argsort(dim=1)[0]].diff() >= -1e-12).all())


def test_the_best_classes_of_a_subclass_are_those_of_its_scores() -> None:
    head = wh.ExactHead(6, 50, own_score(wh.losses.SphericalSoftmax))
    hidden = torch.randn(3, 6)
    expected = head.scores(hidden).topk(4, dim=1)
    found, ids = head.top_k(hidden, 4)
    assert torch.equal(ids, expected.indices)
    torch.testing.assert_close(found, expected.values)
