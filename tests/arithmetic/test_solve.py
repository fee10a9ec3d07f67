"""The systems that steps solve, each way against a general inverse in float64."""

from __future__ import annotations

import pytest
import torch

from widehead.arithmetic.solve import _solve_by_examples, spd_inverse


@pytest.mark.parametrize("n", [0, 1, 5, 64, 65, 130, 200])
def test_symmetric_inverse(n: int) -> None:
    root = torch.randn(n, n + 3, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    matrix = root @ root.T / (n + 3) + 0.1 * torch.eye(n, dtype=torch.float64)
    found = spd_inverse(matrix)
    assert found is not None
    torch.testing.assert_close(found, torch.linalg.inv(matrix), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("n", [3, 64, 65, 200])
@pytest.mark.parametrize("place", [0, -1])
def test_what_is_not_positive_definite_has_none(n: int, place: int) -> None:
    matrix = torch.eye(n, dtype=torch.float64)
    for wrong in (0.0, -1.0, float("nan")):
        matrix[place, place] = wrong
        assert spd_inverse(matrix) is None


@pytest.mark.parametrize("kappa", [-0.05, -0.3, 0.4])
@pytest.mark.parametrize("kind", ["alike", "of one sign", "some are 0", "of both signs", "all 0"])
def test_every_way_gives_the_same(kind: str, kappa: float) -> None:
    """κ = −0.3 overshoots: the symmetric system is not positive definite."""
    m, n = 9, 5
    g = torch.Generator().manual_seed(1)
    hidden = torch.randn(m, 12, generator=g, dtype=torch.float64)
    lam = {
        "alike": torch.full((m,), 0.7),
        "of one sign": torch.rand(m, generator=g) + 0.1,
        "some are 0": torch.rand(m, generator=g) * (torch.arange(m) % 3 > 0),
        "of both signs": torch.randn(m, generator=g),
        "all 0": torch.zeros(m),
    }[kind].double()
    products, given = hidden @ hidden.T, torch.randn(m, n, generator=g, dtype=torch.float64)
    rows, left, contraction = _solve_by_examples(products, lam, given, kappa, -0.5)
    system = torch.eye(m, dtype=torch.float64) + kappa * products * lam
    expected = -0.5 * torch.linalg.solve(system, given)
    torch.testing.assert_close(rows, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(left, lam[:, None] * expected, rtol=1e-9, atol=1e-9)
    inverse = torch.linalg.inv(system)
    assert float(contraction) == pytest.approx(float(inverse.diagonal().mean()) - 1.0, rel=1e-9, abs=1e-12)
