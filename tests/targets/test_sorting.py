"""Sorting by keys that hold places is torch's stable sort."""

from __future__ import annotations

import pytest
import torch

from widehead.targets.parts import sorted_stably

LARGEST = torch.iinfo(torch.int64).max


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16])
@pytest.mark.parametrize("count", [0, 1, 1023, 1024, 1025, 2048, 20_000])
@pytest.mark.parametrize("classes", [1, 3, 30_000])
def test_equal_ids_keep_their_order(count: int, classes: int, dtype: torch.dtype) -> None:
    ids = torch.randint(-2, classes, (count,), generator=torch.Generator().manual_seed(count)).to(dtype)
    before, wanted = ids.clone(), torch.sort(ids, stable=True)
    found, places = sorted_stably(ids)
    assert found.dtype == dtype
    assert places.dtype == torch.int64
    assert torch.equal(found, wanted.values)
    assert torch.equal(places, wanted.indices)
    assert torch.equal(ids, before)


# 2,000 places take 11 bits of 63, so that numbers from 2⁵² on (and below −2⁵²) do not fit beside them.
@pytest.mark.parametrize("extreme", [2**52 - 1, 2**52, -(2**52), -(2**52) - 1, LARGEST, -LARGEST - 1])
def test_ids_that_fit_no_key_are_sorted_too(extreme: int) -> None:
    ids = torch.randint(0, 50, (2000,), generator=torch.Generator().manual_seed(0))
    ids[[7, 1900]] = extreme
    wanted = torch.sort(ids, stable=True)
    found, places = sorted_stably(ids)
    assert torch.equal(found, wanted.values)
    assert torch.equal(places, wanted.indices)


def test_ids_that_are_part_of_others_are_not_written_into() -> None:
    whole = torch.arange(6000).flip(0)
    ids = whole[::2]
    found, places = sorted_stably(ids)
    assert torch.equal(found, ids.flip(0))
    assert torch.equal(places, torch.arange(3000).flip(0))
    assert torch.equal(whole, torch.arange(6000).flip(0))
