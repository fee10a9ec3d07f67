"""What goes to a GPU, and how: on the device that the CPU plays."""

from __future__ import annotations

import pytest
import torch
from support.head_table import ROWS, WIDTH, D, Row, make
from support.played import Device

import widehead as wh
from widehead import devices
from widehead.losses import mean_over_targets
from widehead.targets import SparseTargets

LISTS, VALUES = [[3, 9], [], [4]], [[1.0, 2.0], [], [0.5]]


def test_targets_go_there_without_a_wait_and_are_not_checked_again(played: Device) -> None:
    targets = SparseTargets.from_lists(LISTS, VALUES)
    with played.counting() as seen:
        there = targets.to("cuda")
        there.check_classes(10)
        there.check_weights()
        mean_over_targets(torch.ones(3, device="cuda"), there)
        assert there.to("cuda:0").class_ids is there.class_ids
    assert (seen.waits, there.class_ids.device.type) == ([], "cuda")
    assert (there.to_lists(), there.values_or_ones(torch.float64).tolist()) == (LISTS, [1.0, 2.0, 0.5])


def test_what_was_found_on_the_host_is_refused_on_the_device(played: Device) -> None:
    there = SparseTargets.from_lists(LISTS, [[1.0, -2.0], [], [0.5]]).to("cuda")
    with pytest.raises(ValueError, match=r"in \[0, 9\)\. Found class_ids\[1\] = 9 in example 0"):
        there.check_classes(9)
    with pytest.raises(ValueError, match=r"at least 0\. Found values\[1\] = -2"):
        there.check_weights()
    parts = there.select(torch.tensor([0, 2], device="cuda"))
    with played.counting() as seen:
        parts.check_classes(10)
    assert seen.waits == []


@pytest.mark.parametrize(
    ("ids", "message"),
    [([3, 10], "Found class_ids"), ([-1, 2], "Found class_ids"), ([[1, 0], [1, 1]], "sparse matrix")],
)
def test_tensors_of_ids_that_are_there_are_checked_with_one_wait(played: Device, ids: list[int], message: str) -> None:
    head = wh.FullSoftmaxHead(4, 2 if isinstance(ids[0], list) else 10, device="cuda")
    given, hidden = torch.tensor(ids, device="cuda"), torch.randn(2, 4, device="cuda")
    with played.counting() as seen, pytest.raises(ValueError, match=message):
        head(hidden, given)
    assert len(seen.waits) == 1


def test_targets_made_there_of_wrong_parts_are_refused(played: Device) -> None:
    ids, offsets = torch.tensor([3, 1], device="cuda"), torch.tensor([0, 2, 1, 2], device="cuda")
    with pytest.raises(ValueError, match=r"Found offsets\[1\] = 2 > offsets\[2\] = 1"):
        SparseTargets(ids, offsets)


@ROWS
@pytest.mark.parametrize("where", ["head", "hidden"])
def test_a_hidden_layer_on_another_device_is_one_error(played: Device, row: Row, where: str) -> None:
    head, hidden = make(row, torch.float32), torch.randn(6, WIDTH)
    head, hidden = (head.to("cuda"), hidden) if where == "head" else (head, hidden.to("cuda"))
    found = r"cuda:0\. Found cpu" if where == "head" else r"cpu\. Found cuda:0"
    for call in (
        lambda: head(hidden, torch.arange(6)),
        lambda: head.top_k(hidden, 2),
        lambda: head.scores(hidden, torch.arange(6)),
    ):
        with pytest.raises(ValueError, match=rf"should be on the head's device, {found}: move .* \.to\(device\)"):
            call()
    assert head.num_classes == D


def test_pinned_memory_is_one_buffer(played: Device) -> None:
    parts = [torch.arange(3), torch.arange(0), torch.arange(5)]
    with played.counting() as seen:
        there = devices.moved(parts, torch.device("cuda"))
    assert seen.kernels == {"copy to the device": 1}
    assert [part.tolist() for part in there] == [part.tolist() for part in parts]
    assert devices.moved(parts, torch.device("cpu"))[2] is parts[2]


def test_auto_takes_what_is_usable(played: Device) -> None:
    assert devices.resolved("auto") == "cuda"
    assert devices.resolved("cpu") == "cpu"
    assert not devices.usable("meta")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_auto_without_a_gpu_is_the_cpu() -> None:
    assert devices.resolved("auto") == "cpu"
    assert not devices.usable("cuda")
