"""Inverse roots by quadrature, beside those by eigenvalues."""

from __future__ import annotations

import pytest
import torch

from widehead.optim.quadrature import _nodes, inverse_root_by_quadrature
from widehead.optim.shampoo import inverse_root


@pytest.mark.parametrize("condition", [1.0, 1.5, 30.0, 1e4, 1e9, 1e15])
def test_the_sum_is_the_root_within_its_range_and_bounded_below(condition: float) -> None:
    shifts, weights = _nodes(condition, torch.device("cpu"))
    for values in (torch.logspace(0, torch.tensor(condition).log10().item(), 500), torch.logspace(-20, 0, 100)):
        found = (weights[:, None] / (values.double() + shifts[:, None])).sum(0)
        if values[0] < 1.0:
            assert bool(((found > 0.9) & (found < 13.0)).all())
        else:
            assert torch.allclose(found * values.double().sqrt(), torch.ones(500).double(), rtol=2e-11)


@pytest.mark.parametrize("damping", [0.1, 1e-2, 1e-6])
@pytest.mark.parametrize(("d", "rank"), [(1, 1), (7, 7), (7, 2), (40, 40), (40, 13), (5, 0)])
@pytest.mark.parametrize("scale", [1e-100, 1e-20, 1.0, 1e30])
def test_it_is_the_root_by_eigenvalues(d: int, rank: int, damping: float, scale: float) -> None:
    factor = torch.randn(rank, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = scale * (factor.T @ factor)
    found, expected = inverse_root_by_quadrature(matrix, damping), inverse_root(matrix, damping)
    assert (found - expected).norm() <= 1e-12 / damping**0.5 * expected.norm()
    assert (found - found.T).norm() <= 1e-14 * found.norm()


@pytest.mark.parametrize("damping", [0.0, 1e-15])
@pytest.mark.parametrize("rank", [3, 12])
def test_without_damping_it_inverts_what_there_is(damping: float, rank: int) -> None:
    factor = torch.randn(rank, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    root = inverse_root_by_quadrature(factor.T @ factor, damping)
    there = factor @ root @ root @ factor.T
    assert torch.allclose(there, torch.eye(rank, dtype=torch.float64), atol=1e-5)


@pytest.mark.parametrize("below", [1e-16, 1e-8, 1e-3, 0.5])
def test_eigenvalues_that_rounding_left_below_zero_are_no_danger(below: float) -> None:
    vectors, _ = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64))
    values = torch.tensor([1.0, 1.0, 0.5, 0.0, -below, -below], dtype=torch.float64)
    root = inverse_root_by_quadrature((vectors * values) @ vectors.T, 1e-10)
    found = torch.linalg.eigvalsh(root)
    assert float(found.min()) > 0.0
    assert float(found.max()) <= 13.0 / (1e-10 * float(values.mean())) ** 0.5


@pytest.mark.parametrize("d", [1, 4])
def test_of_nothing_and_of_what_is_not_finite(d: int) -> None:
    nothing = torch.zeros(d, d, dtype=torch.float64)
    assert torch.equal(inverse_root_by_quadrature(nothing, 0.1), nothing)
    assert torch.equal(inverse_root_by_quadrature(nothing - torch.eye(d), 0.1), nothing)
    assert bool(inverse_root_by_quadrature(nothing + torch.nan, 0.1).isnan().all())
    assert not bool(inverse_root_by_quadrature(nothing + torch.inf, 0.1).isfinite().any())
