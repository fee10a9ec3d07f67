"""Which examples an index names: as torch has it for the rows of a tensor, and one sentence for what it is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from widehead.targets import SparseTargets

ROWS = [[3, 1], [], [4], [0, 0, 2], [5]]
VALUES = [[0.5, 1.0], [], [-2.0], [1.0, 2.0, 3.0], [4.0]]
TARGETS = SparseTargets.from_lists(ROWS, VALUES)

INDICES = [
    *(slice(3, 7), slice(None), slice(4, 1), slice(None, None, 2), slice(-2, None), slice(9, 12)),
    *([3, 3, 0], [-1, -5]),
    *(np.array([4, 0]), np.array([2], dtype=np.uint8), np.arange(5)[::-1]),
    *(torch.tensor([1, 2]), torch.tensor([0], dtype=torch.int16)),
    *(torch.tensor([True, False, True, False, True]), np.zeros(5, dtype=bool), [True] * 5),
]


@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_an_index_takes_the_examples_that_it_takes_of_an_array(index: Any) -> None:
    plain = index.numpy() if isinstance(index, torch.Tensor) else index
    wanted = np.arange(len(ROWS))[plain].tolist()
    found = TARGETS[index]
    assert found.to_lists() == [ROWS[b] for b in wanted]
    assert found.values is not None
    assert found.values.tolist() == [v for b in wanted for v in VALUES[b]]
    assert found.most >= max((len(ROWS[b]) for b in wanted), default=0)
    assert TARGETS.to_lists() == ROWS


def test_an_empty_list_takes_none() -> None:
    assert TARGETS[[]].to_lists() == []


@pytest.mark.parametrize("b", [*range(5), -1, -5, np.int32(2), torch.tensor(3)])
def test_a_number_takes_one_example(b: Any) -> None:
    assert TARGETS[b].to_lists() == [ROWS[int(b)]]


def test_they_are_gone_through_one_by_one() -> None:
    assert [one.to_lists() for one in TARGETS] == [[row] for row in ROWS]


@pytest.mark.parametrize(
    ("index", "error", "said"),
    [
        (5, IndexError, r"in \[-5, 5\)\. Found 5"),
        ([0, -6, 9], IndexError, r"in \[-5, 5\)\. Found -6"),
        (torch.tensor([True, False]), IndexError, r"shape \(5,\) of the examples\. Found \(2,\)"),
        (np.ones((5, 1), dtype=bool), IndexError, r"Found \(5, 1\)"),
        (True, IndexError, r"mask .* Found \(\)"),
        (1.0, TypeError, r"whole numbers \(n,\)"),
        (torch.tensor([0.5]), TypeError, "float32"),
        ([[0], [1]], TypeError, r"shape \(2, 1\)"),
        ((0, 1), TypeError, "one dimension"),
        (None, TypeError, "one dimension"),
        (..., TypeError, "one dimension"),
        ("ab", TypeError, "tensor of numbers"),
        (slice("a"), TypeError, "slice indices"),
    ],
    ids=repr,
)
def test_what_is_no_index_is_refused(index: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        TARGETS[index]
