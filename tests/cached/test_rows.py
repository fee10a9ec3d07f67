"""Rows in a cache and at boundaries, beside the same rows kept as they are."""

from __future__ import annotations

import torch
from torch import Tensor

from widehead.cached.rows import CachedRows
from widehead.versions import Rows
from widehead.versions.rows import rounded_by_name

D, WIDTH, STEPS = 64, 8, 400


def test_changes_below_a_rounding_add_up_whatever_ends_a_segment() -> None:
    """Rows in bfloat16 that are written home time and again, by `close` and by `sweep`, with noise that is new."""
    torch.manual_seed(0)
    start = 1.0 + torch.rand(D, WIDTH)
    rows = Rows(start.to(torch.bfloat16), torch.float32)
    kept, identity, every = CachedRows(rows, 4), torch.eye(WIDTH), torch.arange(D)
    before = rows.stored.double()

    def rounded(found: Tensor, names: Tensor, first: Tensor | None = None) -> Tensor:
        return rounded_by_name(found, names, kept.salt).to(torch.bfloat16)

    unit = 2.0**-7  # of bfloat16 from 1 to 2
    for _ in range(STEPS):
        kept.allocate(2, D)
        kept.enter(every, identity)
        kept.cache.add_(unit / STEPS)
        kept.close(identity, rounded)
    by_close = (rows.stored.double() - before) / unit
    before = rows.stored.double()
    for _ in range(STEPS):
        kept.transforms[:, 0] = (1.0 + unit / (2.0 * STEPS)) * identity
        kept.sweep(rounded)
    by_sweep = (rows.stored.double() - before) / (unit * before / 2.0)
    for moved in (by_close, by_sweep):
        assert abs(moved.mean() - 1.0) < 0.2
        assert moved.std() < 2.0, "each on its own, not a few for all"
