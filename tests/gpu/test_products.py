"""Operations of torch that the package relies on and that differ on a card."""

from __future__ import annotations

import torch
from support.properties import relative

from gpu.device import DEVICE, note
from widehead.arithmetic import TORCH
from widehead.targets import SparseTargets


def test_sampled_products_with_columns_that_come_twice() -> None:
    """torch.sparse.sampled_addmm, d = 300: classes that are targets of many examples, and twice of one."""
    worst = {}
    for count in (2, 5, 40):
        generator = torch.Generator().manual_seed(count)
        ids = torch.randint(60, (128, count), generator=generator)
        ids[:, 1] = ids[:, 0]
        plan = TORCH.plan_targets(SparseTargets.from_ids(ids).to(DEVICE))
        left = torch.randn(128, 300, generator=generator)
        right = torch.randn(int(plan.class_ids.shape[0]), 300, generator=generator)
        found = plan.dots(left.to(DEVICE), right.to(DEVICE), small=0)
        expected = (left.double()[plan.examples.cpu()] * right.double()[plan.positions.cpu()]).sum(1)
        worst[f"K = {count}"] = relative(found, expected)
    note(off_by=worst)
    assert max(worst.values()) < 1e-5, worst


def test_scattered_sums() -> None:
    """index_add_ and scatter_reduce_ of many terms to few places, as the cache's rows are summed."""
    generator = torch.Generator().manual_seed(0)
    places = torch.randint(7, (5_000,), generator=generator)
    terms = torch.randn(5_000, 33, generator=generator)
    found = torch.zeros(7, 33, device=DEVICE).index_add_(0, places.to(DEVICE), terms.to(DEVICE))
    expected = torch.zeros(7, 33, dtype=torch.float64).index_add_(0, places, terms.double())
    numbers = torch.arange(5_000)
    most = torch.full((7,), -1, device=DEVICE).scatter_reduce_(0, places.to(DEVICE), numbers.to(DEVICE), "amax")
    note(off_by=relative(found, expected))
    assert relative(found, expected) < 1e-5
    assert most.tolist() == [int(numbers[places == place].max()) for place in range(7)]
