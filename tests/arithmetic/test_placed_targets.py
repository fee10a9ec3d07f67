"""Products with S, whose class rows stand in any order and come several times, against the dense matrix."""

from __future__ import annotations

import pytest
import torch

from widehead.arithmetic.placed_targets import _MOST_BATCHED, PlacedTargets, row_dots
from widehead.targets import SparseTargets


@pytest.mark.parametrize("rows", [[[4, 0, 4], [], [2, 4]], [[], []], [[1] * 5]])
def test_all_products_are_those_of_the_dense_matrix(rows: list[list[int]]) -> None:
    """Examples without targets, classes several times in an example and in several."""
    generator = torch.Generator().manual_seed(0)
    targets, places = SparseTargets.from_lists(rows), torch.tensor([6, 1, 3, 0, 5])
    plan = PlacedTargets.of(targets, places[targets.class_ids], 7)
    values = torch.randn(targets.class_ids.numel(), generator=generator, dtype=torch.float64)
    dense = torch.zeros(len(rows), 7, dtype=torch.float64)
    dense.index_put_((plan.examples, plan.positions), values, accumulate=True)
    left = torch.randn(len(rows), 3, generator=generator, dtype=torch.float64)
    right = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    for found, expected in (
        (plan.times(values, right), dense @ right),
        (plan.transposed_times(values, left), dense.T @ left),
        (plan.gram_times(values, left), dense @ dense.T @ left),
        (plan.class_sums(values), dense.sum(0)),
        (plan.row_sums(values), dense.sum(1)),
        (plan.dots(left, right), (left @ right.T)[plan.examples, plan.positions]),
    ):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("more", [0, 1])
def test_inner_products_of_more_rows_than_a_batched_product_has(more: int) -> None:
    left, right = torch.randn(2, _MOST_BATCHED + more, 2, dtype=torch.float64)
    torch.testing.assert_close(row_dots(left, right), (left * right).sum(1))
