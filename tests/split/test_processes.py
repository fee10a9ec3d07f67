"""What processes send one another, one tensor at a time and several in one message."""

from __future__ import annotations

import pytest
import torch

from widehead.split.processes import _bytes_of


@pytest.mark.parametrize(
    "part",
    [
        torch.arange(6.0).view(2, 3).T,
        torch.tensor([7]).expand(1),
        torch.tensor([[1.0], [2.0]]).expand(2, 3),
        torch.tensor(5).as_strided((1,), (0,)),
        torch.empty(0, 3),
        torch.arange(9)[::2],
    ],
)
def test_bytes_are_those_of_the_numbers_in_their_order(part: torch.Tensor) -> None:
    made = _bytes_of(part)
    assert made.dtype == torch.uint8
    assert made.numpy().tobytes() == part.contiguous().numpy().tobytes()
