"""Singular vectors of a matrix whose rows are dealt out: those of one process, the signs among them."""

from __future__ import annotations

import pytest
import torch
from models import shared_vectors
from support.several import Several

pytestmark = pytest.mark.long


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("shape", [(70, 50), (50, 70), (2_500, 1_200), (1_200, 2_500), (2, 40), (40, 2)])
def test_they_are_those_of_one_process(several: Several, shape: tuple[int, int], size: int) -> None:
    k = min(6, *shape)
    values, vectors, drawn = shared_vectors.found_by(None, shape, k, torch.float64)
    for found in several.run(size, shared_vectors.found_by, shape, k, torch.float64):
        torch.testing.assert_close(found[0], values, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found[1], vectors, rtol=0.0, atol=1e-9)
        assert found[2] == drawn


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_numbers_that_are_not_finite_are_refused_by_all(several: Several, rank: int, number: float) -> None:
    for told in several.run(3, shared_vectors.refused, rank, number):
        assert told == "The matrix should hold finite numbers. Found NaN or infinity."


def test_in_float32(several: Several) -> None:
    shape = 2_500, 1_200
    values, vectors, _ = shared_vectors.found_by(None, shape, 6, torch.float64)
    for found in several.run(2, shared_vectors.found_by, shape, 6, torch.float32):
        torch.testing.assert_close(found[0].double(), values, rtol=2e-3, atol=0.0)
        products = (found[1].double() * vectors).sum(0)
        assert float(products.min()) > 0.99
