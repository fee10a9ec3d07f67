"""A mistake of one process with a head that has parameters is an error on all of them, and nothing is half-changed."""

from __future__ import annotations

import pytest
from split import head_failures
from support.several import Several

pytestmark = pytest.mark.long

CALLS = ["forward", "reduction", "outputs", "scores", "log_prob", "top_k", "weights", "shape"]


@pytest.mark.parametrize(
    ("head", "call"),
    [
        *(("full", call) for call in CALLS),
        *(("sampled", call) for call in ("forward", "reduction", "scores")),
        *(("exact", call) for call in CALLS if call != "log_prob"),  # a squared error has none
        *(("exact", call) for call in ("without autograd", "weights of examples")),
    ],
)
def test_what_one_process_refuses_others_hear_of(several: Several, head: str, call: str) -> None:
    first, wrong, last = several.run(3, head_failures.wrong_argument, head, call)
    assert first == last
    assert "Rank 1: " in first
    assert first == f"Rank 1: {wrong}" or wrong == first


@pytest.mark.parametrize(
    ("head", "call"),
    [("full", "another"), ("full", "frozen"), ("sampled", "another"), ("sampled", "eval"), ("in-batch", "frozen")],
)
def test_another_call_in_one_process(several: Several, head: str, call: str) -> None:
    for message in several.run(3, head_failures.another_call, head, call):
        assert "rank 1" in message
        assert "same order" in message or "with gradients on rank 0, and one without" in message


@pytest.mark.parametrize(
    ("option", "found"),
    [
        *(("classes", "FullSoftmaxHead(6, 37)"), ("bias", "True"), ("type", "float64"), ("kind", "BlackOutHead")),
        *(("negatives", "8"), ("frequencies", "BlackOutHead"), ("log Z", "1.0"), ("in-batch", "in-batch")),
    ],
)
def test_a_head_that_is_made_otherwise_by_one_process(several: Several, option: str, found: str) -> None:
    for message in several.run(2, head_failures.another_head, option):
        assert message.startswith("All processes should make the same head. Found rank 0: ")
        assert found in message.split("rank 1: ")[1]


def test_a_split_head_inside_data_parallel(several: Several) -> None:
    for message in several.run(2, head_failures.in_data_parallel):
        assert "broadcast" in message


def test_what_a_split_head_does_not_do(several: Several) -> None:
    parts = ["no gradient there", "differentiated once", "differentiated once", "quadratic"]
    parts += ["cells", "Found meta", "need all rows", "wh.optim.RowAdam"]
    for messages in several.run(2, head_failures.not_there):
        for part, message in zip(parts, messages, strict=True):
            assert part in message


def test_a_state_that_one_process_refuses(several: Several) -> None:
    other, refused = several.run(2, head_failures.bad_state)
    assert "size mismatch" in refused
    assert other.startswith("Rank 1: ")
    assert "size mismatch" in other
