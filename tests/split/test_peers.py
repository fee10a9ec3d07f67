"""What processes of one run tell one another, in this process."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.several import Several
from torch import distributed

from widehead.errors import ProcessesError
from widehead.split import RowSplit, draw_as_one
from widehead.versions import Rows

pytestmark = pytest.mark.long

_BLOCK = 1 << 18


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("more", [1, 3, 15, 16, 17, 40])
@pytest.mark.parametrize("blocks", [0, 1])
def test_rows_are_those_that_one_process_draws(blocks: int, more: int, width: int) -> None:
    """Whatever is left for the last block: torch draws the last numbers of a tensor in another way."""
    rows = blocks * (_BLOCK // width // 16 * 16) + more
    expected = torch.empty(rows, width)
    state, generator = torch.Generator().manual_seed(3).get_state(), torch.Generator().manual_seed(3)
    expected.normal_(std=0.5, generator=generator)
    half = -(-rows // 2)
    for first, end in ((0, half), (half, rows)):
        part = torch.zeros(end - first, width)
        split: Any = SimpleNamespace(num_rows=rows, first=first, end=end)
        kept = Rows(part)
        after = draw_as_one(split, kept, 0.5, state, kept.put)
        assert torch.equal(part, expected[first:end])
        assert torch.equal(after, generator.get_state())


def gone_while_they_tell(mesh: Any) -> str:
    def lost(*arguments: Any, **more: Any) -> None:
        raise RuntimeError("Connection closed by peer")

    real, distributed.all_gather_object = distributed.all_gather_object, lost
    try:
        RowSplit(mesh, 5).told("something")
    except ProcessesError as error:
        return str(error)
    finally:
        distributed.all_gather_object = real
    return "nothing"


def test_one_that_is_gone_while_they_tell_why(several: Several) -> None:
    assert "one has ended" in several.run(1, gone_while_they_tell)[0]
