"""Inverse roots by eigenvalues."""

from __future__ import annotations

import pytest
import torch

from widehead.optim.shampoo import inverse_root


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_entries_that_fade_below_the_least_number_there_is(dtype: torch.dtype) -> None:
    """As of examples that are all alike: LAPACK makes NaN of some such matrices as they are, and refuses others."""
    generator = torch.Generator().manual_seed(0)
    fading = 10.0 ** -(torch.arange(8, dtype=torch.float64) * (7 if dtype == torch.float32 else 45))
    for _ in range(300):
        vector = torch.randn(8, generator=generator, dtype=torch.float64) * fading
        matrix = torch.outer(vector, vector).to(dtype)
        # of A = vvᵀ and δ = ½‖v‖²/8: (A + δI)^(−1/2)v = v/√(‖v‖² + δ)
        square = float(vector @ vector)
        found = inverse_root(matrix, 0.5).double() @ vector
        assert torch.allclose(found, vector * (square * (1.0 + 0.5 / 8.0)) ** -0.5, atol=1e-5)
